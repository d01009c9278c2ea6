"""The loop on which async handlers run: it knows when they rest, and refuses what a replay would wait for again."""

from __future__ import annotations

import asyncio
import contextvars
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async

from django_durable.core.replay.event_loop import HandlerLoop


class Refused(Exception):
    """What a handler may not do."""


@pytest.fixture
def loop() -> Iterator[HandlerLoop]:
    loop = HandlerLoop(Refused)
    yield loop
    loop.unwind()


def ran(loop: HandlerLoop, handler: Callable[[], Coroutine[Any, Any, Any]]) -> asyncio.Task[Any]:
    """Run a handler until it rests."""
    task = loop.create_task(handler())
    loop.rest()
    return task


# It rests


def test_it_rests_when_every_task_waits(loop: HandlerLoop) -> None:
    future, seen = loop.create_future(), []

    async def handler() -> int:
        seen.append("before")
        value: int = await future
        return value

    task = ran(loop, handler)

    assert (seen, task.done()) == (["before"], False)
    future.set_result(7)
    loop.rest()
    assert task.result() == 7


def test_tasks_go_on_in_the_order_in_which_they_became_ready(loop: HandlerLoop) -> None:
    seen = []

    async def worker(name: str) -> None:
        for turn in range(2):
            seen.append(f"{name}{turn}")
            await asyncio.sleep(0)

    async def handler() -> None:
        await asyncio.gather(worker("a"), worker("b"), worker("c"))

    ran(loop, handler).result()

    assert seen == ["a0", "b0", "c0", "a1", "b1", "c1"]


def test_what_needs_no_time_works(loop: HandlerLoop) -> None:
    lock, queue, event = asyncio.Lock(), asyncio.Queue[int](), asyncio.Event()

    async def consumer() -> list[int]:
        await event.wait()
        async with lock:
            return [await queue.get(), await queue.get()]

    async def handler() -> list[int]:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(consumer())
            queue.put_nowait(1)
            event.set()
            await queue.put(2)
        assert await asyncio.wait_for(asyncio.sleep(0, "done"), None) == "done"
        async with asyncio.timeout(None):
            return task.result()

    assert ran(loop, handler).result() == [1, 2]


def test_only_the_handlers_code_sees_the_loop(loop: HandlerLoop) -> None:
    async def handler() -> bool:
        return asyncio.get_running_loop() is loop.itself

    assert ran(loop, handler).result()
    with pytest.raises(RuntimeError, match="no running event loop"):
        asyncio.get_running_loop()


def test_the_loop_is_left_when_the_handler_ends_the_process(loop: HandlerLoop) -> None:
    async def handler() -> None:
        sys.exit(3)

    with pytest.raises(SystemExit):
        ran(loop, handler)

    with pytest.raises(RuntimeError, match="no running event loop"):
        asyncio.get_running_loop()


# Threads


def test_a_function_for_a_thread_runs_at_once_in_this_one(loop: HandlerLoop) -> None:
    variable = contextvars.ContextVar("variable", default="none")

    def function() -> tuple[str, int]:
        with pytest.raises(RuntimeError, match="no running event loop"):
            asyncio.get_running_loop()
        return variable.get(), threading.get_ident()

    async def handler() -> list[Any]:
        variable.set("mine")
        return [await asyncio.to_thread(function), await sync_to_async(function)()]

    assert ran(loop, handler).result() == [("mine", threading.get_ident())] * 2


def test_an_error_in_a_thread_is_that_of_the_call(loop: HandlerLoop) -> None:
    async def handler() -> None:
        await asyncio.to_thread(int, "seven")

    assert isinstance(ran(loop, handler).exception(), ValueError)


def test_plain_code_that_waits_for_async_code_works_in_and_after_a_handler(loop: HandlerLoop) -> None:
    async def answer() -> int:
        return 7

    async def handler() -> Any:
        return await sync_to_async(async_to_sync(answer))()

    assert ran(loop, handler).result() == 7
    assert async_to_sync(answer)() == 7


