"""What replay promises: recorded steps, the code that changes under them, and the values that cross them."""

from __future__ import annotations

import asyncio
import decimal
from typing import Any

import pytest

import django_durable as durable
from django_durable.models import Step
from tests.scenarios.conftest import Play


def test_a_recorded_step_returns_its_value_without_running(play: Play) -> None:
    charge = play.body("charge", 7)

    async def handler(event: durable.Event, step: durable.Step) -> Any:
        first = await step.run("charge", charge)
        await step.sleep("nap", "1h")
        return first

    play.start(handler)
    play.advance("1h")

    assert play.result == 7
    assert play.calls == ["charge"]


def test_the_handler_is_run_again_from_the_top(play: Play) -> None:
    passes = []
    work = play.body("work")

    async def handler(event: durable.Event, step: durable.Step) -> None:
        passes.append(event.data["n"])
        await step.run("work", work)
        await step.sleep("nap", "1h")

    play.start(handler, data={"n": 1})
    play.advance("1h")

    assert play.status == "completed"
    # Turn by turn, each step has a pass of its own, as well.
    assert passes == [1] * (2 if play.mode.checkpoint else 3)


def test_the_handler_gets_an_event_of_its_own_in_every_pass(play: Play) -> None:
    async def handler(event: durable.Event, step: durable.Step) -> Any:
        event.data["seen"] = event.data.get("seen", 0) + 1
        await step.sleep("nap", "1h")
        return event.data

    play.start(handler, data={"n": 1})
    play.advance("1h")

    assert play.result == {"n": 1, "seen": 1}


def test_the_nth_use_of_an_id_is_one_step_in_every_pass(play: Play) -> None:
    double = play.body("double", does=lambda number: 2 * number)

    async def handler(event: durable.Event, step: durable.Step) -> list[int]:
        doubled = []
        for number in range(3):
            doubled.append(await step.run("double", double, number))
            await step.sleep("nap", "1h")
        return doubled

    play.start(handler)
    play.to_the_end()

    assert play.result == [0, 2, 4]
    assert play.calls == ["double"] * 3


def test_equal_ids_in_different_branches_are_different_steps(play: Play) -> None:
    tell = play.body("tell", does=lambda text: text)

    def plain(event: durable.Event, step: durable.Step) -> Any:
        def branch(text: str) -> str:
            step.sleep("nap", "2h" if text == "a" else "1h")
            return step.run("tell", tell, text)

        return list(step.parallel(lambda: branch("a"), lambda: branch("b")))

    async def asynchronous(event: durable.Event, step: durable.Step) -> Any:
        async def branch(text: str) -> str:
            # Tasks share their names, so each says whose step it is.
            await step.sleep(f"nap {text}", "2h" if text == "a" else "1h")
            return await step.run(f"tell {text}", tell, text)

        return await asyncio.gather(branch("a"), branch("b"))

    play.start(plain, asynchronous)
    play.to_the_end()

    assert play.result == ["a", "b"]
    assert play.calls == ["tell", "tell"]


# Code that changes under a run


def test_a_step_added_before_recorded_ones_runs_and_they_do_not(play: Play) -> None:
    old, new = play.body("old", 1), play.body("new", 2)

    async def before(event: durable.Event, step: durable.Step) -> Any:
        first = await step.run("old", old)
        await step.sleep("nap", "1h")
        return first

    async def after(event: durable.Event, step: durable.Step) -> Any:
        added = await step.run("new", new)
        first = await step.run("old", old)
        await step.sleep("nap", "1h")
        return [added, first]

    play.start(before)
    play.deploy(after)
    play.advance("1h")

    assert play.result == [2, 1]
    assert play.calls == ["old", "new"]


def test_a_removed_step_harms_nothing_and_its_record_stays(play: Play) -> None:
    gone, kept = play.body("gone"), play.body("kept", 1)

    async def before(event: durable.Event, step: durable.Step) -> Any:
        await step.run("gone", gone)
        await step.run("kept", kept)
        await step.sleep("nap", "1h")

    async def after(event: durable.Event, step: durable.Step) -> Any:
        first = await step.run("kept", kept)
        await step.sleep("nap", "1h")
        return first

    play.start(before)
    play.deploy(after)
    play.advance("1h")

    assert play.result == 1
    assert play.calls == ["gone", "kept"]
    assert play.step("gone").status == "completed"


def test_steps_in_another_order_keep_their_results(play: Play) -> None:
    a, b = play.body("a", "A"), play.body("b", "B")

    async def before(event: durable.Event, step: durable.Step) -> Any:
        await step.run("a", a)
        await step.run("b", b)
        await step.sleep("nap", "1h")

    async def after(event: durable.Event, step: durable.Step) -> Any:
        second, first = await step.run("b", b), await step.run("a", a)
        await step.sleep("nap", "1h")
        return first + second

    play.start(before)
    play.deploy(after)
    play.advance("1h")

    assert play.result == "AB"
    assert play.calls == ["a", "b"]


def test_a_renamed_step_is_a_new_step(play: Play) -> None:
    charge = play.body("charge", 1)

    async def before(event: durable.Event, step: durable.Step) -> Any:
        await step.run("charge", charge)
        await step.sleep("nap", "1h")

    async def after(event: durable.Event, step: durable.Step) -> Any:
        await step.run("charge-card", charge)
        await step.sleep("nap", "1h")

    play.start(before)
    play.deploy(after)
    play.advance("1h")

    assert play.status == "completed"
    assert play.calls == ["charge", "charge"]


