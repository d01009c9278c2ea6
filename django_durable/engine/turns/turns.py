"""One turn of one run, or of branches of it: passes of its handler over what is recorded, each step committed at once.

A suspension is committed only after the handler has unwound, in one commit with all that belongs to it.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from django.utils import timezone

from ...conf import get_settings
from ...core import clock
from ...core.events.events import Event
from ...core.functions.functions import DurableFunction
from ...core.functions.middleware import RunContext
from ...core.functions.steps import RunInfo, Step, current_step
from ...core.replay.groups import Group
from ...core.replay.operations import (
    ContinueAsNew,
    Invoke,
    Memo,
    Op,
    RunStep,
    SendEvents,
    Sleep,
    StepKind,
    StepOptions,
    StepStatus,
    Summarize,
    WaitForEvent,
    WaitForSignal,
)
from ...core.replay.replay import Aborted, Completed, History, Outcome, Raised, Replay, Suspended
from ...core.retries import RetryPolicy
from ...core.values import encoding, errors
from ...exceptions import (
    EncodingError,
    InvalidEvent,
    LeaseLost,
    RunTooLarge,
    StepInTransaction,
    Suspend,
    TooManySteps,
    is_final,
)
from ...middleware import get_hooks
from ...models import RunStatus, StepAttempt
from ...signals import run_started, tell
from ..events import sending
from ..leases.leases import Lease
from ..runs.end_events import RunEnd
from ..runs.ending import continue_as_new
from ..steps import (
    invoke,
    parallel,
    wait_for_event,
    wait_for_signal,
)
from ..steps import (
    opening as openings,
)
from ..steps import (
    run as bodies,
)
from ..store import stored_events
from ..store.rows import AttemptRow, Claim, Parking, PendingStep, ReadyRun, StepRow
from ..store.stores import get_store
from ..store.transactions import REMEDY, atomic, connection, is_open, roll_back_open

logger = logging.getLogger("django_durable")

BROKEN_PAUSE = datetime.timedelta(seconds=10)


class Turn:
    """A turn under a lease, which may go from branch to branch."""

    replay: Replay  #: the pass that runs now

    def __init__(self, lease: Lease, function: DurableFunction[Any, Any], should_stop: Callable[[], bool]) -> None:
        self.lease = lease
        self.function = function
        self.settings = get_settings()
        self.hooks = get_hooks()
        self.ended: str | None = None  #: with which status the run ended, if it did
        self.policy = self.settings.retry_policy(
            function.retries, function.backoff, retry_on=function.retry_on, no_retry_on=function.no_retry_on
        )
        self.attempt = self.claim.attempt  #: failures of the handler's own code, or of the branch's
        self.history: History = {}
        self._should_stop = should_stop
        self._started = clock.now()
        self._budget_ends = time.monotonic() + self.settings.turn_budget.total_seconds()
        self._recorded = 0
        self.recorded_bytes = 0  #: recorded of the run, as far as the turn knows
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
        # A worker that is told to die (SystemExit, KeyboardInterrupt) is nobody's failed attempt.
        self.lease.give_back(after=BROKEN_PAUSE if isinstance(error, Exception) else datetime.timedelta())
        return isinstance(error, LeaseLost)  # Whoever took the run goes on with it.

    def switch(self, lease: Lease) -> None:
        """Go on with another branch."""
        self.lease.drop()
        lease.left_branches = self.lease.left_branches
        self.lease = lease
        self.attempt = lease.claim.attempt
        self.keep()

    @property
    def claim(self) -> Claim:
        """What is held: the run, or a branch of it."""
        return self.lease.claim

    def take(self) -> None:
        """Run the turn between the project's hooks."""
        self.tell_start()
        if not self.hooks.watch_turns:
            return self.run()
        return self.hooks.around_turn(self.context, self._run_to_outcome)

    def tell_start(self) -> None:
        """Send the signal of a run that starts."""
        if self.claim.fence == 1 and not self.claim.key:
            names = {"run_id": self.claim.run_id, "function_id": self.claim.function_id}
            tell(run_started, lambda: [names])

    @functools.cached_property
    def context(self) -> RunContext:
        """The run as hooks see it."""
        return RunContext(
            run_id=str(self.claim.run_id),
            function_id=self.claim.function_id,
            queue=self.claim.queue,
            attempt=self.claim.attempt,
            event=stored_events.event_of(stored_events.trigger_of(self.claim)),
        )

    def _run_to_outcome(self) -> str:
        self.run()
        return self.ended or "suspended"

    def run(self) -> None:
        """Replay the handler until the run, or the branches of it, wait, give way or end."""
        self.load()
        while True:
            branches = parallel.BranchTurn(self) if self.claim.key else None
            self.replay = Replay(self.history, self.perform, branches, decode=self.hooks.decode)
            try:
                outcome = self._replayed()
            except InvalidEvent as error:
                outcome = Aborted(error)
            if roll_back_open(self._depth) and not isinstance(outcome, Aborted):
                outcome = Raised(RuntimeError(f"The handler left a transaction open; it was rolled back. {REMEDY}"))
            if not isinstance(outcome, Suspended):
                return self.end(outcome)
            memo = outcome.suspend.commit()
            if memo is None:
                return None
            self.history[memo.key] = memo

    def load(self) -> None:
        """Read what is recorded, if anything can be."""
        # A replay from a step begins with the memos that it was given.
        if self.claim.fence > 1 or self.claim.key or self.claim.steps > 0:
            self.remember(get_store().memos(self.claim))

    def remember(self, memos: Iterable[Memo]) -> None:
        """Go on with what was recorded before."""
        for memo in memos:
            self.history[memo.key] = memo
            self.recorded_bytes += memo.size

    def _replayed(self) -> Outcome:
        step = self.step()
        token = current_step.set(step)
        try:
            return self.replay.run(self.function.handler, self.event(), step)
        finally:
            current_step.reset(token)

    def event(self) -> Event[Any]:
        """Return the event that the handler receives, anew for each pass: it may change what it is given."""
        return stored_events.event_for(self.function, stored_events.trigger_of(self.claim))

    def step(self) -> Step:
        """Return the steps that the handler receives."""
        info = RunInfo(
            run_id=str(self.claim.run_id),
            app_label=self.function.app_label,
            attempt=lambda: self.attempt,
            timezone=timezone.get_current_timezone(),
            largest_value=self.settings.max_payload,
            function_id=self.function.id,
        )
        return Step(self.replay, info)

    # What steps ask for

    def perform(self, op: Op, memo: Memo | None) -> Memo:
        """Do what *op* asks for and return its memo; or suspend the pass."""
        if self.claim.key and op.ref.branch != self.claim.path:
            raise Suspend(_nothing)  # The code around the group does something new: that is for the run's own turn.
        self.check(op, memo)
        if memo is not None and not self.is_due(op, memo):
            raise Suspend(partial(self._wait_on, op, memo))
        if self.must_give_way():
            raise Suspend(self.give_way)
        begun = self.begin(op, memo)
        if isinstance(begun, PendingStep):
            raise Suspend(partial(self._open, begun))
        return begun

    def check(self, op: Op, memo: Memo | None) -> None:
        """Refuse a step inside a transaction of the handler, one step too many, and one after too much was recorded."""
        if is_open(self._depth):
            raise StepInTransaction(op.ref.name, str(op.ref.where))
        new = len(op.missing(self.history)) + 1 if isinstance(op, Group) else 1
        if memo is None and self.claim.steps + self._recorded + new > self.settings.max_steps:
            raise TooManySteps(op.ref.name, str(op.ref.where), self.settings.max_steps)
        if memo is None and self.recorded_bytes > self.settings.max_run:
            raise RunTooLarge(op.ref.name, str(op.ref.where), self.recorded_bytes, self.settings.max_run)

    def begin(self, op: Op, memo: Memo | None) -> Memo | PendingStep:
        """Do what *op* asks for and return its memo, or return how it is opened."""
        if isinstance(op, RunStep):
            return bodies.run(self, op, memo)
        if isinstance(op, Sleep):
            return self._sleep(op, memo)
        if isinstance(op, SendEvents):
            return self._send(op)
        if isinstance(op, Summarize):
            return self._summarize(op)
        return self.opening(op)

    def opening(self, op: Op) -> Memo | PendingStep:
        """Return how a step is opened that waits; or the memo of one that is refused or over at once."""
        if isinstance(op, WaitForEvent):
            return wait_for_event.opening(self, op, clock.now())
        if isinstance(op, WaitForSignal):
            return wait_for_signal.opening(op, clock.now())
        if isinstance(op, Invoke):
            return invoke.invoke(self, op)
        if isinstance(op, Group):
            return parallel.opening(self, op, clock.now())
        assert isinstance(op, ContinueAsNew)
        raise Suspend(partial(self._continue, op))

    def is_due(self, op: Op, memo: Memo) -> bool:
        """Tell whether an open step can go on; waits and invocations are timed out by the scheduler alone."""
        if isinstance(op, Group):
            return bool(op.missing(self.history))
        now = max(clock.now(), self.claim.now)
        return isinstance(op, (RunStep, Sleep)) and memo.next_at is not None and memo.next_at <= now

    def must_give_way(self) -> bool:
        """Tell whether the turn is over at the next step."""
        if self._should_stop():
            return True
        checkpoint = self.settings.checkpoint if self.function.checkpoint is None else self.function.checkpoint
        # Without a step recorded, a handler that is slow to replay would give way for ever.
        return self._recorded > 0 and (not checkpoint or time.monotonic() > self._budget_ends)

    def give_way(self) -> None:
        """Give back what is held, for another turn."""
        self.lease.give_back()

    def policy_of(self, options: StepOptions) -> RetryPolicy:
        """Return how often and when attempts of a step with these options are made."""
        retries = self.policy.retries if options.retries is None else options.retries
        return dataclasses.replace(self.policy, retries=retries, backoff=options.backoff or self.policy.backoff)

    def elsewhere(self, ready: Iterable[ReadyRun]) -> list[ReadyRun]:
        """Return those that need a message: the worker of this turn goes on with what is ready in its own queue."""
        return [each for each in ready if each.needs_message(self.claim.queue)]

    def record(self, step: StepRow, *, failed: AttemptRow | None = None, event: Event | None = None) -> Memo:
        """Write a memo and go on; *event* resolved it."""
        memo = self.lease.record(step, failed=failed, event=event)
        self.progressed()
        self.recorded_bytes += memo.size
        return memo

    def progressed(self) -> None:
        """Note that a step was recorded."""
        self.lease.progressed()
        self._recorded += 1
        self.attempt = 0

    def park(self, opened: Sequence[PendingStep]) -> None:
        """Let the run wait for these steps; failures of the handler's own code are kept."""
        first = opened[0]
        moments = [each.row.next_at for each in opened if each.row.next_at is not None]
        moments += self.open_moments()
        self.lease.park(
            Parking(
                next_at=min(moments, default=None),
                kind=first.kind,
                text=first.text,
                attempt=self.attempt,
                steps=[row for each in opened for row in (each.row, *each.branches)],
                waits=[wait for each in opened for wait in each.waits],
                failed=first.failed,
            )
        )

    def open_moments(self) -> Sequence[datetime.datetime]:
        """Return when steps end that were open before; a plain handler waits for one at a time."""
        return ()

    def _open(self, opening: PendingStep) -> Memo | None:
        return next(iter(openings.commit(self, [opening], park=True)), None)

    def _wait_on(self, op: Op, memo: Memo) -> None:
        kind, text = str(op.kind), op.ref.name
        self.lease.park(Parking(next_at=memo.next_at, kind=kind, text=text, attempt=self.attempt))

    def _sleep(self, op: Sleep, memo: Memo | None) -> Memo | PendingStep:
        now = clock.now()
        until = memo.next_at if memo and memo.next_at else op.until_from(now)
        if memo is not None or until <= now:
            return self.record(StepRow.of(op, StepStatus.COMPLETED, now, next_at=until, finished_at=now))
        return PendingStep(row=StepRow.of(op, StepStatus.WAITING, now, next_at=until), kind="sleep", text=op.ref.name)

    def _send(self, op: SendEvents) -> Memo:
        now = clock.now()
        with atomic():
            ids = sending.send(op.events, source="step")
            names = ", ".join(event.name for event in op.events)
            row = StepRow.of(op, StepStatus.COMPLETED, now, input=names, output=encoding.encode(ids), finished_at=now)
            return self.record(row)

    def _summarize(self, op: Summarize) -> Memo:
        now = clock.now()
        with atomic():
            get_store().summarize(self.claim, op.text)
            return self.record(StepRow.of(op, StepStatus.COMPLETED, now, input=op.text, finished_at=now))

    def _continue(self, op: ContinueAsNew) -> None:
        if not continue_as_new(self.claim, self.function, op.data):
            raise LeaseLost

    # How it ends

    def end(self, outcome: Outcome) -> None:
        """Commit how the handler ended."""
        if isinstance(outcome, Completed):
            self._complete(outcome.value)
        elif isinstance(outcome, Raised):
            self._fail_or_retry(outcome.error)
        elif isinstance(outcome, Aborted):
            self._fail(outcome.error)

    def _complete(self, value: object) -> None:
        try:
            output = encoding.encode(self.hooks.encode(value), root="result", limit=self.settings.max_payload)
        except EncodingError as error:
            return self._fail(error)
        except Exception as error:  # of a hook
            return self._fail_or_retry(error)
        unused = self.replay.unused()
        if unused:
            names = ", ".join(dict.fromkeys(memo.name for memo in unused))
            logger.warning("Run %s did not ask for steps it has recorded: %s", self.claim.run_id, names)
        keys = tuple(memo.key for memo in unused)
        return self._finish(RunEnd(self.claim.run_id, RunStatus.COMPLETED, output=output, unused=keys))

    def _fail(self, error: Exception) -> None:
        self._finish(RunEnd(self.claim.run_id, RunStatus.FAILED, error=errors.encode_error(error)))

    def _finish(self, end: RunEnd) -> None:
        opened = any(memo.kind is StepKind.GROUP and not memo.settled for memo in self.history.values())
        self.lease.end(dataclasses.replace(end, has_branches=opened) if opened else end)
        self.ended = str(end.status)

    def _fail_or_retry(self, error: Exception) -> None:
        """Try the handler's own code again after its back-off; a step's final error is final for the run, too."""
        now, attempt = clock.now(), self.attempt + 1
        next_at = None if is_final(error) else self.policy.next_attempt(attempt, error, now)
        if next_at is None:
            return self._fail(error)
        failed = AttemptRow(
            key=None,
            name="",
            number=attempt,
            status=StepAttempt.Status.FAILED,
            started_at=self._started,
            finished_at=now,
            error=errors.encode_error(error),
        )
        text = bodies.retry_text(attempt, self.policy, "the handler", error)
        return self.lease.park(Parking(next_at=next_at, kind="retry", text=text, attempt=attempt, failed=failed))


def _nothing() -> None:
    """Commit nothing."""
