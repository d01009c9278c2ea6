"""Turns of ``async def`` handlers: what the handler asks for while it rests is done side by side.

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
from ...core.functions.functions import DurableFunction
from ...core.functions.steps import current_step
from ...core.replay.async_replay import AsyncReplay, PendingCall
from ...core.replay.operations import Memo, Op, RunStep, Sleep
from ...core.replay.replay import Aborted, Outcome, Raised, Suspended
from ...exceptions import Abort, DurableError, Interrupt, InvalidEvent, LeaseLost, Suspend, TooManySteps
from ..leases.leases import Lease, memo_of
from ..runs import timers
from ..steps import opening as openings
from ..steps import run as bodies
from ..store.rows import Parking, PendingStep
from ..store.stores import get_store
from ..store.transactions import REMEDY, roll_back_open
from .turns import Turn

T = TypeVar("T")

LOOK = 1.0  #: seconds between two looks at what others may have settled, while bodies run


async def in_thread(call: Callable[[], T]) -> T:
    """Call it in the thread of the worker's task."""
    return await sync_to_async(call, thread_sensitive=True)()


class AsyncTurn(Turn):
    """A turn whose handler may wait for several steps at once."""

    replay: AsyncReplay
    _loop: asyncio.AbstractEventLoop

    def __init__(self, lease: Lease, function: DurableFunction[Any, Any], should_stop: Callable[[], bool]) -> None:
        super().__init__(lease, function, should_stop)
        self._news = asyncio.Event()
        self._asked: deque[PendingCall] = deque()  #: not begun yet
        self._opened: list[tuple[PendingCall, PendingStep]] = []  #: not committed yet
        self._waiting: dict[bytes, PendingCall] = {}
        self._running: dict[PendingCall, asyncio.Task[str | BaseException] | None] = {}
        self._finished: deque[tuple[PendingCall, bodies.Attempt, str | BaseException]] = deque()
        self._seen = 0  #: the last of the results that the handler got, or that come before those it gets next
        self._outcome: Outcome | None = None
        self._is_parked = False
        self._steps = self.claim.steps  #: that the run has, with those that are open
        self.replay = AsyncReplay(self.history, decode=self.hooks.decode)

    async def play(self) -> None:
        """Replay the handler between the project's hooks, which are called in the thread of the worker's task."""
        if not self.hooks.watch_turns:
            return await self._play()
        end, outcome = await in_thread(lambda: self.hooks.begin_turn(self.context)), "broken"
        try:
            await self._play()
            outcome = self.ended or "suspended"
        except LeaseLost:
            outcome = "lost"
            raise
        finally:
            await in_thread(partial(end, outcome))

    async def _play(self) -> None:
        """Replay the handler until the run waits, gives way or ends."""
        self._loop = asyncio.get_running_loop()
        try:
            over = await in_thread(self._begin)
            while not over:
                await self._wait()
                over = await in_thread(self.proceed)
        except BaseException:
            await self._cancel_bodies()
            await in_thread(self._abandon)
            raise

    async def _cancel_bodies(self) -> None:
        tasks = [task for task in self._running.values() if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _abandon(self) -> None:
        """End a turn that was broken off; what its bodies returned is kept for people."""
        self.replay.unwind()
        while self._finished:
            _, attempt, result = self._finished.popleft()
            if isinstance(result, str):
                attempt.discard(result)

    async def _wait(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._patience()):
                await self._news.wait()
        self._news.clear()

    def _patience(self) -> float | None:
        """Return after how many seconds to look again, though no body is done."""
        moments = [each.memo.next_at for each in self._waiting.values() if each.memo and each.memo.next_at]
        seconds = [max(0.01, (moment - clock.now()).total_seconds()) for moment in moments]
        if any(self._is_settled_elsewhere(each) for each in self._waiting.values()):
            seconds.append(LOOK)
        return min(seconds, default=None)

    def _begin(self) -> bool:
        self.tell_start()
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
            self._record_finished()
            outcome = self._outcome or self._rested()
            if outcome is not None:
                return self._end_with(outcome)
            if self.replay.release():
                continue
            self._take_up(self.replay.take_asked())
            if self._begin_asked() or self._commit_opened():
                continue
            if self._running:
                return False
            if not self._is_parked:
                self._stop()
            self.replay.unwind()
            return True

    def _rested(self) -> Outcome | None:
        outcome = self.replay.rest()
        if roll_back_open(self._depth):
            outcome = Raised(RuntimeError(f"The handler left a transaction open; it was rolled back. {REMEDY}"))
        for asked in [each for each in self._running if each.is_given_up]:
            self._cancel(asked)
        self._waiting = {key: asked for key, asked in self._waiting.items() if not asked.is_given_up}
        return outcome

    # Steps that the handler asked for

    def check(self, op: Op, memo: Memo | None) -> None:
        """Refuse one step too many, also while others are open or their bodies run."""
        super().check(op, memo)
        if memo is None:
            self._steps += 1
            if self._steps > self.settings.max_steps:
                raise TooManySteps(op.ref.name, str(op.ref.where), self.settings.max_steps)

    def _take_up(self, asked: Iterable[PendingCall]) -> None:
        """Start async bodies at once; what else is asked for is done in order."""
        self._asked.extend([each for each in asked if not self._begins_body(each)])

    def _begin_asked(self) -> bool:
        """Do what was asked for, until a result is there; return whether one is."""
        put_off: list[PendingCall] = []
        is_done = False
        while self._asked and not is_done:
            asked = self._asked.popleft()
            if asked.is_given_up:
                continue
            if asked.memo is not None and not self.is_due(asked.op, asked.memo):
                self._waiting[asked.op.ref.key] = asked
            elif self.must_give_way():
                put_off.append(asked)
            else:
                is_done = self._do(asked)
        self._asked.extendleft(reversed(put_off))
        return is_done

    def _do(self, asked: PendingCall) -> bool:
        """Do what a step asks for; return whether the handler can go on."""
        try:
            self.check(asked.op, asked.memo)
            begun = asked.context.run(self.begin, asked.op, asked.memo)
        except Suspend as suspend:
            self._outcome = Suspended(suspend)
        except Abort:
            pass  # A step was called inside the body: the pass is over, and says so itself.
        except DurableError as error:
            self.replay.refuse(asked.op.ref, error)
        else:
            if isinstance(begun, PendingStep):
                self._opened.append((asked, begun))
                return False
            self._settle(asked, begun)
        return True

    def _begins_body(self, asked: PendingCall) -> bool:
        """Start the body of an async step, if it is one and may start now."""
        op, memo = asked.op, asked.memo
        if not isinstance(op, RunStep) or not (bodies.is_async(op.fn) or op.options.thread) or op.atomic:
            return False
        if asked.is_given_up or self.must_give_way() or (memo is not None and not self.is_due(op, memo)):
            return False
        try:
            self.check(op, memo)
        except DurableError:
            return False  # It is refused when its turn comes, which also lets the handler see it.
        self._running[asked] = None
        self._loop.call_soon_threadsafe(self._start, asked, bodies.begin(self, op, memo))
        return True

    def _settle(self, asked: PendingCall, memo: Memo) -> None:
        """Hand out a result, after those that others recorded before it."""
        if memo.seq is not None:
            if memo.seq > self._seen + 1:
                self._look()
            self._seen = max(self._seen, memo.seq)
        self.replay.settle(asked, memo)

    def _look(self) -> None:
        """Take what others have settled meanwhile: an event, a child's end, a time-out."""
        for memo in sorted(get_store().memos(self.claim, after=self._seen), key=lambda memo: memo.seq or 0):
            self._seen = max(self._seen, memo.seq or 0)
            self.history[memo.key] = memo
            asked = self._waiting.pop(memo.key, None)
            if asked is not None:
                self.recorded_bytes += memo.size
                self.replay.settle(asked, memo)

    def _note_time(self) -> None:
        """Let open steps go on whose time has come, and see what others have settled."""
        due = [each for each in self._waiting.values() if each.memo and self.is_due(each.op, each.memo)]
        for asked in due:
            del self._waiting[asked.op.ref.key]
        self._take_up(due)
        if any(self._is_settled_elsewhere(each) for each in self._waiting.values()):
            timers.settle_running(self.claim.run_id)
            self._look()

    def _is_settled_elsewhere(self, asked: PendingCall) -> bool:
        return not isinstance(asked.op, (RunStep, Sleep))

    # Bodies in the event loop

    def _start(self, asked: PendingCall, attempt: bodies.Attempt) -> None:
        task = self._loop.create_task(_result_of(attempt), context=asked.context)
        task.add_done_callback(partial(self._note_finished, asked, attempt))
        self._running[asked] = task

    def _note_finished(
        self, asked: PendingCall, attempt: bodies.Attempt, task: asyncio.Task[str | BaseException]
    ) -> None:
        # A task that is cancelled before it began has run nothing.
        self._finished.append((asked, attempt, asyncio.CancelledError() if task.cancelled() else task.result()))
        self._news.set()

    def _cancel(self, asked: PendingCall) -> None:
        # The loop has started it by then: what it is told from elsewhere it does in order.
        self._loop.call_soon_threadsafe(self._cancel_started, asked)

    def _cancel_started(self, asked: PendingCall) -> None:
        task = self._running.get(asked)
        if task is not None:
            task.cancel()

    def _record_finished(self) -> None:
        while self._finished:
            asked, attempt, result = self._finished.popleft()
            del self._running[asked]
            if roll_back_open(self._depth):
                result = bodies.BodyFailed(RuntimeError(bodies.LEFT_OPEN))
            if asked.is_given_up or self._outcome is not None:
                if isinstance(result, str):
                    attempt.discard(result)
            else:
                self._record(asked, attempt, result)

    def _record(self, asked: PendingCall, attempt: bodies.Attempt, result: str | BaseException) -> None:
        if isinstance(result, str):
            return self._settle(asked, bodies.record(attempt, result))
        if isinstance(result, Interrupt):
            return None  # A step was called inside the body: the pass is over, and says so itself.
        if isinstance(result, asyncio.CancelledError):
            result = bodies.BodyFailed(RuntimeError("The step's function cancelled itself"))
        if not isinstance(result, bodies.BodyFailed):
            raise result
        begun = bodies.fail(attempt, result.error)
        if isinstance(begun, PendingStep):
            self._opened.append((asked, begun))
        else:
            self._settle(asked, begun)
        return None

    # How it goes on

    def _commit_opened(self) -> bool:
        """Commit the steps that were opened, and park if nothing else goes on; return whether one is settled."""
        opened, self._opened = self._opened, []
        if not opened:
            return False
        parks = not self._running and not self._asked
        memos = {memo.key: memo for memo in openings.commit(self, [each for _, each in opened], park=parks)}
        self._is_parked = parks and not memos
        for asked, opening in opened:
            if opening.row.key not in memos:
                self._waiting[opening.row.key] = PendingCall(
                    asked.op, memo_of(opening.row), asked.future, asked.context
                )
        for asked, opening in opened:
            if opening.row.key in memos:
                self._settle(asked, memos[opening.row.key])
        return bool(memos)

    def _stop(self) -> None:
        """Give way or park, for nothing can go on here; or end a run that waits for no step."""
        if self._asked:
            self.give_way()
        elif self._waiting:
            self._park_again()
        else:
            self.end(self.replay.stalled())

    def open_moments(self) -> Sequence[datetime.datetime]:
        """Return when steps end that were open before."""
        return [each.memo.next_at for each in self._waiting.values() if each.memo and each.memo.next_at]

    def _park_again(self) -> None:
        first = next(iter(self._waiting.values()))
        self.lease.park(
            Parking(
                next_at=min(self.open_moments(), default=None),
                kind=str(first.op.kind),
                text=first.op.ref.name,
                attempt=self.attempt,
            )
        )

    def _end_with(self, outcome: Outcome) -> bool:
        """Commit the end once no body runs any more."""
        self._outcome = outcome
        for asked in self._running:
            self._cancel(asked)
        if self._running:
            return False
        if isinstance(outcome, Suspended):
            outcome.suspend.commit()
        else:
            self.end(outcome)
        self.replay.unwind()
        return True


async def _result_of(attempt: bodies.Attempt) -> str | BaseException:
    try:
        return await attempt.acall()
    except BaseException as error:
        return error
