"""Groups of branches: planned in one commit, worked through branch by branch by as many workers as are free.

A worker that claims a branch runs the handler up to the branch's group, with what is recorded outside the group and in
the branch itself. When the branch is done it claims the next one of the group, in the same pass: a group of any width
costs each worker one replay, and no ready branch sits behind another's slow step while a worker is idle.
"""

from __future__ import annotations

import dataclasses
import datetime
import time
from functools import partial
from typing import TYPE_CHECKING

from ...conf import get_settings
from ...core import clock
from ...core.replay.groups import Branch, Group, GroupMode, branch_prefix
from ...core.replay.operations import StepKind, StepStatus, whose_error
from ...core.replay.replay import Completed, Outcome, Raised, Suspended
from ...core.values import encoding, errors
from ...exceptions import LeaseLost, StepError, is_final
from ...models import StepAttempt
from ..leases.leases import Lease, worker_name
from ..runs import ending
from ..store.rows import BranchEnd, Claim, NextClaim, Parking, PendingStep, StepRow
from ..store.stores import get_store
from . import run as bodies

if TYPE_CHECKING:
    from ..turns.turns import Turn

ELSEWHERE_PAUSE = datetime.timedelta(minutes=1)  #: after which a branch is looked for again that the code did not reach

_MICROSECOND = datetime.timedelta(microseconds=1)


def opening(turn: Turn, op: Group, now: datetime.datetime) -> PendingStep:
    """Return the opening of a group, or of the branches that the code has gained since."""
    missing = op.missing(turn.history)
    row = StepRow.of(op, StepStatus.WAITING, now, input=str(op.mode), open=len(missing), started_at=now)
    branches = [_planned(op, branch, index, now) for index, branch in enumerate(missing)]
    text = f"{op.ref.name}: {len(missing)} of {len(op.branches)} branches"
    return PendingStep(row=row, kind="group", text=text, branches=branches)


def _planned(op: Group, branch: Branch, index: int, now: datetime.datetime) -> StepRow:
    is_held = op.limit is not None and index >= op.limit
    return StepRow(
        key=branch.ref.key,
        name=branch.ref.name,
        ordinal=branch.ref.ordinal,
        kind=StepKind.BRANCH,
        status=StepStatus.PLANNED,
        planned_at=now + (index + 1) * _MICROSECOND,  # so that they are claimed, and shown, in their order
        branch=branch.ref.branch,
        parent_key=op.ref.key,
        path=branch.path,
        next_at=None if is_held else now + get_settings().rehint,
    )


def _ended_by_step(error: StepError, text: str) -> BranchEnd:
    return BranchEnd(status=StepStatus.FAILED, error=text, output=whose_error(error), attempt=error.attempts)


