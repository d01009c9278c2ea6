"""A pass for branches of a group, which a worker runs one after the other.

A worker that claims a branch runs the handler up to the branch's group, with what is recorded outside the group and in
the branch itself. When the branch is done it claims the next one of the group, in the same pass: a group of any width
costs each worker one replay, and no ready branch sits behind another's slow step while a worker is idle.
"""

from __future__ import annotations

import dataclasses
import datetime
import time
from functools import partial

from ...core import clock
from ...core.replay.groups import Branch, Group, GroupMode, branch_prefix
from ...core.replay.interrupts import LeaseLost
from ...core.replay.operations import StepKind, StepStatus, whose_error
from ...core.replay.replay import Completed, Outcome, Raised, Suspended
from ...core.values import encoding
from ...core.values.errors import encode_error
from ...exceptions import StepError, is_final
from ...models import StepAttempt
from ..leases.leases import Lease, worker_name
from ..runs.starting import announce
from ..steps.run import call_plainly, call_text, context_of, guarded, retry_text, send_step_failed, unfinished
from ..steps.turn_context import TurnContext
from ..store.rows import BranchEnd, Claim, NextClaim, Parking

ELSEWHERE_PAUSE = datetime.timedelta(minutes=1)  #: until a branch that the code did not reach is looked for again


class BranchTurn:
    """Runs and commits the branches of a pass, as :class:`....core.replay.replay.BranchRunner` asks."""

    def __init__(self, turn: TurnContext) -> None:
        self.path = turn.lease.claim.path
        self._turn = turn
        self._started = clock.now()
        self._since = time.monotonic()  #: from before the next branch was asked for
        self._claimed: Claim | None = None  #: the next branch

    def call_leaf(self, op: Group, branch: Branch) -> object:
        """Call the body that is a whole branch."""
        turn = self._turn
        turn.lease.check()
        context = partial(context_of, turn, branch.ref, StepKind.RUN, turn.lease.attempt + 1)
        return guarded(turn, branch.ref, partial(call_plainly, branch.fn), op.options.timeout, context)

    def leave(self, op: Group, branch: Branch, outcome: Outcome) -> str | None:
        """Commit the outcome of a branch; return the path of the group's branch to run next, if there is one."""
        try:
            goes_on = self._commit(op, branch, outcome)
        except LeaseLost:
            self._turn.lease.give_back()
            goes_on = False  # The branch lost its race, say; the others of its group may need a worker.
        return branch.path if goes_on else self._next(op)

    def _commit(self, op: Group, branch: Branch, outcome: Outcome) -> bool:
        """Commit the outcome of a branch; return whether the branch can go on after all."""
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
        lease = self._turn.lease
        lease.release(after=ELSEWHERE_PAUSE)
        announce(lease.store.wake([lease.claim.run_id], rehint=self._turn.settings.rehint))

    def _complete(self, op: Group, branch: Branch, value: object) -> None:
        try:
            recorded, limit = self._turn.hooks.encode(value), self._turn.settings.max_payload
            output = encoding.encode(recorded, root="result", limit=limit, hint=branch.annotations)
        except Exception as error:  # of the value, or of a hook
            return self._fail_or_retry(op, branch, error)
        self._end(op, branch, BranchEnd(status=StepStatus.COMPLETED, output=output))

    def _fail_or_retry(self, op: Group, branch: Branch, error: Exception) -> None:
        """Try the branch's own code again after its back-off; a step's final error is final for the branch, too."""
        turn, now = self._turn, clock.now()
        number, text = turn.lease.attempt + 1, encode_error(error)
        failed = unfinished(branch.ref, number, StepAttempt.Status.FAILED, self._started, error=text)
        policy = turn.policy_of(op.options)
        next_at = None if is_final(error) else policy.next_attempt(number, error, now)
        if next_at is not None:
            waits_for = retry_text(number, policy, branch.ref.name, error)
            return turn.lease.park(
                Parking(next_at=next_at, kind="retry", text=waits_for, attempt=number, failed=failed)
            )
        if isinstance(error, StepError):
            self._end(op, branch, _ended_by_step(error, text))
            return None
        kept = None if is_final(error) else failed
        ended = self._end(op, branch, BranchEnd(status=StepStatus.FAILED, error=text, attempt=number, failed=kept))
        if ended and branch.leaf:
            send_step_failed(turn, branch.ref, number, error)
        return None

    def _end(self, op: Group, branch: Branch, end: BranchEnd) -> bool:
        """End the branch; False if it has been lost."""
        turn, lease = self._turn, self._turn.lease
        full = dataclasses.replace(
            end,
            input=call_text(branch.fn) if branch.leaf else "",
            attempt=end.attempt or lease.attempt,
            race=op.mode is GroupMode.RACE,
            index=op.branches.index(branch) if op.mode is GroupMode.RACE else None,
            limited=op.limit is not None,
            prefix=branch_prefix(op.ref),
        )
        lease.progressed()
        self._since = time.monotonic()
        result = lease.end_branch(full, None if turn.must_give_way() else NextClaim(worker_name(), turn.settings.lease))
        if result is None:
            self._discard(branch, end)
            return False
        self._claimed = result.claim
        return True

    def _discard(self, branch: Branch, end: BranchEnd) -> None:
        """Keep for people the outcome of a branch that had lost, or whose run was cancelled."""
        lease = self._turn.lease
        discarded = unfinished(
            branch.ref,
            lease.attempt + 1,
            StepAttempt.Status.DISCARDED,
            self._started,
            output=end.output,
            error=end.error,
        )
        lease.store.keep_attempt(lease.claim, discarded)

    def _next(self, op: Group) -> str | None:
        """Claim the next branch of the group and return its path."""
        turn, claim, self._claimed = self._turn, self._claimed, None
        store, run_id = turn.lease.store, turn.lease.claim.run_id
        if claim is None and not turn.must_give_way():
            self._since, length = time.monotonic(), turn.settings.lease
            claim = store.claim_branch(run_id, owner=worker_name(), lease=length, group=op.ref.key)
        if claim is None:
            return None
        if claim.crashes:
            # It may kill its worker: it gets a turn of its own, beside as few others as its crashes allow.
            turn.lease.left_branches = Lease(claim, self._since).release()
            return None
        turn.switch(Lease(claim, self._since))
        if op.mode is not GroupMode.MAP:
            turn.remember(store.branch_memos(claim))
        self._started = clock.now()
        return claim.path


def _ended_by_step(error: StepError, text: str) -> BranchEnd:
    return BranchEnd(status=StepStatus.FAILED, error=text, output=whose_error(error), attempt=error.attempts)
