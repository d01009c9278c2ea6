"""The pages of runs: their statuses, their waits, their steps and their failed attempts."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.core.paginator import Paginator
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.text import Truncator
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ...core import clock
from ...engine.runs.operations import useful
from ...models import Function, Run, Wait
from ..shared.filters import FunctionFilter
from ..shared.html import NOTHING, elapsed, moment_mark, status_mark
from ..shared.pages import Fact, Table
from ..shared.payloads import LINE, LONG, error_line, head, heads, json_payload, printable, stored_error, stored_payload
from ..waits import as_uuid, condition_text
from . import steps, trees
from .actions import RunActions, page_of
from .timeline import Span, Timeline, draw

MOST = 50  #: children and replays on a run's page
MOST_DRAWN = 200  #: steps in the picture


class RunAdmin(RunActions):
    """Shows runs; :mod:`.actions` has the operations of staff."""

    list_display = ("state", "function_link", "short_id", "trigger", "about", "created", "duration", "steps", "note")
    list_filter = ("status", FunctionFilter)
    page_template = "admin/django_durable/run.html"
    search_fields = ("id",)
    search_help_text = gettext_lazy("The id of a run or of its event, a function, or an event name or its beginning.")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Run]:
        """Read runs without payloads."""
        return super().get_queryset(request).defer("input", "output", "error")

    def for_list(self, queryset: QuerySet[Run]) -> QuerySet[Run]:
        """Read the columns of the list, and the first words of errors."""
        shown = queryset.select_related("event").only(*_LISTED, "event__name")
        return shown.annotate(error_head=head("error", LINE))

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Run], search_term: str
    ) -> tuple[QuerySet[Run], bool]:
        """Find by the columns that have an index: an id, a function, or the beginning of the event's name."""
        if not search_term:
            return queryset, False
        run_id = as_uuid(search_term)
        if run_id:
            return queryset.filter(Q(id=run_id) | Q(event_id=run_id)), False
        known = Function.objects.using(queryset.db)
        functions = [*known.filter(id=search_term), *known.filter(slug=search_term)]
        if functions:
            return queryset.filter(function__in=functions), False
        return queryset.filter(event__name__startswith=search_term), False

    @admin.display(description=gettext_lazy("status"))
    def state(self, run: Run) -> SafeString:
        """Show the status as icon and word."""
        return status_mark(run.status, run.get_status_display())

    @admin.display(description=gettext_lazy("function"))
    def function_link(self, run: Run) -> SafeString:
        """Link to the function."""
        return self.links.function(run.function_id)

    @admin.display(description=gettext_lazy("run"))
    def short_id(self, run: Run) -> SafeString:
        """Link to the run."""
        return self.links.run(run.id)

    @admin.display(description=gettext_lazy("trigger"))
    def trigger(self, run: Run) -> SafeString | str:
        """Link to the event that started it."""
        return self.links.event(run.event.id, printable(run.event.name)) if run.event else NOTHING

    @admin.display(description=gettext_lazy("summary"))
    def about(self, run: Run) -> str:
        """Show the summary that the run gave of itself."""
        return printable(run.summary) or NOTHING

    @admin.display(description=gettext_lazy("created"))
    def created(self, run: Run) -> SafeString | str:
        """Show when it was created."""
        return moment_mark(run.created_at)

    @admin.display(description=gettext_lazy("duration"))
    def duration(self, run: Run) -> str:
        """Show how long it has taken, its waits included."""
        return elapsed((run.finished_at or clock.now()) - run.created_at)

    @admin.display(description=gettext_lazy("waiting for / error"))
    def note(self, run: Any) -> str:
        """Show the event or time that it waits for, the limit that holds it, or its error."""
        text = error_line(run.error_head) if run.error_head else printable(_waiting_for(run))
        return Truncator(text).chars(120) or NOTHING

    def page(self, request: HttpRequest, obj: Run) -> dict[str, Any]:
        """Show the run, its steps and its attempts."""
        step_page = Paginator(steps.steps_of(obj), steps.PAGE).get_page(request.GET.get("steps"))
        rows, attempts = trees.as_tree(list(step_page)), steps.attempts_of(obj)
        groups = trees.groups_of(obj, rows)
        return {
            "title": f"{obj.function_id} {obj.id}",
            "facts": self._facts(obj),
            "buttons": self._buttons(request, obj),
            **_values(obj),
            "timeline": _timeline(obj, rows[:MOST_DRAWN], groups, attempts),
            "step_page": step_page,
            "steps": [steps.step_line(row, groups, self.links) for row in rows],
            "attempts": [steps.attempt_line(row) for row in attempts],
            "tables": [self._waits(obj), self._children(obj), self._replays(obj)],
        }

    def _buttons(self, request: HttpRequest, run: Run) -> list[tuple[object, str]]:
        allowed = [operation for operation in useful(run) if self.may(request, operation)]
        return [(operation.label, self.links.url(page_of(operation), run.id)) for operation in allowed]

    def _facts(self, run: Run) -> list[Fact]:
        facts = [
            Fact(_("Status"), self.state(run)),
            Fact(_("Waiting for"), printable(_waiting_for(run))),
            Fact(_("Summary"), printable(run.summary)),
            Fact(_("Function"), self.links.function(run.function_id)),
            Fact(_("Trigger"), self.trigger(run)),
            Fact(_("Parent"), self.links.run(run.parent_id) if run.parent_id else ""),
            Fact(_("Replay of"), self.links.run(run.replay_of_id) if run.replay_of_id else ""),
            Fact(_("Queue"), run.queue),
            Fact(_("Worker"), printable(run.owner)),
            Fact(_("Code version"), _code_version(run)),
            Fact(_("Failures of the handler since its last step"), run.attempt or ""),
            Fact(_("Lost workers"), run.crashes or ""),
        ]
        return [fact for fact in [*facts, *_times(run)] if fact.value != ""]

    def _waits(self, run: Run) -> Table:
        by_step: dict[object, list[Wait]] = {}
        for wait in run.waits.order_by("id")[:MOST]:
            by_step.setdefault(wait.key or wait.id, []).append(wait)
        rows = [_waits_row(waits) for waits in by_step.values()]
        return Table(_("Open waits"), [_("Kind"), _("Waits for"), _("Condition"), _("Until")], rows)

    def _children(self, run: Run) -> Table:
        return self._runs(_("Runs that it invoked"), run.children.all())

    def _replays(self, run: Run) -> Table:
        return self._runs(_("Replays of it"), run.replays.all())

    def _runs(self, caption: str, runs: QuerySet[Run]) -> Table:
        rows: list[list[object]] = [
            [self.links.run(run.id), self.links.function(run.function_id), self.state(run), moment_mark(run.created_at)]
            for run in runs.only("id", "function_id", "status", "created_at")[:MOST]
        ]
        return Table(caption, [_("Run"), _("Function"), _("Status"), _("Created")], rows)


