"""Bounds on the time of one attempt: the main thread is interrupted, other threads are told afterwards."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

import django_durable as durable
from django_durable.engine.steps.timeouts import limited
from django_durable.models import Step, StepAttempt
from tests.engine.conftest import Engine, failure_of
from tests.testapp.models import Author

SHORT = timedelta(milliseconds=30)
LONG = timedelta(minutes=1)


def in_another_thread(code: Callable[[], Any]) -> Any:
    """Return what *code* returns in a thread that is not the main one."""
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(code()))
    thread.start()
    thread.join()
    return answers[0]


def spin(seconds: float) -> None:
    """Be busy, without a call that a signal ends early."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        pass


@pytest.fixture(autouse=True)
def no_timer() -> Iterator[None]:
    """Stop the timer of the test runner, if it has one."""
    left, interval = signal.setitimer(signal.ITIMER_REAL, 0)
    yield
    signal.setitimer(signal.ITIMER_REAL, left, interval)


def test_the_main_thread_is_interrupted() -> None:
    began = time.monotonic()

    with pytest.raises(durable.StepTimeout, match=r"longer than its timeout of 0:00:00\.03"), limited(SHORT):
        time.sleep(20)

    assert time.monotonic() - began < 10


def test_code_that_is_busy_is_interrupted_too() -> None:
    with pytest.raises(durable.StepTimeout), limited(SHORT):
        spin(20)


def test_code_that_is_done_in_time_is_not_interrupted_later() -> None:
    with limited(SHORT):
        pass

    spin(0.05)
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_the_signal_handler_of_the_project_is_put_back() -> None:
    before = signal.signal(signal.SIGALRM, signal.SIG_IGN)
    try:
        with limited(LONG):
            assert signal.getsignal(signal.SIGALRM) is not signal.SIG_IGN

        assert signal.getsignal(signal.SIGALRM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGALRM, before)


def test_a_timer_of_the_project_goes_on() -> None:
    rung: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, frame: rung.append(number))
    signal.setitimer(signal.ITIMER_REAL, 0.02)
    try:
        with limited(LONG):
            spin(0.03)
        spin(0.03)
    finally:
        signal.signal(signal.SIGALRM, before)

    assert rung == [signal.SIGALRM]


def test_an_error_of_the_code_is_its_own() -> None:
    with pytest.raises(KeyError), limited(LONG):
        raise KeyError("mine")


def test_another_thread_runs_to_its_end_and_fails_then() -> None:
    done: list[str] = []

    def work() -> object:
        try:
            with limited(SHORT):
                spin(0.05)
                done.append("all of it")
        except durable.StepTimeout as error:
            return error
        return None

    assert isinstance(in_another_thread(work), durable.StepTimeout)
    assert done == ["all of it"]


def test_another_thread_that_is_quick_does_not_fail() -> None:
    def work() -> str:
        with limited(LONG):
            return "done"

    assert in_another_thread(work) == "done"


# As a step has them


def test_an_attempt_that_takes_too_long_is_a_failed_one_and_tried_again(engine: Engine) -> None:
    pauses = [20.0, 0.0]

    @engine.function(backoff=0)
    def fn(event: durable.Event, step: durable.Step) -> Any:
        return step.options(timeout="50ms").run("work", lambda: time.sleep(pauses.pop(0)))

    engine.start()
    engine.settle()

    assert engine.run().status == "completed"
    assert [failure_of(attempt).type for attempt in StepAttempt.objects.all()] == [
        "django_durable.exceptions.StepTimeout"
    ]


def test_a_step_that_always_takes_too_long_fails(engine: Engine) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> Any:
        try:
            step.options(timeout="20ms", retries=0).run("work", time.sleep, 20)
        except durable.StepError as error:
            return [error.is_a(durable.StepTimeout), error.attempts]

    assert engine.start().output == "[true,1]"


def test_what_a_step_wrote_is_rolled_back_when_its_time_is_over(engine: Engine) -> None:
    def write() -> None:
        Author.objects.create(name="Ada")
        time.sleep(20)

    @engine.function(retries=0)
    def fn(event: durable.Event, step: durable.Step) -> Any:
        step.options(timeout="300ms").atomic("write", write)

    assert engine.start().status == "failed"
    assert not Author.objects.exists()


def test_each_item_of_a_map_has_the_time(engine: Engine) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> Any:
        quick = step.options(timeout="200ms", retries=0)
        try:
            return quick.map("work", time.sleep, [0, 20])
        except durable.StepError as error:
            return error.is_a(durable.StepTimeout)

    assert engine.start().output == "true"
    items = Step.objects.filter(kind="branch").order_by("ordinal")
    assert [*items.values_list("status", flat=True)] == ["completed", "failed"]


def test_an_async_function_is_interrupted(engine: Engine) -> None:
    async def work() -> None:
        await asyncio.sleep(20)

    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> Any:
        try:
            step.options(timeout="20ms", retries=0).run("work", work)
        except durable.StepError as error:
            return error.is_a(durable.StepTimeout)

    assert engine.start().output == "true"
