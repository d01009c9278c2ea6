"""Code that comes, goes and changes while runs are under way."""

from __future__ import annotations

import asyncio
from typing import Any

import django_durable as durable
from django_durable.core.functions import registry
from tests.scenarios.conftest import Play


def test_a_run_whose_function_is_missing_waits_for_code_that_has_it(play: Play) -> None:
    work = play.body("work", 7)

    async def handler(event: durable.Event, step: durable.Step) -> Any:
        await step.sleep("nap", "1h")
        return await step.run("work", work)

    play.start(handler)
    registry._functions.clear()
    play.advance("1h")
    assert (play.status, play.run.waiting_kind) == ("waiting", "code")
    play.function("fn", handler, trigger="test/start")
    play.advance("1h")

    assert play.result == 7
    assert play.calls == ["work"]


def test_a_handler_may_become_async_under_its_runs_and_plain_again(play: Play) -> None:
    first, second = play.body("first", 1, plain=True), play.body("second", 2, plain=True)

    def plain(event: durable.Event, step: durable.Step) -> Any:
        one = step.run("first", first)
        step.sleep("nap", "1h")
        two = step.run("second", second)
        step.sleep("rest", "1h")
        return [one, two]

    async def asynchronous(event: durable.Event, step: durable.Step) -> Any:
        one = await step.run("first", first)
        await step.sleep("nap", "1h")
        two = await step.run("second", second)
        await step.sleep("rest", "1h")
        return [one, two]

    play.start(plain, asynchronous)
    play.deploy(asynchronous, plain)
    play.advance("1h")
    play.deploy(plain, asynchronous)
    play.advance("1h")

    assert play.result == [1, 2]
    assert play.calls == ["first", "second"]


def test_a_step_that_was_removed_is_taken_up_again_when_it_comes_back(play: Play) -> None:
    work = play.body("work", 1)

    async def with_it(event: durable.Event, step: durable.Step) -> Any:
        value = await step.run("work", work)
        await step.sleep("nap", "1h")
        await step.sleep("rest", "1h")
        return value

    async def without_it(event: durable.Event, step: durable.Step) -> Any:
        await step.sleep("nap", "1h")
        await step.sleep("rest", "1h")

    play.start(with_it)
    play.deploy(without_it)
    play.advance("1h")
    play.deploy(with_it)
    play.advance("1h")

    assert play.result == 1
    assert play.calls == ["work"]


def test_a_branch_that_the_code_lost_ends_nowhere_and_the_run_goes_on(play: Play) -> None:
    work = play.body("work", 1)

    async def after(event: durable.Event, step: durable.Step) -> Any:
        return await step.run("work", work)

    def before(event: durable.Event, step: durable.Step) -> Any:
        step.parallel(lambda: step.sleep("nap", "1h"), lambda: step.sleep("rest", "2h"))

    async def before_async(event: durable.Event, step: durable.Step) -> Any:
        await asyncio.gather(step.sleep("nap", "1h"), step.sleep("rest", "2h"))

    play.start(before, before_async)
    play.deploy(after)
    play.to_the_end()

    assert play.result == 1
    assert play.calls == ["work"]
