"""Errors and retries: budgets of steps and of the handler, what can be caught, and what ends a run."""

from __future__ import annotations

import asyncio
import datetime
import time
from typing import Any

import pytest

import django_durable as durable
from django_durable.core import clock
from django_durable.models import Run, StepAttempt
from tests.engine.conftest import in_seconds
from tests.scenarios.conftest import Play

# The budget of a step


def test_a_step_is_tried_five_times(play: Play) -> None:
    bad = play.body("bad", fails=ValueError("no"))

    async def handler(event: durable.Event, step: durable.Step) -> Any:
        await step.run("bad", bad)

    play.start(handler)
    play.to_the_end()

    assert play.failure.type == "django_durable.exceptions.StepError"
    assert play.calls == ["bad"] * 5


def test_each_step_has_a_budget_of_its_own(play: Play) -> None:
    a, b = play.body("a", 1, fails=3), play.body("b", 2, fails=3)

    async def handler(event: durable.Event, step: durable.Step) -> Any:
        return [await step.run("a", a), await step.run("b", b)]

    play.start(handler, retries=3)
    play.to_the_end()

    assert play.result == [1, 2]
    assert play.calls == ["a"] * 4 + ["b"] * 4


def test_a_step_may_have_other_retries_than_its_function(play: Play) -> None:
    a, b = play.body("a", 1, fails=3), play.body("b", fails=ValueError("no"))

    async def handler(event: durable.Event, step: durable.Step) -> Any:
        await step.options(retries=3).run("a", a)
        await step.options(retries=0).run("b", b)

    play.start(handler, retries=1)
    play.to_the_end()

    assert play.status == "failed"
    assert play.calls == ["a"] * 4 + ["b"]


@pytest.mark.parametrize(
    ("backoff", "pauses"),
    [
        ("10s", [10, 10]),
        ([5, 50], [5, 50]),
        (durable.Linear("5s", "5s", jitter=0), [5, 10]),
        (lambda n, error: 7 * n, [7, 14]),
    ],
    ids=["duration", "list", "Linear", "callable"],
)
def test_the_pauses_between_attempts_are_chosen(play: Play, backoff: Any, pauses: list[int]) -> None:
    bad = play.body("bad", fails=2)

    async def handler(event: durable.Event, step: durable.Step) -> Any:
        await step.run("bad", bad)

    play.start(handler, backoff=backoff)
    for pause in pauses:
        assert in_seconds(play.step("bad").next_at) == pytest.approx(pause, abs=1)
        play.advance(pause + 1)

    assert play.status == "completed"


def test_a_step_may_have_another_back_off_than_its_function(play: Play) -> None:
    bad = play.body("bad", fails=1)

    async def handler(event: durable.Event, step: durable.Step) -> Any:
        await step.options(backoff="2d").run("bad", bad)

    play.start(handler, backoff="1m")

    assert in_seconds(play.step("bad").next_at) == pytest.approx(2 * 86_400, abs=2)


# NonRetriable and RetryAfter, in a step and in the handler


def test_a_step_that_is_not_retriable_is_tried_once(play: Play) -> None:
    bad = play.body("bad", fails=durable.NonRetriable("stolen card"))

    async def handler(event: durable.Event, step: durable.Step) -> Any:
        await step.run("bad", bad)

    play.start(handler)

    assert play.failure.cause is not None
    assert play.failure.cause.message == "stolen card"
    assert play.calls == ["bad"]


def test_a_handler_that_is_not_retriable_is_tried_once(play: Play) -> None:
    async def handler(event: durable.Event, step: durable.Step) -> Any:
        play.calls.append("handler")
        raise durable.NonRetriable("stolen card")

    play.start(handler)

    assert play.failure.message == "stolen card"
    assert play.calls == ["handler"]


WHENS = {
    "seconds": lambda: 7200,
    "duration": lambda: "2h",
    "timedelta": lambda: datetime.timedelta(hours=2),
    "moment": lambda: clock.now() + datetime.timedelta(hours=2),
}


@pytest.mark.parametrize("when", WHENS.values(), ids=WHENS)
def test_a_step_chooses_its_next_attempt(play: Play, when: Any) -> None:
    async def handler(event: durable.Event, step: durable.Step) -> Any:
        async def busy() -> str:
            play.calls.append("busy")
            if len(play.calls) == 1:
                raise durable.RetryAfter("busy", when())
            return "done"

        return await step.run("busy", busy)

    play.start(handler)
    assert play.advance("1h59m").status == "waiting"
    play.advance("1m")

    assert play.result == "done"


