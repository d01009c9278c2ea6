"""Histories: the records of a run as a JSON document, and back as the memos of a replay."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from ...core.events.events import Event
from ...core.replay.groups import branch_key
from ...core.replay.operations import Memo, step_key
from ...exceptions import DurableError, RunNotFound
from ...models import Run, Step
from ..store import stored_events
from ..store.rows import EventRow
from ..store.step_names import title
from ..store.stored_memos import COLUMNS, memo_of
from ..store.stores import get_store
from ..store.transactions import alias

FORMAT = 1  #: raised when older code cannot read what is written

_MOMENTS = ("planned_at", "started_at", "finished_at", "next_at")


def export(run_id: UUID) -> dict[str, Any]:
    """Return the run's function, event and steps; results and errors are JSON text, as they are recorded."""
    run = Run.objects.using(alias()).select_related("event").filter(id=run_id).first()
    if run is None:
        raise RunNotFound(run_id)
    return {
        "format": FORMAT,
        "run": str(run.id),
        "function": run.function_id,
        "code_version": run.code_version,
        "status": run.status,
        "attempt": run.attempt,
        "created_at": run.created_at.isoformat(),
        "event": _event_document(stored_events.trigger_of_run(run)),
        "steps": _steps(run_id),
    }


def _steps(run_id: UUID) -> list[dict[str, Any]]:
    memos = {memo.key: memo for memo in get_store().history(run_id)}
    rows = Step.objects.using(alias()).filter(run_id=run_id).select_related("event").defer("output", "error")
    # A step that was recorded between the two queries is left out.
    return [_step_document(row, memos[row.key]) for row in rows.in_order() if row.key in memos]


def _step_document(row: Step, memo: Memo) -> dict[str, Any]:
    return {
        "name": row.name,
        "ordinal": row.ordinal,
        "branch": row.branch,
        "path": row.path,
        "kind": str(memo.kind),
        "status": str(memo.status),
        "seq": row.seq,
        "attempt": memo.attempt,
        "output": memo.output,
        "error": memo.error,
        "event": _event_document(stored_events.event_row(row.event)) if row.event else None,
        **{name: _text(getattr(row, name)) for name in _MOMENTS},
    }


def _event_document(row: EventRow) -> dict[str, Any]:
    return {
        "id": str(row.id),
        "name": row.name,
        "data": row.data,
        "user": row.user,
        "v": row.v,
        "ts": row.ts.isoformat(),
        "received_at": row.received_at.isoformat(),
    }


def _text(moment: datetime.datetime | None) -> str | None:
    return moment.isoformat() if moment else None


@dataclass(frozen=True, slots=True)
class History:
    """A history that was read back."""

    run_id: str
    function_id: str
    event: Event
    attempt: int
    memos: list[tuple[str, Memo]]  #: with the names of their steps, and branch and ordinal where they have them


def read(document: Mapping[str, Any]) -> History:
    """Return the history that :func:`export` wrote; DurableError if *document* is not one."""
    if document.get("format") != FORMAT:
        raise DurableError(
            f"This is not a history of format {FORMAT}: write it with export_history() or 'durable export'"
        )
    try:
        return History(
            run_id=document["run"],
            function_id=document["function"],
            event=stored_events.event_of(_event_row(document["event"])),
            attempt=document["attempt"],
            memos=[(_title(step), _memo(step)) for step in document["steps"]],
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise DurableError(
            f"The history of run {document.get('run')} cannot be read ({reason}): export it again"
        ) from None


def _event_row(document: Mapping[str, Any]) -> EventRow:
    return EventRow(
        id=UUID(document["id"]),
        name=document["name"],
        data=document["data"],
        user=document["user"],
        v=document["v"],
        ts=datetime.datetime.fromisoformat(document["ts"]),
        received_at=datetime.datetime.fromisoformat(document["received_at"]),
        ingested_at=None,
    )


def _title(step: Mapping[str, Any]) -> str:
    name = title(step["name"], step["ordinal"])
    return f"{step['branch']} > {name}" if step["branch"] else name


def _memo(step: Mapping[str, Any]) -> Memo:
    path = step["path"]
    columns = {
        **step,
        "key": branch_key(path) if path else step_key(step["branch"], step["name"], step["ordinal"]),
        "next_at": _moment(step["next_at"]),
        "finished_at": _moment(step["finished_at"]),
    }
    event = _event_row(step["event"]) if step["event"] else None
    return memo_of(*(columns[name] for name in COLUMNS), event=event)


def _moment(text: str | None) -> datetime.datetime | None:
    return None if text is None else datetime.datetime.fromisoformat(text)


def parse(text: str) -> History:
    """Return the history that is written in JSON text; DurableError if it is not one."""
    try:
        document = json.loads(text)
    except ValueError as error:
        raise DurableError(f"This is not JSON: {error}") from None
    return read(document if isinstance(document, dict) else {})
