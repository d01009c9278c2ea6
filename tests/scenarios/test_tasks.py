"""What only async handlers can do: tasks, waiting for the first of them, and telling them apart."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import django_durable as durable
from tests.engine.conftest import Engine
from tests.scenarios.conftest import MODES, Play


@pytest.fixture(params=[mode for mode in MODES if mode.asynchronous], ids=str)
def play(request: pytest.FixtureRequest, engine: Engine) -> Play:
    """Play the scenario in each async mode."""
    return Play(request.param, engine)


def test_an_id_that_two_tasks_use_at_the_same_time_is_refused_with_a_remedy(play: Play) -> None:
    async def handler(event: durable.Event, step: durable.Step) -> None:
        async def work() -> None:
            await step.run("work", play.body("work"))

        await asyncio.gather(work(), work())

    play.start(handler)

    assert "Give each an id of its own" in play.failure.message


def test_results_are_handed_out_in_the_order_in_which_they_came_in_every_pass(play: Play) -> None:
    orders: list[list[str]] = []

    async def handler(event: durable.Event, step: durable.Step) -> None:
        async def nap(name: str, duration: str) -> str:
            await step.sleep(name, duration)
            return name

        order = []
        for each in asyncio.as_completed([nap("slow", "2h"), nap("quick", "1h")]):
            order.append(await each)
        orders.append(order)
        await step.sleep("rest", "1h")

    play.start(handler)
    play.to_the_end()

    assert orders == [["quick", "slow"]] * 2


def test_a_gather_that_fails_leaves_its_other_steps_to_go_on(play: Play) -> None:
    bad, after = play.body("bad", fails=durable.NonRetriable("no")), play.body("after")

    async def handler(event: durable.Event, step: durable.Step) -> Any:
        async def slow() -> str:
            await step.sleep("nap", "1h")
            await step.run("after", after)
            return "done"

        task = asyncio.create_task(slow())
        try:
            await asyncio.gather(task, step.run("bad", bad))
        except durable.StepError:
            return await task

    play.start(handler)
    play.advance("1h")

    assert play.result == "done"
    assert play.calls == ["bad", "after"]


def test_a_task_group_cancels_the_others_when_one_fails(play: Play) -> None:
    bad, after = play.body("bad", fails=durable.NonRetriable("no")), play.body("after")

    async def handler(event: durable.Event, step: durable.Step) -> Any:
        async def slow() -> None:
            await step.sleep("nap", "1h")
            await step.run("after", after)

        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(slow())
                group.create_task(step.run("bad", bad))
        except* durable.StepError as errors:
            failed = len(errors.exceptions)
        await step.sleep("rest", "2h")
        return failed

    play.start(handler)
    play.to_the_end()

    assert play.result == 1
    assert play.calls == ["bad"]


def test_what_is_no_step_and_never_comes_ends_the_run(play: Play) -> None:
    async def handler(event: durable.Event, step: durable.Step) -> None:
        await asyncio.get_running_loop().create_future()

    play.start(handler)

    assert "Await steps only" in play.failure.message


def test_sleeping_outside_of_steps_is_refused(play: Play) -> None:
    async def handler(event: durable.Event, step: durable.Step) -> None:
        await asyncio.sleep(3600)

    play.start(handler)

    assert play.failure.type == "django_durable.exceptions.InvalidStep"


def test_a_step_that_nobody_awaits_does_not_run(play: Play, recwarn: pytest.WarningsRecorder) -> None:
    work = play.body("work")

    async def handler(event: durable.Event, step: durable.Step) -> str:
        step.run("work", work)  # type: ignore[unused-coroutine]
        return "done"

    play.start(handler)

    assert play.status in ("completed", "failed")
    assert play.calls == []
