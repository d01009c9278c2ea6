"""One turn of one run, or of branches of it: passes of its handler over what is recorded, each step committed at once.

A suspension is committed only after the handler has unwound, in one commit with all that belongs to it.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from django.utils import timezone

from ...conf import get_settings
from ...core import clock
from ...core.events.events import Event
from ...core.functions.definitions import FunctionDefinition
from ...core.functions.middleware import RunContext
from ...core.functions.steps import RunInfo, Step, current_step
from ...core.replay.groups import Op
from ...core.replay.interrupts import LeaseLost, Suspend
from ...core.replay.operations import Memo, StepOptions
from ...core.replay.replay import Aborted, History, Outcome, Raised, Replay, Suspended
from ...core.retries import RetryPolicy
from ...exceptions import InvalidEvent, RunTooLarge, StepInTransaction, TooManySteps
from ...middleware import get_hooks
from ...signals import run_started, tell
from ..leases.leases import Lease
from ..steps.kinds import KINDS
from ..steps.opening import PendingStep, open_steps
from ..store import stored_events
from ..store.rows import Parking
from ..store.transactions import REMEDY, connection, is_open, roll_back_open
from .branch_turn import BranchTurn
from .outcomes import end_of

BROKEN_PAUSE = datetime.timedelta(seconds=10)


class Turn:
    """A turn under a lease, which may go from branch to branch. To steps it is a TurnContext."""

    replay: Replay  #: the pass that runs now

    def __init__(self, lease: Lease, function: FunctionDefinition[Any, Any], should_stop: Callable[[], bool]) -> None:
        self.lease = lease
        self.function = function
        self.settings = get_settings()
        self.hooks = get_hooks()
        self.history: History = {}
        self.ended: str | None = None  #: with which status the run ended, if it did
        self._should_stop = should_stop
        self._started_at = clock.now()
        self._budget_ends = time.monotonic() + self.settings.turn_budget.total_seconds()
        self._depth = len(connection().atomic_blocks)

    def __enter__(self) -> Turn:
        self.keep()
        return self

    def keep(self) -> None:
        """Have the lease renewed while the turn lasts."""
        self.lease.keep(self._should_stop)

    def __exit__(self, cls: type[BaseException] | None, error: BaseException | None, traceback: object) -> bool:
        """Stop keeping the lease; give back what is held if the turn was broken off, by an error or a dying worker."""
        self.lease.drop()
        if error is None:
            return True
        # A worker that is told to die (SystemExit, KeyboardInterrupt) is not a failed attempt.
        self.lease.give_back(after=BROKEN_PAUSE if isinstance(error, Exception) else datetime.timedelta())
        return isinstance(error, LeaseLost)  # The worker that took the run goes on with it.

    def switch(self, lease: Lease) -> None:
        """Go on with another branch."""
        self.lease.drop()
        lease.continue_from(self.lease)
        self.lease = lease
        self.keep()

    def run(self) -> None:
        """Run the turn between the project's hooks."""
        self.send_run_started()
        if not self.hooks.watch_turns:
            return self._replay_until_rest()
        return self.hooks.around_turn(self.context, self._watched)

    def _watched(self) -> str:
        self._replay_until_rest()
        return self.ended or "suspended"

    def send_run_started(self) -> None:
        """Send the signal of a run that starts."""
        claim = self.lease.claim
        if claim.fence == 1 and not claim.key:
            names = {"run_id": claim.run_id, "function_id": claim.function_id}
            tell(run_started, lambda: [names])

    # Passes

    def _replay_until_rest(self) -> None:
        """Replay the handler until the run, or the branches of it, wait, give way or end."""
        self.load()
        while True:
            outcome = self._pass()
            if not isinstance(outcome, Suspended):
                return self.end(outcome)
            memo = outcome.suspend.commit()
            if memo is None:
                return None
            self.history[memo.key] = memo

    def load(self) -> None:
        """Read the memos, if there can be any."""
        claim = self.lease.claim
        # A replay from a step begins with the memos that it was given.
        if claim.fence > 1 or claim.key or claim.steps > 0:
            self.remember(self.lease.store.memos(claim))

    def remember(self, memos: Iterable[Memo]) -> None:
        """Add memos that were recorded before to the history."""
        for memo in memos:
            self.history[memo.key] = memo
            self.lease.recorded_bytes += memo.size

    def _pass(self) -> Outcome:
        """Run the handler once over the history."""
        branches = BranchTurn(self) if self.lease.claim.key else None
        self.replay = Replay(self.history, self.perform, branches, decode=self.hooks.decoder)
        step = self.step()
        token = current_step.set(step)
        try:
            outcome = self.replay.run(partial(self.function.handler, self.event(), step))
        except InvalidEvent as error:
            outcome = Aborted(error)
        finally:
            current_step.reset(token)
        if roll_back_open(self._depth) and not isinstance(outcome, Aborted):
            return Raised(left_open())
        return outcome

    def event(self) -> Event[Any]:
        """Return the event that the handler receives, anew for each pass: it may change what it is given."""
        return stored_events.event_for(self.function, stored_events.trigger_of(self.lease.claim))

    def step(self) -> Step:
        """Return the steps that the handler receives."""
        info = RunInfo(
            run_id=str(self.lease.claim.run_id),
            app_label=self.function.app_label,
            attempt=lambda: self.lease.attempt,
            timezone=timezone.get_current_timezone(),
            largest_value=self.settings.max_payload,
            function_id=self.function.id,
        )
        return Step(self.replay, info)

    def end(self, outcome: Outcome) -> None:
        """Commit how the handler ended."""
        end = end_of(self, self.replay, outcome, self._started_at)
        if isinstance(end, Parking):
            return self.lease.park(end)
        self.lease.end(end)
        self.ended = str(end.status)
        return None

    # Steps

    def perform(self, op: Op, memo: Memo | None) -> Memo:
        """Do what *op* asks for and return its memo; or suspend the pass."""
        claim = self.lease.claim
        if claim.key and op.ref.branch != claim.path:
            raise Suspend(_nothing)  # The code around the group does something new, which the run's own turn does.
        self.check(op, memo)
        if memo is not None and not self.is_due(op, memo):
            raise Suspend(partial(self._wait_on, op, memo))
        if self.must_give_way():
            raise Suspend(self.lease.give_back)
        begun = KINDS[type(op)].begin(self, op, memo)
        if isinstance(begun, PendingStep):
            raise Suspend(partial(self._open, begun))
        return begun

    def check(self, op: Op, memo: Memo | None) -> None:
        """Refuse a step inside a transaction of the handler, one step too many, and one after too much was recorded."""
        if is_open(self._depth):
            raise StepInTransaction(op.ref.name, str(op.ref.where))
        if memo is not None:
            return
        lease, count = self.lease, KINDS[type(op)].count
        new = count(self, op) if count else 1
        if lease.claim.steps + lease.recorded + new > self.settings.max_steps:
            raise TooManySteps(op.ref.name, str(op.ref.where), self.settings.max_steps)
        if lease.recorded_bytes > self.settings.max_run:
            raise RunTooLarge(op.ref.name, str(op.ref.where), lease.recorded_bytes, self.settings.max_run)

    def is_due(self, op: Op, memo: Memo) -> bool:
        """Tell whether an open step can go on in this turn; others settle the steps of some kinds."""
        is_due = KINDS[type(op)].is_due
        return is_due is not None and is_due(self, op, memo)

    def must_give_way(self) -> bool:
        """Tell whether the turn is over at the next step."""
        if self._should_stop():
            return True
        checkpoint = self.settings.checkpoint if self.function.checkpoint is None else self.function.checkpoint
        # Without a step recorded, a handler that is slow to replay would give way for ever.
        return self.lease.recorded > 0 and (not checkpoint or time.monotonic() > self._budget_ends)

    def _open(self, pending: PendingStep) -> Memo | None:
        return next(iter(open_steps(self, [pending], park=True)), None)

    def _wait_on(self, op: Op, memo: Memo) -> None:
        kind, text = str(op.kind), op.ref.name
        self.lease.park(Parking(next_at=memo.next_at, kind=kind, text=text, attempt=self.lease.attempt))

    # What steps ask for, see TurnContext

    @functools.cached_property
    def context(self) -> RunContext:
        """The run as hooks see it."""
        claim = self.lease.claim
        return RunContext(
            run_id=str(claim.run_id),
            function_id=claim.function_id,
            queue=claim.queue,
            attempt=claim.attempt,
            event=stored_events.event_of(stored_events.trigger_of(claim)),
        )

    @functools.cached_property
    def _policy(self) -> RetryPolicy:
        function = self.function
        return self.settings.retry_policy(
            function.retries, function.backoff, retry_on=function.retry_on, no_retry_on=function.no_retry_on
        )

    def policy_of(self, options: StepOptions) -> RetryPolicy:
        """Return how often and when attempts of a step with these options, or of the handler, are made."""
        retries = self._policy.retries if options.retries is None else options.retries
        return dataclasses.replace(self._policy, retries=retries, backoff=options.backoff or self._policy.backoff)

    def open_moments(self) -> Sequence[datetime.datetime]:
        """Return the moments at which the handler's other open steps end; a plain handler has none."""
        return ()


def left_open() -> RuntimeError:
    """Return the error of a handler that left a transaction open, which is rolled back."""
    return RuntimeError(f"The handler left a transaction open; it was rolled back. {REMEDY}")


def _nothing() -> None:
    """Commit nothing: all is committed."""