def test_a_handler_chooses_its_next_attempt(play: Play) -> None:
    async def handler(event: durable.Event, step: durable.Step) -> Any:
        play.calls.append("handler")
        if step.attempt == 0:
            raise durable.RetryAfter("busy", "2h")
        return step.attempt

    play.start(handler)
    assert play.advance("1h59m").status == "waiting"
    play.advance("1m")

    assert play.result == 1


def test_an_attempt_that_was_chosen_counts(play: Play) -> None:
    busy = play.body("busy", fails=durable.RetryAfter("busy", "1m"))

    async def handler(event: durable.Event, step: durable.Step) -> Any:
        await step.run("busy", busy)

    play.start(handler, retries=2)
    play.to_the_end()

    assert play.status == "failed"
    assert play.calls == ["busy"] * 3


# The budget of the handler


def test_the_handlers_own_code_has_a_budget_of_its_own(play: Play) -> None:
    work = play.body("work", fails=1)

    async def handler(event: durable.Event, step: durable.Step) -> Any:
        await step.run("work", work)
        play.calls.append("handler")
        raise ValueError("no")

    play.start(handler, retries=2)
    play.to_the_end()

    assert play.failure.type == "builtins.ValueError"
    assert play.calls == ["work", "work", "handler", "handler", "handler"]


def test_a_recorded_step_gives_the_handler_its_budget_back(play: Play) -> None:
    work = play.body("work")

    async def handler(event: durable.Event, step: durable.Step) -> Any:
        for number in range(3):
            if play.calls.count(f"handler {number}") < 2:
                play.calls.append(f"handler {number}")
                raise ValueError("not yet")
            await step.run("work", work)
        return "done"

    play.start(handler, retries=2)
    play.to_the_end()

    assert play.result == "done"
    assert StepAttempt.objects.filter(key=None).count() == 6


def test_the_handler_knows_which_attempt_it_is(play: Play) -> None:
    attempts = []

    async def handler(event: durable.Event, step: durable.Step) -> Any:
        attempts.append(step.attempt)
        if step.attempt < 2:
            raise ValueError("not yet")

    play.start(handler)
    play.to_the_end()

    assert attempts == [0, 1, 2]


# What a step raises in the end


def test_the_error_of_a_step_can_be_caught_and_says_what_happened(play: Play) -> None:
    caught: list[durable.StepError] = []

    async def handler(event: durable.Event, step: durable.Step) -> Any:
        async def bad() -> None:
            try:
                raise KeyError("price")
            except KeyError as error:
                raise LookupError("no price") from error

        try:
            await step.run("bad", bad)
        except durable.StepError as error:
            caught.append(error)
            return [error.step_id, error.type, error.message, error.attempts, error.is_a(LookupError)]

    play.start(handler, retries=1)
    play.to_the_end()

    assert play.result == ["bad", "builtins.LookupError", "no price", 2, True]
    error = caught[-1]
    assert "test_errors.py" in error.traceback
    assert error.cause is not None
    assert error.cause.type == "builtins.KeyError"


def test_a_caught_error_is_raised_again_in_every_pass_without_a_call(play: Play) -> None:
    bad, refund = play.body("bad", fails=ValueError("no")), play.body("refund", "refunded")

    async def handler(event: durable.Event, step: durable.Step) -> Any:
        try:
            await step.run("bad", bad)
        except durable.StepError:
            await step.sleep("nap", "1h")
            return await step.run("refund", refund)

    play.start(handler, retries=0)
    play.advance("1h")

    assert play.result == "refunded"
    assert play.calls == ["bad", "refund"]


def test_an_error_raised_where_one_was_caught_is_the_handlers_own(play: Play) -> None:
    bad = play.body("bad", fails=ValueError("no"))

    async def handler(event: durable.Event, step: durable.Step) -> Any:
        try:
            await step.run("bad", bad)
        except durable.StepError as error:
            play.calls.append("handler")
            raise RuntimeError("cannot go on") from error

    play.start(handler, retries=1)
    play.to_the_end()

    assert play.failure.type == "builtins.RuntimeError"
    assert play.calls == ["bad", "bad", "handler", "handler"]


def test_an_uncaught_error_of_a_step_fails_the_run_without_more_attempts(play: Play) -> None:
    bad = play.body("bad", fails=ValueError("no"))

    async def handler(event: durable.Event, step: durable.Step) -> Any:
        play.calls.append("handler")
        await step.run("bad", bad)

    play.start(handler, retries=0)

    assert play.failure.type == "django_durable.exceptions.StepError"
    assert play.calls == ["handler", "bad"]


