"""How a step opens: its row, its waits and its children are committed together with what the run waits for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...core.replay.operations import Memo
from ...models import Run
from ..runs.end_events import store_invoked_event
from ..runs.starting import store_runs
from ..store.contract import Store
from ..store.rows import AttemptRow, Parking, StepRow, WaitRow
from ..store.transactions import atomic, retried
from .turn_context import TurnContext


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingStep:
    """A step that the run must wait for: its row, and *kind* and *text* of what is waited for, for people.

    The other fields name the rows that are written in the same commit, and the names that are locked before. A kind of
    step that a stored row may settle at once overrides :meth:`settled_now`.
    """

    row: StepRow
    kind: str
    text: str
    waits: Sequence[WaitRow] = ()
    branches: Sequence[StepRow] = ()  #: rows of a group's branches
    child: Run | None = None  #: an invoked run
    failed: AttemptRow | None = None  #: the attempt that it comes of
    reads: frozenset[str] = frozenset()  #: names of events that ingest may not store meanwhile
    takes: frozenset[str] = frozenset()  #: names that nobody else may read or take meanwhile

    @property
    def is_plain(self) -> bool:
        """Whether nothing but its own rows is read or written."""
        return not (self.branches or self.child or self.reads or self.takes)

    def prepare(self) -> None:
        """Prepare what needs commits of its own, before the transaction that opens the step."""

    def settled_now(self, turn: TurnContext) -> Memo | None:
        """Settle the step by a stored row and return its memo; None if it must wait. The names are locked."""
        return None


@retried
def open_steps(turn: TurnContext, pending: Sequence[PendingStep], *, park: bool) -> list[Memo]:
    """Write open steps, and let the run wait for them if it is to *park*; return the memos of those settled at once.

    Nothing slips between the look at stored events and the commit of a wait: ingest is locked out of the names. A run
    does not park if one of its steps is settled at once. Raises LeaseLost.
    """
    if park and len(pending) == 1 and pending[0].is_plain:
        _park(turn, pending)
        return []
    for each in pending:
        each.prepare()
    with atomic():
        _lock_names(turn.lease.store, pending)
        found = [(each, each.settled_now(turn)) for each in pending]
        memos = [memo for _, memo in found if memo is not None]
        left = [each for each, memo in found if memo is None]
        if park and not memos:
            _park(turn, left)
        elif left:
            _plan(turn, left)
        _start_children(turn, [each.child for each in left if each.child is not None])
    turn.lease.left_branches |= any(each.branches for each in left)
    return memos


def _lock_names(store: Store, pending: Sequence[PendingStep]) -> None:
    reads: frozenset[str] = frozenset().union(*(each.reads for each in pending))
    takes: frozenset[str] = frozenset().union(*(each.takes for each in pending))
    if reads:
        store.lock_names(reads, shared=True)
    if takes:
        store.lock_names(takes, shared=False)


def _park(turn: TurnContext, pending: Sequence[PendingStep]) -> None:
    """Let the run wait for these steps; failures of the handler's own code are kept."""
    first = pending[0]
    moments = [each.row.next_at for each in pending if each.row.next_at is not None]
    turn.lease.park(
        Parking(
            next_at=min([*moments, *turn.open_moments()], default=None),
            kind=first.kind,
            text=first.text,
            attempt=turn.lease.attempt,
            steps=[row for each in pending for row in (each.row, *each.branches)],
            waits=[wait for each in pending for wait in each.waits],
            failed=first.failed,
        )
    )


def _plan(turn: TurnContext, pending: Sequence[PendingStep]) -> None:
    rows = [row for each in pending for row in (each.row, *each.branches)]
    turn.lease.plan(rows, [wait for each in pending for wait in each.waits])
    for each in pending:
        if each.failed is not None:
            turn.lease.store.keep_attempt(turn.lease.claim, each.failed)


def _start_children(turn: TurnContext, children: Sequence[Run]) -> None:
    turn.lease.announce(store_runs(children))
    for child in children:
        store_invoked_event(child, turn.lease.claim.event)