_LISTED = (
    *("id", "function_id", "status", "created_at", "finished_at", "steps", "summary"),
    *("waiting_kind", "waiting_for", "held_by", "event"),
)


def _waits_row(waits: list[Wait]) -> list[object]:
    """Return the waits of a step, which may wait for one of several events, as one row."""
    first, names = waits[0], _(" or ").join(printable(wait.name) for wait in waits)
    return [first.get_kind_display(), names, condition_text(first), moment_mark(first.expires_at)]


def _waiting_for(run: Run) -> str:
    if run.held_by:
        return _("held by %(limit)s") % {"limit": run.held_by}
    return run.waiting_for


def _code_version(run: Run) -> SafeString | str:
    current, used = run.function.code_version, run.last_code_version or run.code_version
    notes = [_("last turn with %(version)s") % {"version": used}] if used != run.code_version else []
    notes += [_("the code is %(version)s now") % {"version": current}] if used != current else []
    return format_html("{} ({})", run.code_version, "; ".join(notes)) if notes else run.code_version


def _times(run: Run) -> list[Fact]:
    times = [
        Fact(_("Created"), moment_mark(run.created_at, spelled=True)),
        Fact(_("Started"), moment_mark(run.started_at, spelled=True) if run.started_at else ""),
        Fact(_("Ended"), moment_mark(run.finished_at, spelled=True) if run.finished_at else ""),
        Fact(_("Duration"), elapsed((run.finished_at or clock.now()) - run.created_at)),
    ]
    if run.status == "waiting" and run.next_at:
        times.append(Fact(_("Goes on at the latest"), moment_mark(run.next_at, spelled=True)))
    return times


def _values(run: Run) -> dict[str, Any]:
    read = heads("input", "output", "error", limit=LONG)
    [row] = Run.objects.using(run._state.db).filter(id=run.id).annotate(**read).values(*read)
    return {
        "input": stored_payload(row, "input") or (json_payload(run.event.data) if run.event else None),
        "output": stored_payload(row, "output"),
        "error": stored_error(row),
    }


def _timeline(run: Run, rows: list[trees.Row], groups: trees.Groups, attempts: list[dict[str, Any]]) -> Timeline:
    by_step = steps.attempts_by_step(attempts)
    handler = Span(
        label=run.function_id,
        status=run.status,
        planned_at=run.created_at,
        started_at=run.started_at,
        finished_at=run.finished_at,
        attempts=by_step.get(None, ()),
    )
    return draw([handler, *steps.spans(rows, groups, by_step)], run.created_at, run.finished_at or clock.now())