class BranchTurn:
    """What a pass that is for branches commits of them, see :class:`..core.replay.BranchRunner`."""

    def __init__(self, turn: Turn) -> None:
        self.path = turn.claim.path
        self._turn = turn
        self._started = clock.now()
        self._since = time.monotonic()  #: from before the next branch was asked for
        self._claimed: Claim | None = None  #: the next branch

    def call_leaf(self, op: Group, branch: Branch) -> object:
        """Call the body that is a whole branch."""
        turn = self._turn
        turn.lease.check()
        context = partial(bodies.context_of, turn, branch.ref, StepKind.RUN, turn.attempt + 1)
        return bodies.guarded(turn, branch.ref, bodies.as_plain(branch.fn), op.options.timeout, context)

    def leave(self, op: Group, branch: Branch, outcome: Outcome) -> str | None:
        """Commit what came of a branch; return the path of the branch of the group to run next, if there is one."""
        try:
            goes_on = self._commit(op, branch, outcome)
        except LeaseLost:
            self._turn.lease.give_back()
            goes_on = False  # The branch lost its race, say; the others of its group may need a worker.
        return branch.path if goes_on else self._next(op)

    def _commit(self, op: Group, branch: Branch, outcome: Outcome) -> bool:
        """Commit what came of a branch; return whether it can go on after all."""
        memo = outcome.suspend.commit() if isinstance(outcome, Suspended) else None
        if memo is not None:
            self._turn.history[memo.key] = memo
        elif isinstance(outcome, Completed):
            self._complete(op, branch, outcome.value)
        elif isinstance(outcome, Raised):
            self._fail_or_retry(op, branch, outcome.error)
        return memo is not None

    def miss(self) -> None:
        """Leave a branch that the code did not come to, and let the run's own turn see what the code does now."""
        turn = self._turn
        turn.lease.release(after=ELSEWHERE_PAUSE)
        ending.announce(get_store().wake([turn.claim.run_id], rehint=turn.settings.rehint))

    def _complete(self, op: Group, branch: Branch, value: object) -> None:
        try:
            recorded, limit = self._turn.hooks.encode(value), self._turn.settings.max_payload
            output = encoding.encode(recorded, root="result", limit=limit, hint=branch.annotations)
        except Exception as error:  # of the value, or of a hook
            return self._fail_or_retry(op, branch, error)
        self._finish(op, branch, BranchEnd(status=StepStatus.COMPLETED, output=output))

    def _fail_or_retry(self, op: Group, branch: Branch, error: Exception) -> None:
        """Try the branch's own code again after its back-off; a step's final error is final for the branch, too."""
        turn, now = self._turn, clock.now()
        number, text = turn.attempt + 1, errors.encode_error(error)
        failed = bodies.unfinished(branch.ref, number, StepAttempt.Status.FAILED, self._started, error=text)
        policy = turn.policy_of(op.options)
        next_at = None if is_final(error) else policy.next_attempt(number, error, now)
        if next_at is not None:
            waiting_for = bodies.retry_text(number, policy, branch.ref.name, error)
            parking = Parking(next_at=next_at, kind="retry", text=waiting_for, attempt=number, failed=failed)
            return turn.lease.park(parking)
        if isinstance(error, StepError):
            self._finish(op, branch, _ended_by_step(error, text))
            return None
        kept = None if is_final(error) else failed
        ended = self._finish(op, branch, BranchEnd(status=StepStatus.FAILED, error=text, attempt=number, failed=kept))
        if ended and branch.leaf:
            bodies.tell_of_failure(turn, branch.ref, number, error)
        return None

    def _finish(self, op: Group, branch: Branch, end: BranchEnd) -> bool:
        """End the branch; False if it has been lost."""
        turn = self._turn
        full = dataclasses.replace(
            end,
            input=bodies.call_text(branch.fn) if branch.leaf else "",
            attempt=end.attempt or turn.attempt,
            race=op.mode is GroupMode.RACE,
            index=op.branches.index(branch) if op.mode is GroupMode.RACE else None,
            limited=op.limit is not None,
            prefix=branch_prefix(op.ref),
        )
        turn.progressed()
        self._since = time.monotonic()
        next_claim = None if turn.must_give_way() else NextClaim(worker_name(), turn.settings.lease)
        finished = ending.finish_branch(turn.claim, full, next_claim)
        if finished is None:
            self._discard(branch, end)
            return False
        self._claimed = finished.claim
        ending.announce(turn.elsewhere(finished.ready))
        # A group around this one may go on: its worker looks for its branches, too.
        turn.lease.left_branches |= bool(finished.ready)
        return True

    def _discard(self, branch: Branch, end: BranchEnd) -> None:
        """Keep for people what a branch came to that had lost, or whose run was cancelled."""
        kept = bodies.unfinished(
            branch.ref,
            self._turn.attempt + 1,
            StepAttempt.Status.DISCARDED,
            self._started,
            output=end.output,
            error=end.error,
        )
        get_store().keep_attempt(self._turn.claim, kept)

    def _next(self, op: Group) -> str | None:
        """Claim the next branch of the group and return its path."""
        turn, claim, self._claimed = self._turn, self._claimed, None
        if claim is None and not turn.must_give_way():
            self._since, length = time.monotonic(), turn.settings.lease
            claim = get_store().claim_branch(turn.claim.run_id, owner=worker_name(), lease=length, group=op.ref.key)
        if claim is None:
            return None
        if claim.crashes:
            # It may kill its worker: it gets a turn of its own, in the company that it may have.
            turn.lease.left_branches = Lease(claim, self._since).release()
            return None
        turn.switch(Lease(claim, self._since))
        if op.mode is not GroupMode.MAP:
            turn.remember(get_store().branch_memos(claim))
        self._started = clock.now()
        return claim.path
