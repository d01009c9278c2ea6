"""The pages of events: their data, the runs that they started, and the waits that they resolved."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import Prefetch, QuerySet
from django.http import HttpRequest
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ..models import Event, Run, Step
from .shared.html import NOTHING, moment_mark, status_mark
from .shared.pages import Fact, ReadOnlyAdmin, Table
from .shared.payloads import json_payload, printable
from .waits import as_uuid

MOST = 100  #: rows in a table of an event's page


class EventAdmin(ReadOnlyAdmin):
    """Shows events."""

    list_display = ("title", "short_id", "source", "received", "ingested", "started_runs")
    list_filter = ("source",)
    search_fields = ("name",)
    search_help_text = gettext_lazy("An id, or a name or its beginning.")

    def for_list(self, queryset: QuerySet[Event]) -> QuerySet[Event]:
        """Read events without their payloads, and the runs that they started."""
        runs = Run.objects.only("id", "status", "function_id", "event_id")
        return queryset.defer("data", "user").prefetch_related(Prefetch("runs", runs))

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Event], search_term: str
    ) -> tuple[QuerySet[Event], bool]:
        """Find by id, or by the beginning of the name."""
        if not search_term:
            return queryset, False
        event_id = as_uuid(search_term)
        return (queryset.filter(id=event_id) if event_id else queryset.filter(name__startswith=search_term)), False

    @admin.display(description=gettext_lazy("name"))
    def title(self, event: Event) -> str:
        """Show the name."""
        return printable(event.name)

    @admin.display(description=gettext_lazy("id"))
    def short_id(self, event: Event) -> SafeString:
        """Link the ends of the id."""
        return self.links.event(event.id)

    @admin.display(description=gettext_lazy("received"))
    def received(self, event: Event) -> SafeString | str:
        """Show when the database took it."""
        return moment_mark(event.received_at)

    @admin.display(description=gettext_lazy("ingested"))
    def ingested(self, event: Event) -> SafeString | str:
        """Show when it was ingested, or that it was not yet."""
        if event.ingested_at is None:
            return status_mark("waiting", _("Not yet"))
        return moment_mark(event.ingested_at)

    @admin.display(description=gettext_lazy("runs"))
    def started_runs(self, event: Event) -> SafeString | str:
        """Link to the runs that it started."""
        return format_html_join(mark_safe("<br>"), "{}", ((self._run(run),) for run in event.runs.all())) or NOTHING

    def _run(self, run: Run) -> SafeString:
        text = format_html("{} {}", status_mark(run.status, run.get_status_display()), run.function_id)
        return self.links.run(run.id, text)

    def page(self, request: HttpRequest, obj: Event) -> dict[str, Any]:
        """Show its data, the runs that it started and the waits that it resolved."""
        payloads = [(_("Data"), json_payload(obj.data))]
        if obj.user is not None:
            payloads.append((_("User"), json_payload(obj.user)))
        return {
            "title": printable(obj.name),
            "facts": self._facts(obj),
            "payloads": payloads,
            "tables": [self._runs(obj), self._resolved(obj), self._failures(obj)],
        }

    def _facts(self, event: Event) -> list[Fact]:
        return [
            Fact(_("Id"), str(event.id)),
            Fact(_("Name"), printable(event.name)),
            Fact(_("Source"), event.get_source_display()),
            Fact(_("Happened"), moment_mark(event.ts, spelled=True)),
            Fact(_("Received"), moment_mark(event.received_at, spelled=True)),
            Fact(_("Ingested"), self.ingested(event)),
            Fact(_("Version"), printable(event.v) or NOTHING),
        ]

    def _runs(self, event: Event) -> Table:
        rows: list[list[object]] = [
            [
                self.links.run(run.id),
                self.links.function(run.function_id),
                status_mark(run.status, run.get_status_display()),
            ]
            for run in event.runs.only("id", "status", "function_id")[:MOST]
        ]
        return Table(_("Runs that it started"), [_("Run"), _("Function"), _("Status")], rows)

    def _resolved(self, event: Event) -> Table:
        steps = Step.objects.using(event._state.db).filter(event_id=event.id).order_by("-run_id")
        rows: list[list[object]] = [
            [self.links.run(run_id), self.links.function(function), printable(name)]
            for run_id, function, name in steps.values_list("run_id", "run__function_id", "name")[:MOST]
        ]
        return Table(_("Waits that it resolved"), [_("Run"), _("Function"), _("Step")], rows)

    def _failures(self, event: Event) -> Table:
        rows: list[list[object]] = [
            [self._place(failure), printable(failure.expression), printable(failure.reason)]
            for failure in event.match_failures.all()[:MOST]
        ]
        return Table(_("Conditions that could not be checked"), [_("Of"), _("Condition"), _("Reason")], rows)

    def _place(self, failure: Any) -> SafeString | str:
        if failure.run_id:
            return self.links.run(failure.run_id)
        return self.links.function(failure.function_id) if failure.function_id else NOTHING
