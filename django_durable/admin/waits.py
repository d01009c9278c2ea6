"""The pages of open waits: the event, function or signal that a run waits for, and until when."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.safestring import SafeString
from django.utils.text import Truncator
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ..models import Wait
from .shared.html import NOTHING, moment_mark
from .shared.pages import Fact, ReadOnlyAdmin
from .shared.payloads import printable

_FIELDS = ("id", "run", "kind", "name", "match", "expression", "expires_at", "created_at")


class WaitAdmin(ReadOnlyAdmin):
    """Shows open waits."""

    list_display = ("what", "kind", "run_link", "function", "condition", "until", "since_when")
    list_filter = ("kind",)
    search_fields = ("name",)
    search_help_text = gettext_lazy("An event, function or signal name in full, or the id of a run.")

    def for_list(self, queryset: QuerySet[Wait]) -> QuerySet[Wait]:
        """Read waits with the functions of their runs."""
        return queryset.select_related("run").only(*_FIELDS, "run__function_id")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Wait], search_term: str
    ) -> tuple[QuerySet[Wait], bool]:
        """Find by exact name, or by run id."""
        if not search_term:
            return queryset, False
        run_id = as_uuid(search_term)
        return (queryset.filter(run_id=run_id) if run_id else queryset.filter(name=search_term)), False

    @admin.display(description=gettext_lazy("waits for"))
    def what(self, wait: Wait) -> str:
        """Show the event, function or signal."""
        return printable(wait.name)

    @admin.display(description=gettext_lazy("run"))
    def run_link(self, wait: Wait) -> SafeString:
        """Link to the run that waits."""
        return self.links.run(wait.run_id)

    @admin.display(description=gettext_lazy("function"))
    def function(self, wait: Wait) -> SafeString:
        """Link to the function that waits."""
        return self.links.function(wait.run.function_id)

    @admin.display(description=gettext_lazy("condition"))
    def condition(self, wait: Wait) -> str:
        """Show the condition on the event, cut short."""
        return Truncator(condition_text(wait)).chars(100) or NOTHING

    @admin.display(description=gettext_lazy("until"))
    def until(self, wait: Wait) -> SafeString | str:
        """Show when it times out."""
        return moment_mark(wait.expires_at)

    @admin.display(description=gettext_lazy("since"))
    def since_when(self, wait: Wait) -> SafeString | str:
        """Show when it began."""
        return moment_mark(wait.created_at)

    def page(self, request: HttpRequest, obj: Wait) -> dict[str, Any]:
        """Show everything about the wait."""
        return {
            "title": _("Wait for %(name)s") % {"name": printable(obj.name)},
            "facts": [
                Fact(_("Kind"), obj.get_kind_display()),
                Fact(_("Name"), printable(obj.name)),
                Fact(_("Condition"), condition_text(obj) or NOTHING),
                Fact(_("Run"), self.links.run(obj.run_id, str(obj.run_id))),
                Fact(_("Function"), self.function(obj)),
                Fact(_("Since"), moment_mark(obj.created_at, spelled=True)),
                Fact(_("Events count from"), moment_mark(obj.since)),
                Fact(_("Until"), moment_mark(obj.expires_at, spelled=True)),
            ],
        }


def condition_text(wait: Wait) -> str:
    """Return the condition that an event meets to resolve the wait, in one line."""
    match = _("same %(path)s") % {"path": wait.match} if wait.match else ""
    return printable(" · ".join(filter(None, [match, wait.expression])))


def as_uuid(text: str) -> UUID | None:
    """Return the id that *text* writes, or None."""
    try:
        return UUID(text.strip())
    except ValueError:
        return None
