"""The kinds of steps, one row each: how a step begins, and when one that is open can go on.

A new kind has its operation in :mod:`....core.replay.operations`, a method on ``Step`` and ``AsyncStep``, a file here,
and a row in this table. Where it must wait, it begins with a PendingStep, which says how it opens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ...core import clock
from ...core.replay.groups import Group, Op
from ...core.replay.operations import (
    AtomicStep,
    ContinueAsNew,
    Invoke,
    Memo,
    RunStep,
    SendEvents,
    Sleep,
    Summarize,
    WaitForEvent,
    WaitForSignal,
)
from . import (
    atomic,
    continue_as_new,
    invoke,
    parallel,
    run,
    send_event,
    sleep,
    summary,
    wait_for_event,
    wait_for_signal,
)
from .opening import PendingStep
from .turn_context import TurnContext


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A row of the table: how the engine treats one kind of step."""

    begin: Callable[[TurnContext, Any, Memo | None], Memo | PendingStep]  #: do it, or say how it opens
    is_due: Callable[[TurnContext, Any, Memo], bool] | None = None  #: whether an open one goes on; None: others say
    count: Callable[[TurnContext, Any], int] | None = None  #: how many of the run's steps it takes; None: one


def at_its_moment(turn: TurnContext, op: Op, memo: Memo) -> bool:
    """Tell whether the moment of an open step has come, by this worker's clock or by the database's at the claim."""
    return memo.next_at is not None and memo.next_at <= max(clock.now(), turn.lease.claim.now)


KINDS: Mapping[type[Any], Kind] = {
    RunStep: Kind(begin=run.begin, is_due=at_its_moment),
    AtomicStep: Kind(begin=atomic.begin, is_due=at_its_moment),
    Sleep: Kind(begin=sleep.begin, is_due=at_its_moment),
    WaitForEvent: Kind(begin=wait_for_event.begin),
    WaitForSignal: Kind(begin=wait_for_signal.begin),
    Invoke: Kind(begin=invoke.begin),
    SendEvents: Kind(begin=send_event.begin),
    Summarize: Kind(begin=summary.begin),
    ContinueAsNew: Kind(begin=continue_as_new.begin),
    Group: Kind(begin=parallel.begin, is_due=parallel.has_new_branches, count=parallel.count),
}
