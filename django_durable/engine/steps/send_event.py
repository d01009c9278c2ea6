"""``step.send_event``: send events in the commit that records it, so exactly once."""

from __future__ import annotations

from ...core import clock
from ...core.replay.operations import Memo, SendEvents, StepStatus
from ...core.values import encoding
from ..events import sending
from ..store.rows import StepRow
from ..store.transactions import atomic
from .turn_context import TurnContext


def begin(turn: TurnContext, op: SendEvents, memo: Memo | None) -> Memo:
    """Store the events and the memo with their ids in one transaction."""
    now = clock.now()
    with atomic():
        ids = sending.send(op.events, source="step")
        names = ", ".join(event.name for event in op.events)
        row = StepRow.of(op, StepStatus.COMPLETED, now, input=names, output=encoding.encode(ids), finished_at=now)
        return turn.lease.record(row)
