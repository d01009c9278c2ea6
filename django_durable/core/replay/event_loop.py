"""An event loop on which an ``async def`` handler runs, and nothing else: so it is known when the handler rests.

The handler's tasks run until each of them waits for a step. Nothing comes from outside meanwhile, so the same recorded
results, handed out one by one, lead the handler the same way in every pass.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn, cast

Refuse = Callable[[str], BaseException]


class HandlerLoop:
    """Runs what is ready, and knows neither time nor files.

    *refuse* makes the error of what a handler may only do in a step, out of the remedy.
    """

    def __init__(self, refuse: Refuse) -> None:
        #: as asyncio's own classes take it, which ask a loop for no more than what is here
        self._self = cast("asyncio.AbstractEventLoop", self)
        self._ready: deque[asyncio.Handle] = deque()
        self._refuse = refuse
        self._tasks: set[asyncio.Task[Any]] = set()

    def rest(self) -> None:
        """Run the handler's tasks until each of them waits."""
        _run_on(self)
        try:
            while self._ready:
                handle = self._ready.popleft()
                if not handle.cancelled():
                    handle._run()
        finally:
            _run_on(None)

    def unwind(self) -> None:
        """Cancel the handler's tasks, and run what they do about it; those that go on all the same are left."""
        for _ in range(10):
            left = [task for task in self._tasks if not task.done()]
            if not left:
                return
            for task in left:
                task.cancel()
            self.rest()

    # What tasks and futures ask of their loop

    def call_soon(
        self, callback: Callable[..., Any], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """Run *callback* after what is ready already."""
        handle = asyncio.Handle(callback, args, self._self, context)
        self._ready.append(handle)
        return handle

    def call_soon_threadsafe(self, callback: Callable[..., Any], *args: Any, **options: Any) -> NoReturn:
        """Refuse, as a closed loop does: nothing reaches a handler from outside.

        asgiref, which remembers this loop after a handler used Django's async ORM, then takes another for the thread.
        """
        raise RuntimeError("The loop of a durable handler takes nothing from other threads")

    @property
    def itself(self) -> asyncio.AbstractEventLoop:
        """This loop, as asyncio's functions take it."""
        return self._self

    def create_future(self) -> asyncio.Future[Any]:
        """Return a future of this loop."""
        return asyncio.Future(loop=self._self)

    def create_task(self, coro: Coroutine[Any, Any, Any], **options: Any) -> asyncio.Task[Any]:
        """Run *coro* as a task of the handler."""
        options.pop("eager_start", None)
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=self._self, **options)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        """Call *func* at once, in this thread: its result must be there before the handler rests.

        Django's async ORM comes this way, and so uses the connection of this thread.
        """
        future = self.create_future()
        _run_on(None)
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        finally:
            _run_on(self)
        return future

    def get_debug(self) -> bool:
        """Return False: this loop has no debug mode."""
        return False

    def is_running(self) -> bool:
        """Return True: code that asks runs on it."""
        return True

    def is_closed(self) -> bool:
        """Return False: there is nothing to close."""
        return False

    def time(self) -> float:
        """Return a time that stands still."""
        return 0.0

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Ignore it: an error that no task of the handler asks for is no error of the run."""

    # What is refused

    def call_later(self, delay: float, callback: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Refuse timers, which a replay would wait for again; a delay of nothing is none."""
        if delay <= 0:
            return self.call_soon(callback, *args, **options)
        raise self._refuse(
            "asyncio's timers (sleep, timeout, wait_for, wait(timeout=…)) are lost with the worker. Use step.sleep, "
            "and asyncio.wait(…, return_when=FIRST_COMPLETED) with a step.sleep beside what it limits"
        )

    def call_at(self, when: float, callback: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Refuse timers, see :meth:`call_later`."""
        return self.call_later(when - self.time(), callback, *args, **options)


def _run_on(loop: HandlerLoop | None) -> None:
    asyncio._set_running_loop(loop._self if loop else None)


def _refusing(name: str) -> Callable[..., NoReturn]:
    def refuse(self: HandlerLoop, *args: Any, **options: Any) -> NoReturn:
        raise self._refuse(
            f"it does I/O, or runs a loop of its own, outside a step ({name}). "
            "Await it in a step: step.run('fetch', fetch, …)"
        )

    return refuse


for _name in dir(asyncio.AbstractEventLoop):
    if not _name.startswith("_") and not hasattr(HandlerLoop, _name):
        setattr(HandlerLoop, _name, _refusing(_name))
