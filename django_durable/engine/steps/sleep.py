"""``step.sleep`` and ``step.sleep_until``: let the run wait until a moment, which the first pass records."""

from __future__ import annotations

from ...core import clock
from ...core.replay.operations import Memo, Sleep, StepStatus
from ..store.rows import StepRow
from .opening import PendingStep
from .turn_context import TurnContext


def begin(turn: TurnContext, op: Sleep, memo: Memo | None) -> Memo | PendingStep:
    """Record a sleep that is over, or return how its end is waited for."""
    now = clock.now()
    until = memo.next_at if memo and memo.next_at else op.until_from(now)
    if memo is not None or until <= now:
        return turn.lease.record(StepRow.of(op, StepStatus.COMPLETED, now, next_at=until, finished_at=now))
    return PendingStep(row=StepRow.of(op, StepStatus.WAITING, now, next_at=until), kind="sleep", text=op.ref.name)
