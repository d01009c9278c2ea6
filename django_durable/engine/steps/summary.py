"""``step.summary``: show a text with the run in lists."""

from __future__ import annotations

from ...core import clock
from ...core.replay.operations import Memo, StepStatus, Summarize
from ..store.rows import StepRow
from ..store.transactions import atomic
from .turn_context import TurnContext


def begin(turn: TurnContext, op: Summarize, memo: Memo | None) -> Memo:
    """Write the text into the run's row, and record that, in one transaction."""
    now = clock.now()
    with atomic():
        turn.lease.store.summarize(turn.lease.claim, op.text)
        return turn.lease.record(StepRow.of(op, StepStatus.COMPLETED, now, input=op.text, finished_at=now))
