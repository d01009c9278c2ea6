"""The pages of functions: their triggers, their options and their latest runs."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import Case, Count, OuterRef, QuerySet, Subquery, When
from django.http import HttpRequest
from django.utils.html import format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from ..conf import get_settings
from ..drivers.base import get_driver
from ..models import LIVE, Function, Run
from .shared.html import NOTHING, moment_mark, status_mark
from .shared.pages import Fact, ReadOnlyAdmin, Table
from .shared.payloads import json_payload, printable

LATEST = 20  #: runs on a function's page


class FunctionAdmin(ReadOnlyAdmin):
    """Shows functions."""

    list_display = ("id", "triggers", "retries", "queue", "state", "seen", "runs")
    list_filter = ("in_code",)
    search_fields = ("id",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Function]:
        """Count the live runs of each function that the code lost."""
        live = Run.objects.filter(function_id=OuterRef("id"), status__in=LIVE).order_by().values("function_id")
        count = Subquery(live.annotate(count=Count("id")).values("count"))
        functions: QuerySet[Function] = super().get_queryset(request)
        return functions.annotate(live=Case(When(in_code=False, then=count)))

    @admin.display(description=gettext_lazy("triggers"))
    def triggers(self, function: Function) -> SafeString | str:
        """List the events that start it."""
        return format_html_join(", ", "<code>{}</code>", ((text,) for text in _triggers(function))) or NOTHING

    @admin.display(description=gettext_lazy("retries"))
    def retries(self, function: Function) -> object:
        """Show how many attempts a step has after its first."""
        return _option(function, "retries", get_settings().retries)

    @admin.display(description=gettext_lazy("queue"))
    def queue(self, function: Function) -> object:
        """Show the queue of its runs."""
        return _option(function, "queue", get_driver().default_queue())

    @admin.display(description=gettext_lazy("state"))
    def state(self, function: Any) -> SafeString:
        """Tell whether the code has it, how many runs are live if not, and whether it is paused."""
        if not function.in_code:
            text = ngettext("Not in code, %(live)d live run", "Not in code, %(live)d live runs", function.live or 0)
            return status_mark("cancelled", text % {"live": function.live or 0})
        if function.paused_at:
            return status_mark("waiting", _("Paused"))
        return status_mark("completed", _("Active"))

    @admin.display(description=gettext_lazy("last seen"))
    def seen(self, function: Function) -> SafeString | str:
        """Show when it was last registered."""
        return moment_mark(function.last_seen)

    @admin.display(description=gettext_lazy("runs"))
    def runs(self, function: Function) -> SafeString:
        """Link to its runs."""
        return self.links.runs_of(function.id, _("runs"))

    def page(self, request: HttpRequest, obj: Function) -> dict[str, Any]:
        """Show its configuration and latest runs."""
        return {
            "title": obj.id,
            "facts": self._facts(obj),
            "payloads": [(_("Configuration"), json_payload(obj.config))],
            "tables": [self._latest_runs(obj)],
        }

    def _facts(self, function: Function) -> list[Fact]:
        return [
            Fact(_("State"), self.state(function)),
            Fact(_("Triggers"), self.triggers(function)),
            Fact(_("Retries"), self.retries(function)),
            Fact(_("Queue"), self.queue(function)),
            Fact(_("Code"), function.config.get("place") or NOTHING),
            Fact(_("Code version"), function.code_version or NOTHING),
            Fact(_("First seen"), moment_mark(function.first_seen, spelled=True)),
            Fact(_("Last seen"), moment_mark(function.last_seen, spelled=True)),
            Fact(_("Runs"), self.links.runs_of(function.id, _("all runs"))),
        ]

    def _latest_runs(self, function: Function) -> Table:
        runs = Run.objects.using(function._state.db).filter(function_id=function.id)
        rows: list[list[object]] = [
            [
                self.links.run(run.id),
                status_mark(run.status, run.get_status_display()),
                moment_mark(run.created_at),
                printable(run.waiting_for),
            ]
            for run in runs.only("id", "status", "created_at", "waiting_for")[:LATEST]
        ]
        return Table(_("Latest runs"), [_("Run"), _("Status"), _("Created"), _("Waiting for")], rows)


def _triggers(function: Function) -> list[str]:
    triggers = function.config.get("triggers") or []
    return [f"{each['event']} if {each['if']}" if each.get("if") else each["event"] for each in triggers]


def _option(function: Function, name: str, default: object) -> object:
    value = function.config.get(name)
    return _("%(value)s (default)") % {"value": default} if value is None else value
