"""Turns of ``async def`` handlers: the steps that a handler asks for while it rests are done side by side.

The handler, every decision and every statement run in the thread of the worker's task, whose connection is closed as
after any other task; only the bodies of async steps run in the event loop. So a thousand runs in flight need one
connection.
"""

from __future__ import annotations

import asyncio
import datetime
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from asgiref.sync import sync_to_async

from ...core import clock
from ...core.functions.definitions import FunctionDefinition
from ...core.functions.steps import current_step
from ...core.replay.async_replay import AsyncReplay, PendingCall
from ...core.replay.groups import Op
from ...core.replay.interrupts import Abort, Interrupt, LeaseLost, Suspend
from ...core.replay.operations import Memo
from ...core.replay.replay import Aborted, Outcome, Raised, Suspended
from ...exceptions import DurableError, InvalidEvent, TooManySteps
from ..leases.leases import Lease
from ..runs import timers
from ..steps.kinds import KINDS
from ..steps.opening import PendingStep, open_steps
from ..steps.run import LEFT_OPEN, Attempt, BodyFailed, fail, next_attempt, record, runs_in_loop
from ..store.rows import Parking
from ..store.transactions import roll_back_open
from .running_bodies import Result, RunningBodies
from .turns import Turn, left_open

T = TypeVar("T")

LOOK = 1.0  #: seconds between two looks at the steps that others may have settled, while bodies run


async def in_thread(call: Callable[[], T]) -> T:
    """Call it in the thread of the worker's task."""
    return await sync_to_async(call, thread_sensitive=True)()


