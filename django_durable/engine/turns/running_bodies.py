"""The step functions of an async turn that run in the worker's event loop, or in threads, while the handler rests."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from functools import partial

from ...core.replay.async_replay import PendingCall
from ..steps.run import Attempt

Result = str | BaseException  #: the recorded text of a function's value, or what it raised


class RunningBodies:
    """Starts and cancels step functions in the loop, on behalf of the thread that uses the database."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.news = asyncio.Event()  #: set when a function has ended
        self._loop = loop
        self._tasks: dict[PendingCall, asyncio.Task[Result] | None] = {}  #: None: it is about to start
        self._ended: deque[tuple[PendingCall, Attempt, Result]] = deque()

    def __bool__(self) -> bool:
        """Whether a function runs, or has ended and is not taken yet."""
        return bool(self._tasks)

    def start(self, call: PendingCall, attempt: Attempt) -> None:
        """Start the function of a step; from any thread."""
        self._tasks[call] = None
        self._loop.call_soon_threadsafe(self._start, call, attempt)

    def cancel(self, call: PendingCall) -> None:
        """Cancel the function of a step; from any thread."""
        # The loop has started it by then: the orders of other threads are carried out one after the other.
        self._loop.call_soon_threadsafe(self._cancel_started, call)

    def cancel_given_up(self) -> None:
        """Cancel the functions of those steps that the handler waits for no more."""
        for call in [each for each in self._tasks if each.is_given_up]:
            self.cancel(call)

    def cancel_all(self) -> None:
        """Cancel every function."""
        for call in self._tasks:
            self.cancel(call)

    async def stop(self) -> None:
        """Cancel every function, and wait until none runs any more; in the loop's own thread."""
        tasks = [task for task in self._tasks.values() if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def take_ended(self) -> Iterator[tuple[PendingCall, Attempt, Result]]:
        """Yield the functions that have ended since the last call."""
        while self._ended:
            call, attempt, result = self._ended.popleft()
            self._tasks.pop(call, None)
            yield call, attempt, result

    # In the loop's own thread

    def _start(self, call: PendingCall, attempt: Attempt) -> None:
        task = self._loop.create_task(_result_of(attempt), context=call.context)
        task.add_done_callback(partial(self._note_ended, call, attempt))
        self._tasks[call] = task

    def _note_ended(self, call: PendingCall, attempt: Attempt, task: asyncio.Task[Result]) -> None:
        # A task that is cancelled before it began has run nothing.
        self._ended.append((call, attempt, asyncio.CancelledError() if task.cancelled() else task.result()))
        self.news.set()

    def _cancel_started(self, call: PendingCall) -> None:
        task = self._tasks.get(call)
        if task is not None:
            task.cancel()


async def _result_of(attempt: Attempt) -> Result:
    try:
        return await attempt.acall()
    except BaseException as error:
        return error