def test_a_changed_body_keeps_its_recorded_result(play: Play) -> None:
    old, new = play.body("old", "old"), play.body("new", "new")

    async def before(event: durable.Event, step: durable.Step) -> Any:
        await step.run("work", old)
        await step.sleep("nap", "1h")

    async def after(event: durable.Event, step: durable.Step) -> Any:
        value = await step.run("work", new)
        await step.sleep("nap", "1h")
        return value

    play.start(before)
    play.deploy(after)
    play.advance("1h")

    assert play.result == "old"
    assert play.calls == ["old"]


def test_a_record_of_another_kind_than_the_call_is_an_error(play: Play) -> None:
    async def before(event: durable.Event, step: durable.Step) -> None:
        await step.sleep("pause", "1h")

    async def after(event: durable.Event, step: durable.Step) -> None:
        await step.wait_for_event("pause", "test/reply", timeout="1h")

    play.start(before)
    play.deploy(after)
    play.advance("1h")

    assert play.failure.type == "django_durable.exceptions.StepKindMismatch"
    assert "recorded as step.sleep and now called as step.wait" in play.failure.message


def test_a_branch_inserted_before_a_labelled_one_leaves_it_alone(play: Play) -> None:
    a, b, c = play.body("a", "A"), play.body("b", "B"), play.body("c", "C")

    def before(event: durable.Event, step: durable.Step) -> Any:
        both = step.parallel(a=lambda: step.run("it", a), b=lambda: step.run("it", b))
        step.sleep("nap", "1h")
        return both

    async def before_async(event: durable.Event, step: durable.Step) -> Any:
        both = await asyncio.gather(step.run("a", a), step.run("b", b))
        await step.sleep("nap", "1h")
        return both

    def after(event: durable.Event, step: durable.Step) -> Any:
        every = step.parallel(c=lambda: step.run("it", c), a=lambda: step.run("it", a), b=lambda: step.run("it", b))
        step.sleep("nap", "1h")
        return list(every)

    async def after_async(event: durable.Event, step: durable.Step) -> Any:
        every = await asyncio.gather(step.run("c", c), step.run("a", a), step.run("b", b))
        await step.sleep("nap", "1h")
        return every

    play.start(before, before_async)
    play.deploy(after, after_async)
    play.to_the_end()

    assert play.result == ["C", "A", "B"]
    assert sorted(play.calls) == ["a", "b", "c"]


def test_a_patch_is_on_for_new_runs_and_off_for_those_that_passed(play: Play) -> None:
    async def before(event: durable.Event, step: durable.Step) -> Any:
        await step.sleep("nap", "1h")

    async def after(event: durable.Event, step: durable.Step) -> Any:
        patched = await step.patched("charge-first")
        await step.sleep("nap", "1h")
        return patched

    play.start(before)
    play.deploy(after)
    durable.send_event("test/start")
    play.advance("1h")
    newer = play.engine.run()
    play.advance("1h")
    newer.refresh_from_db()

    assert play.result is False
    assert (newer.status, newer.output) == ("completed", "true")


# Values


@pytest.mark.parametrize(
    "value",
    [None, (1, 2), {1: "a"}, {3, 4}, decimal.Decimal("0.10"), b"\x00"],
    ids=["None", "tuple", "keys that are no text", "set", "Decimal", "bytes"],
)
def test_a_value_is_the_same_in_the_first_pass_and_in_later_ones(play: Play, value: Any) -> None:
    work = play.body("work", value)
    seen: list[Any] = []

    async def handler(event: durable.Event, step: durable.Step) -> None:
        seen.append(await step.run("work", work))
        await step.sleep("nap", "1h")

    play.start(handler)
    play.advance("1h")

    assert play.status == "completed"
    assert len(seen) >= 2
    assert all(each == value and type(each) is type(value) for each in seen)
    assert play.calls == ["work"]


def test_what_the_handler_does_to_a_value_is_gone_in_the_next_pass(play: Play) -> None:
    work = play.body("work", [1])

    async def handler(event: durable.Event, step: durable.Step) -> Any:
        value = await step.run("work", work)
        value.append(2)
        await step.sleep("nap", "1h")
        return value

    play.start(handler)
    play.advance("1h")

    assert play.result == [1, 2]


def test_a_step_without_result_is_recorded_like_any_other(play: Play) -> None:
    work = play.body("work", None)

    async def handler(event: durable.Event, step: durable.Step) -> Any:
        value = await step.run("work", work)
        await step.sleep("nap", "1h")
        return [value]

    play.start(handler)
    play.advance("1h")

    assert play.result == [None]
    assert play.calls == ["work"]


def test_a_memo_is_there_before_the_handler_goes_on(play: Play) -> None:
    recorded = []
    work = play.body("work")

    async def handler(event: durable.Event, step: durable.Step) -> None:
        await step.run("work", work)
        await step.run("look", look)

    def look() -> None:
        recorded.extend(Step.objects.values_list("name", "status"))

    play.start(handler)

    assert recorded == [("work", "completed")]
