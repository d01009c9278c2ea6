"""Replay of ``async def`` handlers: the decisions of :mod:`.replay`, with steps as futures.

A step that must wait is a pending future, never an exception, which ``gather(return_exceptions=True)`` or a TaskGroup
would swallow. Recorded results are handed out one by one in the order of their completion, each after the handler has
come to rest, so that ``FIRST_COMPLETED`` and ``as_completed`` decide in every pass as they did the first time.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import inspect
import itertools
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, NoReturn
from weakref import WeakSet

from ...exceptions import DurableError, InvalidStep
from .event_loop import HandlerLoop
from .groups import Group, Op
from .interrupts import Abort, EngineFailed, Interrupt
from .operations import Memo, StepRef
from .replay import Aborted, Completed, History, Outcome, Raised, Replay, call_site, in_a_body

_Calls = WeakSet[Coroutine[Any, Any, Any]]


@dataclass(frozen=True, slots=True, eq=False)
class PendingCall:
    """A step that the handler waits for; *memo* is its open record, if it has one.

    *context* is that of the handler's code around the call: the step's function sees the same context variables.
    """

    op: Op
    memo: Memo | None
    future: asyncio.Future[Any]
    context: contextvars.Context = field(default_factory=contextvars.copy_context, repr=False)

    @property
    def is_given_up(self) -> bool:
        """Whether the handler waits for it no more."""
        return self.future.done()


class AsyncReplay(Replay):
    """One pass of an ``async def`` handler; the caller performs what the handler asks for while it rests."""

    def __init__(self, history: History, *, decode: Callable[[Any], Any] | None = None) -> None:
        super().__init__(history, _perform_elsewhere, decode=decode)
        self.asked: list[PendingCall] = []  #: since the caller last looked, without a memo
        self._loop = HandlerLoop(self._refuse_outside_step)
        self._settled: list[tuple[int, int, PendingCall, Memo]] = []
        self._count = itertools.count()
        self._main: asyncio.Task[Any] | None = None
        self._users: dict[str, tuple[asyncio.Task[Any] | None, _Calls]] = {}  #: of each id: the task, and its calls

    # For the caller

    def start(self, handler: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        """Begin the pass with the handler, its event and its steps given already."""
        self._main = self._loop.create_task(handler())

    def rest(self) -> Outcome | None:
        """Run the handler until it waits for steps; return how the pass ended, if it did."""
        self._loop.rest()
        if isinstance(self._interrupt, (Abort, EngineFailed)):
            return self._outcome_of(self._interrupt)
        assert self._main is not None  # start() was called
        if not self._main.done():
            return None
        if self._main.cancelled():
            return Raised(RuntimeError("The handler cancelled itself"))
        error = self._main.exception()
        if isinstance(error, Exception):
            return Raised(error)
        if error is not None:
            raise error
        return Completed(self._main.result())

    def settle(self, asked: PendingCall, memo: Memo) -> None:
        """Note the result of a step; it is handed out when its turn comes."""
        self.history[memo.key] = memo
        heapq.heappush(self._settled, (memo.seq or 0, next(self._count), asked, memo))

    def release(self) -> bool:
        """Hand out the result that was recorded first, of those that the handler waits for; False if there is none."""
        while self._settled:
            *_, asked, memo = heapq.heappop(self._settled)
            if not asked.is_given_up:
                self._hand_out(asked, memo)
                return True
        return False

    def _hand_out(self, asked: PendingCall, memo: Memo) -> None:
        # Read here, where no loop runs: a reference to a row is read from the database.
        try:
            asked.future.set_result(self.value(asked.op, memo))
        except Interrupt:
            return  # The pass is over, as its caller sees next.
        except Exception as error:
            asked.future.set_exception(error)

    def take_asked(self) -> list[PendingCall]:
        """Return the steps that the handler asked for since the last call."""
        asked, self.asked = self.asked, []
        return [each for each in asked if not each.is_given_up]

    def stalled(self) -> Aborted:
        """Return the end of a pass that waits, and for no step."""
        error = DurableError(
            "the handler waits for something that is no step and never comes. Await steps only, and do the rest in them"
        )
        return Aborted(InvalidStep("", "the handler", str(error)))

    def unwind(self) -> None:
        """End the pass: cancel the handler's tasks."""
        self._loop.unwind()

    # For steps

    def call(self, name: str, build: Callable[[StepRef], Op]) -> Any:
        """Return an awaitable of the step's result; its ordinal is taken now."""
        try:
            op = self.ask(name, build)
            if isinstance(op, Group):
                raise self.refuse(op.ref, DurableError(_USE_ASYNCIO))
            calls = self._calls_of(op.ref)
        except Interrupt:
            if in_a_body():
                raise
            return _never()
        result = self._result(op)
        calls.add(result)
        return result

    def checked(self, name: str, build: Callable[[], Any]) -> Any:
        """Return what *build* makes; where it raises, the pass is over, and what is returned does not matter."""
        try:
            return super().checked(name, build)
        except Interrupt:
            return None

    async def _result(self, op: Op) -> Any:
        try:
            memo = self.recorded(op)
            asked = PendingCall(op, self.history.get(op.ref.key), self._loop.create_future())
            if memo is None:
                self.asked.append(asked)
            else:
                self.settle(asked, memo)
            return await asked.future
        except Interrupt:
            await _never()

    def _calls_of(self, ref: StepRef) -> _Calls:
        """Return the present task's calls of an id; refuse one that another task uses at the same time.

        Which of the two comes first may differ in another pass.
        """
        task = asyncio.current_task(self._loop.itself)
        user, calls = self._users.get(ref.name, (None, _Calls()))
        if user is not task:
            # A call that was cancelled before it began has run no code that could note its end.
            if any(inspect.getcoroutinestate(call) != inspect.CORO_CLOSED for call in calls):
                raise self.refuse(ref, DurableError(_SAME_ID))
            self._users[ref.name] = task, calls = task, _Calls()
        return calls

    def _refuse_outside_step(self, remedy: str) -> BaseException:
        ref = StepRef("", 0, b"", call_site())
        return self._stop(ref, Abort(InvalidStep("asyncio", str(ref.where), remedy)))

    def _interrupted_again(self, interrupt: Interrupt) -> Interrupt:
        return interrupt


async def _never() -> NoReturn:
    """Wait for ever: the pass is over."""
    await asyncio.get_running_loop().create_future()
    raise AssertionError("a future that nobody resolves was resolved")


_USE_ASYNCIO = (
    "is for plain handlers. In an async one use asyncio.gather, TaskGroup, or "
    "asyncio.wait(…, return_when=FIRST_COMPLETED)"
)
_SAME_ID = (
    "two tasks use this id at the same time, and cannot be told apart in another pass. Give each an id of its own, "
    "such as f'resize-{image_id}'"
)


def _perform_elsewhere(op: Op, memo: Memo | None) -> Memo:
    raise AssertionError("an async pass asks its caller to perform steps")