def test_context_variables_are_those_of_the_task(loop: HandlerLoop) -> None:
    variable = contextvars.ContextVar("variable", default="none")

    async def worker(name: str) -> str:
        variable.set(name)
        await asyncio.sleep(0)
        return variable.get()

    async def handler() -> list[str]:
        return [*await asyncio.gather(worker("a"), worker("b")), variable.get()]

    assert ran(loop, handler).result() == ["a", "b", "none"]


# What is refused


async def sleep() -> None:
    await asyncio.sleep(0.01)


async def timeout() -> None:
    async with asyncio.timeout(60):
        await asyncio.sleep(0)


async def wait_for() -> None:
    await asyncio.wait_for(asyncio.create_task(asyncio.Event().wait()), 60)


async def wait() -> None:
    await asyncio.wait([asyncio.create_task(asyncio.Event().wait())], timeout=60)


async def as_completed() -> None:
    for each in asyncio.as_completed([asyncio.create_task(asyncio.Event().wait())], timeout=60):
        await each


async def call_later() -> None:
    asyncio.get_running_loop().call_later(1, print)


async def call_at() -> None:
    asyncio.get_running_loop().call_at(1, print)


@pytest.mark.parametrize("handler", [sleep, timeout, wait_for, wait, as_completed, call_later, call_at])
def test_time_is_refused_with_the_remedy(loop: HandlerLoop, handler: Callable[[], Coroutine[Any, Any, None]]) -> None:
    error = ran(loop, handler).exception()

    assert isinstance(error, Refused)
    assert "Use step.sleep, and asyncio.wait(…, return_when=FIRST_COMPLETED)" in str(error)


async def open_connection() -> None:
    await asyncio.open_connection("127.0.0.1", 9)


async def start_server() -> None:
    await asyncio.start_server(print, "127.0.0.1", 0)


async def subprocess() -> None:
    await asyncio.create_subprocess_exec("true")


async def shell() -> None:
    await asyncio.create_subprocess_shell("true")


async def resolve() -> None:
    await asyncio.get_running_loop().getaddrinfo("localhost", 80)


async def datagram() -> None:
    await asyncio.get_running_loop().sock_recvfrom(None, 100)  # type: ignore[arg-type]


async def stop() -> None:
    asyncio.get_running_loop().stop()


@pytest.mark.parametrize("handler", [open_connection, start_server, subprocess, shell, resolve, datagram, stop])
def test_the_outside_is_refused_with_the_remedy(loop: HandlerLoop, handler: Callable[[], Awaitable[None]]) -> None:
    error = ran(loop, handler).exception()  # type: ignore[arg-type]

    assert isinstance(error, Refused)
    assert "Await it in a step" in str(error)


def test_everything_that_a_loop_can_do_is_done_or_refused(loop: HandlerLoop) -> None:
    names = {name for name in dir(asyncio.AbstractEventLoop) if not name.startswith("_")}

    assert names - set(dir(loop)) == set()


# It ends


def test_unwinding_cancels_what_waits_and_runs_what_it_does_about_it(loop: HandlerLoop) -> None:
    seen = []

    async def handler() -> None:
        try:
            await loop.create_future()
        finally:
            await asyncio.sleep(0)
            seen.append("closed")

    task = ran(loop, handler)
    loop.unwind()

    assert (seen, task.cancelled()) == (["closed"], True)


def test_unwinding_leaves_tasks_that_go_on_all_the_same(loop: HandlerLoop) -> None:
    seen = []

    async def handler() -> None:
        while True:
            try:
                await loop.create_future()
            except asyncio.CancelledError:
                seen.append("no")

    task = ran(loop, handler)
    loop.unwind()

    assert 1 < len(seen) < 100
    assert not task.done()


def test_an_error_that_nobody_asks_for_is_no_error_of_the_handler(loop: HandlerLoop) -> None:
    async def handler() -> int:
        loop.call_soon(int, "seven")
        await asyncio.sleep(0)
        return 7

    assert ran(loop, handler).result() == 7
