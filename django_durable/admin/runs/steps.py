"""The steps and attempts on a run's page: rows become lines, with payloads that the database cuts."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.db.models import QuerySet
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from ...core.values.errors import ErrorInfo
from ...models import Run, Step, StepAttempt, StepKind, StepStatus
from ...models.steps import KIND_LABELS
from ..shared.html import NOTHING, Links, elapsed, moment_mark, relative, status_mark
from ..shared.payloads import SHORT, Payload, heads, printable, stored_error, stored_payload
from . import trees
from .timeline import Attempt, Span

PAGE = 500  #: steps on one page
MOST_ATTEMPTS = 500  #: attempts on one page
_INDENT = "\N{NO-BREAK SPACE}" * 2
_STEP = (
    "key",
    "parent_key",
    "branch",
    "name",
    "ordinal",
    "kind",
    "status",
    "attempt",
    "event_id",
    "planned_at",
    "started_at",
    "unused",
)
_STEP_COLUMNS = (*_STEP, "finished_at", "next_at", "input")
_ATTEMPT_COLUMNS = ("key", "name", "number", "status", "owner", "started_at", "finished_at")


@dataclass(frozen=True, slots=True, kw_only=True)
class StepLine:
    """A step as its run's page shows it."""

    title: str
    depth: int  #: how far it is indented
    kind: str
    status: SafeString
    attempt: int
    started: SafeString | str
    duration: str
    next: SafeString | str
    input: str
    output: Payload | None
    error: ErrorInfo | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptLine:
    """An attempt that did not become the memo, as its run's page shows it."""

    title: str
    number: int
    status: SafeString
    started: SafeString | str
    duration: str
    owner: str
    output: Payload | None
    error: ErrorInfo | None


def steps_of(run: Run) -> QuerySet[Any, dict[str, Any]]:
    """Return the rows of a run's steps in order, with the beginnings of their payloads."""
    read = heads("output", "error", limit=SHORT)
    steps: QuerySet[Any] = Step.objects.using(run._state.db).filter(run_id=run.id).in_order()
    return steps.annotate(**read).values(*_STEP_COLUMNS, *read)  # type: ignore[no-any-return]


def attempts_of(run: Run) -> list[dict[str, Any]]:
    """Return the rows of a run's latest attempts that did not become memos, oldest first."""
    read = heads("output", "error", limit=SHORT)
    attempts = StepAttempt.objects.using(run._state.db).filter(run_id=run.id).order_by("-id")
    return list(attempts.annotate(**read).values(*_ATTEMPT_COLUMNS, *read)[:MOST_ATTEMPTS])[::-1]


def step_line(row: Mapping[str, Any], groups: trees.Groups, links: Links) -> StepLine:
    """Return a step's row as a line."""
    group = groups.get(row["key"])
    return StepLine(
        title=trees.title(row, groups),
        depth=trees.depth(row),
        kind=str(KIND_LABELS[row["kind"]]),
        status=status_mark(row["status"], trees.status_label(row, groups)),
        attempt=row["attempt"],
        started=moment_mark(row["started_at"] or row["planned_at"]),
        duration=_duration(row["started_at"] or row["planned_at"], row["finished_at"]),
        next=_next(row, links),
        input=group.text if group else printable(row["input"]),
        output=stored_payload(row, "output"),
        error=stored_error(row),
    )


def attempt_line(row: Mapping[str, Any]) -> AttemptLine:
    """Return an attempt's row as a line."""
    return AttemptLine(
        title=printable(row["name"]) or _("handler"),
        number=row["number"],
        status=status_mark(row["status"], str(StepAttempt.Status(row["status"]).label)),
        started=moment_mark(row["started_at"]),
        duration=_duration(row["started_at"], row["finished_at"]),
        owner=printable(row["owner"]),
        output=stored_payload(row, "output"),
        error=stored_error(row),
    )


def attempts_by_step(rows: Sequence[Mapping[str, Any]]) -> dict[bytes | None, list[Attempt]]:
    """Return when each step failed or was discarded, by its key; None is the handler."""
    attempts: dict[bytes | None, list[Attempt]] = {}
    for row in rows:
        attempts.setdefault(row["key"], []).append((row["status"], row["started_at"], row["finished_at"]))
    return attempts


def spans(
    rows: Sequence[Mapping[str, Any]], groups: trees.Groups, attempts: Mapping[bytes | None, Sequence[Attempt]]
) -> list[Span]:
    """Return steps, with their attempts, as spans of time."""
    return [
        Span(
            label=_INDENT * trees.depth(row) + trees.title(row, groups),
            status=row["status"],
            planned_at=row["planned_at"],
            started_at=row["started_at"],
            finished_at=row["finished_at"],
            attempts=attempts.get(row["key"], ()),
        )
        for row in rows
    ]


def _duration(start: datetime.datetime, end: datetime.datetime | None) -> str:
    return elapsed(end - start) if end else NOTHING


def _next(row: Mapping[str, Any], links: Links) -> SafeString | str:
    if row["event_id"]:
        return links.event(row["event_id"])
    # A branch that is planned or runs has the moment at which the scheduler looks after it.
    is_own = row["kind"] != StepKind.BRANCH or row["status"] == StepStatus.WAITING
    if row["finished_at"] is None and row["next_at"] and is_own:
        return relative(row["next_at"])
    return NOTHING
