"""Open steps: sleeps, waits, children, groups and back-offs, committed together with what the run then waits for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...core.replay.operations import Memo, WaitForEvent, WaitForSignal
from ..events import index
from ..runs.end_events import store_invoked_event
from ..runs.ending import announce, store_runs
from ..store.rows import PendingStep
from ..store.stores import get_store
from ..store.transactions import atomic, retried
from . import wait_for_event, wait_for_signal

if TYPE_CHECKING:
    from ..turns.turns import Turn


@retried
def commit(turn: Turn, openings: Sequence[PendingStep], *, park: bool) -> list[Memo]:
    """Write open steps, and let the run wait for them if it is to *park*; return the memos of those settled at once.

    Nothing slips between the look at stored events and the commit of a wait: ingest is locked out of the names. A run
    of which something is settled at once does not park. Raises LeaseLost.
    """
    if park and len(openings) == 1 and openings[0].is_plain:
        turn.park(openings)
        return []
    for opening in openings:
        if opening.lookback is not None:
            index.prepare_paths(opening.lookback.patterns, opening.lookback.rule.index_path)
    with atomic():
        _lock_names(openings)
        found = [(opening, _settled_now(turn, opening)) for opening in openings]
        memos = [memo for _, memo in found if memo is not None]
        left = [opening for opening, memo in found if memo is None]
        if park and not memos:
            turn.park(left)
        elif left:
            _plan(turn, left)
        children = store_runs(opening.child for opening in left if opening.child is not None)
        announce(turn.elsewhere(children))
        for opening in left:
            if opening.child is not None:
                store_invoked_event(opening.child, turn.claim.event)
    turn.lease.left_branches |= any(opening.branches for opening in left)
    return memos


def _lock_names(openings: Sequence[PendingStep]) -> None:
    patterns = {pattern for opening in openings if opening.lookback for pattern in opening.lookback.patterns}
    if patterns:
        get_store().lock_names(patterns, shared=True)
    names = {wait_for_signal.lock_name(each.op.signal) for each in openings if isinstance(each.op, WaitForSignal)}
    if names:
        get_store().lock_names(names, shared=False)


def _settled_now(turn: Turn, opening: PendingStep) -> Memo | None:
    if isinstance(opening.op, WaitForSignal):
        return wait_for_signal.take_name(turn, opening.op, opening.row)
    if isinstance(opening.op, WaitForEvent) and opening.lookback is not None:
        return wait_for_event.look_back(turn, opening.op, opening.lookback, opening.row)
    return None


def _plan(turn: Turn, openings: Sequence[PendingStep]) -> None:
    rows = [row for opening in openings for row in (opening.row, *opening.branches)]
    turn.lease.plan(rows, [wait for opening in openings for wait in opening.waits])
    for opening in openings:
        if opening.failed is not None:
            get_store().keep_attempt(turn.claim, opening.failed)
