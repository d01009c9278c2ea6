"""``step.continue_as_new``: end the run, and start another one of its function in its place."""

from __future__ import annotations

from functools import partial
from typing import NoReturn

from ...core.replay.interrupts import LeaseLost, Suspend
from ...core.replay.operations import ContinueAsNew, Memo
from ..runs import ending
from .turn_context import TurnContext


def begin(turn: TurnContext, op: ContinueAsNew, memo: Memo | None) -> NoReturn:
    """Let the handler unwind; then the run ends, in one commit with the start of the next one."""
    raise Suspend(partial(_continue, turn, op))


def _continue(turn: TurnContext, op: ContinueAsNew) -> None:
    if not ending.continue_as_new(turn.lease.claim, turn.function, op.data):
        raise LeaseLost
