"""Stored steps as memos, which are what a replay reads."""

from __future__ import annotations

import datetime

from ...codecs import open_text
from ...core.replay.operations import Memo, StepKind, StepStatus
from .rows import EventRow
from .stored_events import event_of

#: What is read of a step's row for its memo, in the order in which :func:`memo_of` takes it.
COLUMNS = ("key", "name", "kind", "status", "output", "error", "attempt", "next_at", "finished_at", "seq")


def memo_of(
    key: bytes,
    name: str,
    kind: str,
    status: str,
    output: str | None,
    error: str | None,
    attempt: int,
    next_at: datetime.datetime | None,
    finished_at: datetime.datetime | None,
    seq: int | None,
    *,
    event: EventRow | None,
) -> Memo:
    """Return the memo of a step that is stored with these columns; *event* is what settled it.

    Raises CodecError if a payload cannot be decoded here.
    """
    return Memo(
        key=key,
        name=name,
        kind=StepKind(kind),
        status=StepStatus(status),
        output=open_text(output),
        error=open_text(error),
        attempt=attempt,
        next_at=next_at,
        finished_at=finished_at,
        event=None if event is None else event_of(event),
        seq=seq,
    )