class AsyncTurn(Turn):
    """A turn whose handler may wait for several steps at once."""

    replay: AsyncReplay
    _bodies: RunningBodies

    def __init__(self, lease: Lease, function: FunctionDefinition[Any, Any], should_stop: Callable[[], bool]) -> None:
        super().__init__(lease, function, should_stop)
        self._asked: deque[PendingCall] = deque()  #: not begun yet
        self._opened: list[tuple[PendingCall, PendingStep]] = []  #: not committed yet
        self._waiting: dict[bytes, PendingCall] = {}
        self._seen = 0  #: seq of the last result that the handler got, or that precedes the results it gets next
        self._outcome: Outcome | None = None
        self._is_parked = False
        self._steps = lease.claim.steps  #: that the run has, with those that are open
        self.replay = AsyncReplay(self.history, decode=self.hooks.decoder)

    async def arun(self) -> None:
        """Run the turn between the project's hooks, which are called in the thread of the worker's task."""
        if not self.hooks.watch_turns:
            return await self._arun()
        end, outcome = await in_thread(lambda: self.hooks.begin_turn(self.context)), "broken"
        try:
            await self._arun()
            outcome = self.ended or "suspended"
        except LeaseLost:
            outcome = "lost"
            raise
        finally:
            await in_thread(partial(end, outcome))

    async def _arun(self) -> None:
        """Replay the handler until the run waits, gives way or ends."""
        self._bodies = RunningBodies(asyncio.get_running_loop())
        try:
            over = await in_thread(self._begin)
            while not over:
                await self._wait()
                over = await in_thread(self.proceed)
        except BaseException:
            await self._bodies.stop()
            await in_thread(self._abandon)
            raise

    def _abandon(self) -> None:
        """End a turn that was broken off; the values that its bodies returned are kept for people."""
        self.replay.unwind()
        for _, attempt, result in self._bodies.take_ended():
            if isinstance(result, str):
                attempt.discard(result)

    async def _wait(self) -> None:
        news = self._bodies.news
        with suppress(TimeoutError):
            async with asyncio.timeout(self._patience()):
                await news.wait()
        news.clear()

    def _patience(self) -> float | None:
        """Return after how many seconds to look again, though no body is done."""
        seconds = [max(0.01, (moment - clock.now()).total_seconds()) for moment in self.open_moments()]
        if any(_is_settled_by_others(each) for each in self._waiting.values()):
            seconds.append(LOOK)
        return min(seconds, default=None)

    def _begin(self) -> bool:
        self.send_run_started()
        self.load()
        self._seen = max((memo.seq or 0 for memo in self.history.values()), default=0)
        self._steps += sum(not memo.settled for memo in self.history.values())
        try:
            event = self.event()
        except InvalidEvent as error:
            self.end(Aborted(error))
            return True
        step = self.step()
        token = current_step.set(step)
        try:
            self.replay.start(partial(self.function.handler, event, step))
        finally:
            current_step.reset(token)
        return self.proceed()

    def proceed(self) -> bool:
        """Go on for as long as there is something to do here and now; return whether the turn is over."""
        self._note_time()
        while True:
            self._record_ended()
            outcome = self._outcome or self._rested()
            if outcome is not None:
                return self._end_with(outcome)
            if self.replay.release():
                continue
            self._take_up(self.replay.take_asked())
            if self._begin_asked() or self._commit_opened():
                continue
            if self._bodies:
                return False
            if not self._is_parked:
                self._stop()
            self.replay.unwind()
            return True

    def _rested(self) -> Outcome | None:
        outcome = self.replay.rest()
        if roll_back_open(self._depth):
            outcome = Raised(left_open())
        self._bodies.cancel_given_up()
        self._waiting = {key: call for key, call in self._waiting.items() if not call.is_given_up}
        return outcome

    # Steps that the handler asked for

    def check(self, op: Op, memo: Memo | None) -> None:
        """Refuse one step too many, also while others are open or their bodies run."""
        super().check(op, memo)
        if memo is None:
            self._steps += 1
            if self._steps > self.settings.max_steps:
                raise TooManySteps(op.ref.name, str(op.ref.where), self.settings.max_steps)

    def _take_up(self, calls: Iterable[PendingCall]) -> None:
        """Start async bodies at once; queue the other calls, to be done in order."""
        self._asked.extend([each for each in calls if not self._starts_body(each)])

    def _begin_asked(self) -> bool:
        """Begin the queued calls until one has a result; return whether one has."""
        put_off: list[PendingCall] = []
        is_done = False
        while self._asked and not is_done:
            call = self._asked.popleft()
            if call.is_given_up:
                continue
            if call.memo is not None and not self.is_due(call.op, call.memo):
                self._waiting[call.op.ref.key] = call
            elif self.must_give_way():
                put_off.append(call)
            else:
                is_done = self._do(call)
        self._asked.extendleft(reversed(put_off))
        return is_done

    def _do(self, call: PendingCall) -> bool:
        """Begin one call; return whether the handler can go on."""
        op = call.op
        try:
            self.check(op, call.memo)
            begun = call.context.run(KINDS[type(op)].begin, self, op, call.memo)
        except Suspend as suspend:
            self._outcome = Suspended(suspend)
        except Abort:
            pass  # A step was called inside the body: the pass is over, and says so itself.
        except DurableError as error:
            self.replay.refuse(op.ref, error)
        else:
            return self._take_in(call, begun)
        return True

    def _take_in(self, call: PendingCall, begun: Memo | PendingStep) -> bool:
        """Hand out the result of a step, or note how it opens; return whether the handler can go on."""
        if isinstance(begun, PendingStep):
            self._opened.append((call, begun))
            return False
        self._settle(call, begun)
        return True

    def _starts_body(self, call: PendingCall) -> bool:
        """Start the body of an async step, if it is one and may start now."""
        op, memo = call.op, call.memo
        if not runs_in_loop(op) or call.is_given_up or self.must_give_way():
            return False
        if memo is not None and not self.is_due(op, memo):
            return False
        try:
            self.check(op, memo)
        except DurableError:
            return False  # It is refused when its turn comes, which also lets the handler see it.
        self._bodies.start(call, next_attempt(self, op, memo))
        return True

    def _settle(self, call: PendingCall, memo: Memo) -> None:
        """Hand out a result, after those that others recorded before it."""
        if memo.seq is not None:
            if memo.seq > self._seen + 1:
                self._look()
            self._seen = max(self._seen, memo.seq)
        self.replay.settle(call, memo)

    def _look(self) -> None:
        """Take the results that others have recorded meanwhile: an event, a child's end, a time-out."""
        found = self.lease.store.memos(self.lease.claim, after=self._seen)
        for memo in sorted(found, key=lambda memo: memo.seq or 0):
            self._seen = max(self._seen, memo.seq or 0)
            self.history[memo.key] = memo
            call = self._waiting.pop(memo.key, None)
            if call is not None:
                self.lease.recorded_bytes += memo.size
                self.replay.settle(call, memo)

    def _note_time(self) -> None:
        """Let open steps go on whose time has come, and see which ones others have settled."""
        due = [each for each in self._waiting.values() if each.memo and self.is_due(each.op, each.memo)]
        for call in due:
            del self._waiting[call.op.ref.key]
        self._take_up(due)
        if any(_is_settled_by_others(each) for each in self._waiting.values()):
            timers.settle_running(self.lease.claim.run_id)
            self._look()

    # Bodies

    def _record_ended(self) -> None:
        """Record the results of bodies that have ended; keep those for people that the handler no longer waits for."""
        for call, attempt, result in self._bodies.take_ended():
            if roll_back_open(self._depth):
                result = BodyFailed(RuntimeError(LEFT_OPEN))
            if not call.is_given_up and self._outcome is None:
                self._record(call, attempt, result)
            elif isinstance(result, str):
                attempt.discard(result)

    def _record(self, call: PendingCall, attempt: Attempt, result: Result) -> None:
        if isinstance(result, str):
            return self._settle(call, record(attempt, result))
        if isinstance(result, Interrupt):
            return None  # A step was called inside the body: the pass is over, and says so itself.
        if isinstance(result, asyncio.CancelledError):
            result = BodyFailed(RuntimeError("The step's function cancelled itself"))
        if not isinstance(result, BodyFailed):
            raise result
        self._take_in(call, fail(attempt, result.error))
        return None

    # How it goes on

    def _commit_opened(self) -> bool:
        """Commit the steps that were opened, and park if nothing else goes on; return whether one is settled."""
        opened, self._opened = self._opened, []
        if not opened:
            return False
        parks = not self._bodies and not self._asked
        memos = {memo.key: memo for memo in open_steps(self, [each for _, each in opened], park=parks)}
        self._is_parked = parks and not memos
        for call, pending in opened:
            if pending.row.key not in memos:
                self._waiting[pending.row.key] = PendingCall(call.op, pending.row.memo(), call.future, call.context)
        for call, pending in opened:
            if pending.row.key in memos:
                self._settle(call, memos[pending.row.key])
        return bool(memos)

    def _stop(self) -> None:
        """Give way or park, for nothing can go on here; or end a run that waits for no step."""
        if self._asked:
            self.lease.give_back()
        elif self._waiting:
            self._park_again()
        else:
            self.end(self.replay.stalled())

    def open_moments(self) -> Sequence[datetime.datetime]:
        """Return the moments at which the handler's other open steps end."""
        return [each.memo.next_at for each in self._waiting.values() if each.memo and each.memo.next_at]

    def _park_again(self) -> None:
        first = next(iter(self._waiting.values()))
        self.lease.park(
            Parking(
                next_at=min(self.open_moments(), default=None),
                kind=str(first.op.kind),
                text=first.op.ref.name,
                attempt=self.lease.attempt,
            )
        )

    def _end_with(self, outcome: Outcome) -> bool:
        """Commit the end once no body runs any more."""
        self._outcome = outcome
        self._bodies.cancel_all()
        if self._bodies:
            return False
        if isinstance(outcome, Suspended):
            outcome.suspend.commit()
        else:
            self.end(outcome)
        self.replay.unwind()
        return True


def _is_settled_by_others(call: PendingCall) -> bool:
    return KINDS[type(call.op)].is_due is None