@pytest.mark.parametrize(
    "value", [{"lines": [1, {"price": object()}]}, range(3), {"n": float("nan")}], ids=["object", "range", "nan"]
)
def test_a_value_that_cannot_be_stored_fails_the_step_at_once(play: Play, value: Any) -> None:
    bad = play.body("bad", value)

    async def handler(event: durable.Event, step: durable.Step) -> Any:
        try:
            await step.run("bad", bad)
        except durable.StepError as error:
            return [error.type, error.attempts]

    play.start(handler)

    assert play.result == ["django_durable.exceptions.EncodingError", 1]
    assert play.calls == ["bad"]


def test_a_value_that_cannot_be_stored_is_named_by_its_path(play: Play) -> None:
    bad = play.body("bad", {"lines": [1, {"price": object()}]})

    async def handler(event: durable.Event, step: durable.Step) -> Any:
        await step.run("bad", bad)

    play.start(handler)

    assert 'result["lines"][1]["price"]' in play.failure.message


def test_a_result_that_cannot_be_stored_fails_the_run_at_once(play: Play) -> None:
    async def handler(event: durable.Event, step: durable.Step) -> Any:
        play.calls.append("handler")
        return object()

    play.start(handler)

    assert play.failure.type == "django_durable.exceptions.EncodingError"
    assert play.calls == ["handler"]


def test_an_attempt_that_takes_too_long_fails(play: Play) -> None:
    def slow() -> None:
        play.calls.append("slow")
        time.sleep(0.2)

    async def async_slow() -> None:
        play.calls.append("slow")
        await asyncio.sleep(5)

    async def handler(event: durable.Event, step: durable.Step) -> Any:
        try:
            await step.options(timeout="50ms", retries=1).run("slow", body)
        except durable.StepError as error:
            return error.type

    body = async_slow if play.mode.asynchronous else slow
    play.start(handler)
    play.to_the_end()

    assert play.result == "django_durable.exceptions.StepTimeout"
    assert play.calls == ["slow", "slow"]


# After the end


def test_a_failed_run_starts_its_on_failure_once(play: Play) -> None:
    told = play.body("told", does=lambda *facts: play.calls.extend(map(str, facts)))

    async def handler(event: durable.Event, step: durable.Step) -> Any:
        raise durable.NonRetriable("out of stock")

    async def on_failure(event: durable.FailureEvent, step: durable.Step) -> Any:
        await step.run("tell", told, event.error.message, event.run_id, event.original.data["n"])

    clean_up = play.function("clean-up", on_failure)
    play.start(handler, data={"n": 7}, on_failure=clean_up)
    play.advance("1d")

    assert play.status == "failed"
    assert play.calls == ["told", "out of stock", str(play.run.id), "7"]
    assert Run.objects.count() == 2


def test_on_failure_is_a_durable_run_with_retries_of_its_own(play: Play) -> None:
    flaky = play.body("flaky", fails=2)

    async def handler(event: durable.Event, step: durable.Step) -> Any:
        raise durable.NonRetriable("out of stock")

    async def on_failure(event: durable.FailureEvent, step: durable.Step) -> Any:
        await step.run("flaky", flaky)
        await step.sleep("nap", "1h")

    play.start(handler, on_failure=play.function("clean-up", on_failure))
    for _ in range(4):
        play.advance("1h")

    assert play.engine.run().status == "completed"
    assert play.calls == ["flaky"] * 3


def test_a_completed_run_starts_no_on_failure(play: Play) -> None:
    async def handler(event: durable.Event, step: durable.Step) -> Any:
        return 1

    async def on_failure(event: durable.FailureEvent, step: durable.Step) -> Any:
        play.calls.append("told")

    play.start(handler, on_failure=play.function("clean-up", on_failure))

    assert play.result == 1
    assert play.calls == []


def test_an_ended_run_never_changes(play: Play) -> None:
    async def handler(event: durable.Event, step: durable.Step) -> Any:
        return 1

    run = play.start(handler)

    assert durable.cancel_run(run.id) is False
    play.advance("1d")
    assert Run.objects.filter(id=run.id, status="completed", fence=run.fence, output="1").exists()


def test_a_suspension_that_the_handler_swallows_is_found_out(play: Play) -> None:
    def plain(event: durable.Event, step: durable.Step) -> Any:
        try:
            step.sleep("nap", "1h")
        except BaseException:
            return "swallowed"

    async def asynchronous(event: durable.Event, step: durable.Step) -> Any:
        try:
            await step.sleep("nap", "1h")
        except BaseException:
            return "swallowed"
        return "awake"

    play.start(plain, asynchronous)
    play.advance("1h")

    if play.mode.asynchronous:
        # A step that waits is a pending future there, and nothing that could be caught.
        assert play.result == "awake"
    else:
        assert play.failure.type == "django_durable.exceptions.SuspensionSwallowed"
