"""What follows the last pass of a turn: the run's result, its failure, or the handler's next attempt."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.test import override_settings

import django_durable as durable
from django_durable.core import clock
from django_durable.models import Run, StepAttempt
from tests.engine.conftest import Engine, failure_of, in_seconds


def nothing() -> None:
    """Do nothing."""


def test_a_result_that_cannot_be_stored_fails_the_run_at_once_with_path_and_remedy(engine: Engine) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> Any:
        return {"file": [nothing]}

    run = engine.start()

    assert run.status == "failed"
    error = failure_of(run)
    assert error.type == "django_durable.exceptions.EncodingError"
    assert error.message.startswith('result["file"][0]: a value of type function cannot be stored')


def test_a_result_that_is_too_large_fails_the_run_at_once(engine: Engine) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> str:
        return "x" * 1_000

    with override_settings(DURABLE={"DRIVER": "inline", "MAX_PAYLOAD": 1_000}):
        run = engine.start()

    assert run.status == "failed"
    assert "1,002 bytes of JSON exceed the limit of 1,000" in failure_of(run).message


def test_the_handlers_own_code_is_tried_again_with_the_steps_kept(engine: Engine) -> None:
    calls: list[Any] = []

    @engine.function(backoff="10s")
    def fn(event: durable.Event, step: durable.Step) -> str:
        step.run("once", calls.append, "body")
        calls.append(step.attempt)
        if step.attempt < 2:
            raise ValueError("not yet")
        return "done"

    run = engine.start()
    assert (run.status, run.waiting_kind, run.attempt) == ("waiting", "retry", 1)
    assert run.waiting_for == "attempt 2 of 5 of the handler: ValueError: not yet"

    engine.advance("10s")
    assert engine.advance("10s").output == '"done"'
    assert calls == ["body", 0, 1, 2]
    assert [(each.key, each.number, each.status) for each in StepAttempt.objects.all()] == [
        (None, 1, "failed"),
        (None, 2, "failed"),
    ]


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_the_run_fails_once_the_handlers_attempts_are_spent(engine: Engine, retries: int) -> None:
    calls = []

    @engine.function(retries=retries, backoff="1m")
    def fn(event: durable.Event, step: durable.Step) -> None:
        calls.append(1)
        raise ValueError(f"number {len(calls)}")

    engine.start()
    for _ in range(5):
        engine.advance("1m")

    assert len(calls) == retries + 1
    run = engine.run()
    assert run.status == "failed"
    assert failure_of(run).message == f"number {retries + 1}"


@pytest.mark.parametrize(
    "between",
    [
        lambda step: step.run("between", nothing),
        lambda step: step.sleep("between", "1h"),
        lambda step: step.wait_for_event("between", "app/never", timeout="1h"),
        lambda step: step.invoke("between", "child"),
    ],
    ids=["run", "sleep", "wait", "invoke"],
)
def test_a_recorded_step_gives_the_handler_its_attempts_back(
    engine: Engine, between: Callable[[durable.Step], object]
) -> None:
    failed = set()

    def fail_once(place: str) -> None:
        if place not in failed:
            failed.add(place)
            raise ValueError(place)

    @engine.function("child", trigger=None)
    def child(event: durable.Event, step: durable.Step) -> None:
        """Do nothing."""

    @engine.function(retries=1, backoff="1m")
    def fn(event: durable.Event, step: durable.Step) -> None:
        fail_once("before")
        between(step)
        fail_once("after")

    engine.start()
    for _ in range(3):
        engine.advance("1h")

    run = Run.objects.get(function="project/fn")
    assert (run.status, failed) == ("completed", {"before", "after"})


def test_a_handler_that_raises_non_retriable_is_not_tried_again(engine: Engine) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        raise durable.NonRetriable("stolen")

    run = engine.start()

    assert run.status == "failed"
    assert failure_of(run).message == "stolen"


@pytest.mark.parametrize(
    "when",
    [600, "10m", timedelta(minutes=10), lambda: clock.now() + timedelta(minutes=10)],
    ids=["seconds", "text", "timedelta", "datetime"],
)
def test_a_handler_may_choose_when_it_is_tried_again(engine: Engine, when: Any) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        if step.attempt == 0:
            raise durable.RetryAfter("busy", when() if callable(when) else when)

    run = engine.start()
    assert in_seconds(run.next_at) == pytest.approx(600, abs=5)

    assert engine.advance("10m").status == "completed"


@pytest.mark.parametrize(("error", "status"), [(KeyError, "waiting"), (ValueError, "failed")])
@pytest.mark.parametrize("place", ["step", "handler"])
def test_only_errors_of_the_given_classes_are_tried_again(
    engine: Engine, error: type[Exception], status: str, place: str
) -> None:
    def fail() -> None:
        raise error

    @engine.function(retry_on=LookupError)
    def fn(event: durable.Event, step: durable.Step) -> None:
        step.run("fail", fail) if place == "step" else fail()

    assert engine.start().status == status


@pytest.mark.parametrize(("error", "status"), [(KeyError, "failed"), (ValueError, "waiting")])
@pytest.mark.parametrize("place", ["step", "handler"])
def test_errors_of_the_excluded_classes_are_not_tried_again(
    engine: Engine, error: type[Exception], status: str, place: str
) -> None:
    def fail() -> None:
        raise error

    @engine.function(no_retry_on=LookupError)
    def fn(event: durable.Event, step: durable.Step) -> None:
        step.run("fail", fail) if place == "step" else fail()

    assert engine.start().status == status


def test_a_chosen_moment_is_still_an_attempt(engine: Engine) -> None:
    @engine.function(retries=1)
    def fn(event: durable.Event, step: durable.Step) -> None:
        raise durable.RetryAfter("busy", "10m")

    engine.start()

    assert engine.advance("10m").status == "failed"


def test_without_a_back_off_the_handler_is_tried_again_after_15_seconds(engine: Engine) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        raise ValueError

    assert 10 <= in_seconds(engine.start().next_at) <= 18.1
