"""What handlers can say besides: recorded values, patches, keys, options, log lines, several events, and decorators."""

from __future__ import annotations

import contextlib
import logging
from datetime import datetime, timedelta
from typing import Any

import pytest

import django_durable as durable
from django_durable.core import clock
from django_durable.core.functions import registry
from django_durable.core.values import encoding
from django_durable.models import Run, Step, Wait
from tests.engine.conftest import Engine, failure_of

Log = list[Any]


def value_of(run: Run) -> Any:
    assert run.status == "completed", run.error
    return encoding.decode(run.output or "null")


# now, uuid, random


@pytest.mark.parametrize("name", ["now", "uuid", "random"])
def test_a_value_of_chance_is_the_same_in_every_pass(engine: Engine, name: str) -> None:
    seen: Log = []

    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        seen.append(getattr(step, name)())
        step.sleep("nap", "1h")
        seen.append(getattr(step, name)())

    engine.start()
    engine.advance("1h")

    first, again, another = seen
    assert first == again
    assert type(first) is type(again)
    assert another != first


def test_now_is_the_moment_of_the_first_pass(engine: Engine) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> datetime:
        moment = step.now()
        step.sleep("nap", "1h")
        return moment

    began = clock.now()
    engine.start()

    assert abs(value_of(engine.advance("1h")) - began) < timedelta(minutes=1)


def test_a_random_number_lies_between_0_and_1(engine: Engine) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> list[float]:
        return [step.random() for _ in range(20)]

    numbers = value_of(engine.start())

    assert all(0 <= number < 1 for number in numbers)
    assert len(set(numbers)) == 20


# patched


def test_new_runs_take_the_patch_and_those_in_flight_do_not(engine: Engine) -> None:
    log: Log = []

    def old(event: durable.Event, step: durable.Step) -> None:
        step.sleep("nap", "1h")

    def new(event: durable.Event, step: durable.Step) -> None:
        if step.patched("charge-first"):
            step.run("charge", log.append, event.data["n"])
        step.sleep("nap", "1h")

    engine.function("fn")(old)
    engine.start({"n": 1})
    registry._functions.clear()
    engine.function("fn")(new)
    engine.start({"n": 2})
    engine.advance("1h")

    assert log == [2]
    assert set(Run.objects.values_list("status", flat=True)) == {"completed"}


def test_the_answer_of_a_patch_stays(engine: Engine) -> None:
    answers: Log = []

    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        answers.append(step.patched("a"))
        step.sleep("nap", "1h")
        answers.append(step.patched("b"))
        step.sleep("again", "1h")

    engine.start()
    engine.advance("1h")
    engine.advance("1h")

    assert answers == [True, True, True, True, True]


def test_a_run_that_stands_where_the_patch_is_takes_it(engine: Engine) -> None:
    def old(event: durable.Event, step: durable.Step) -> None:
        step.sleep("nap", "1h")

    def new(event: durable.Event, step: durable.Step) -> list[bool]:
        before = step.patched("before")
        step.sleep("nap", "1h")
        return [before, step.patched("after")]

    engine.function("fn")(old)
    engine.start()
    registry._functions.clear()
    engine.function("fn")(new)

    assert value_of(engine.advance("1h")) == [False, True]


# Idempotency keys


def test_the_key_of_a_step_is_the_same_in_every_attempt(engine: Engine) -> None:
    keys: Log = []

    def charge(order: int, *, key: str) -> str:
        keys.append((order, key))
        if len(keys) < 3:
            raise ValueError
        return key

    @engine.function(backoff=0)
    def fn(event: durable.Event, step: durable.Step) -> str:
        return step.options(idempotency_key="key").run("charge", charge, 7)

    engine.start()
    engine.advance("1s")
    engine.advance("1s")

    assert len(keys) == 3
    assert len(set(keys)) == 1
    assert value_of(engine.run()) == keys[0][1]


def test_each_step_and_each_run_has_a_key_of_its_own(engine: Engine) -> None:
    keys: Log = []

    def note(key: str) -> None:
        keys.append(key)

    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        keyed = step.options(idempotency_key="key")
        keyed.run("a", note)
        keyed.run("a", note)
        keyed.run("b", note)
        step.parallel(lambda: keyed.run("a", note), lambda: keyed.run("a", note))

    engine.start()
    engine.start()

    assert len(keys) == 10
    assert len(set(keys)) == 10


def test_a_key_by_name_is_the_same_in_every_pass(engine: Engine) -> None:
    keys: Log = []

    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        keys.append((step.idempotency_key("charge"), step.idempotency_key("refund")))
        step.sleep("nap", "1h")

    engine.start()
    engine.advance("1h")

    assert keys[0] == keys[1]
    assert keys[0][0] != keys[0][1]


def test_a_function_without_the_parameter_fails_as_any_wrong_call(engine: Engine) -> None:
    @engine.function(retries=0)
    def fn(event: durable.Event, step: durable.Step) -> None:
        step.options(idempotency_key="key").run("charge", str.upper, "a")

    assert "takes no keyword arguments" in failure_of(engine.start()).message


# Options


def test_options_are_those_of_one_step(engine: Engine) -> None:
    log: Log = []

    def fail(name: str) -> None:
        log.append(name)
        raise ValueError(name)

    @engine.function(retries=1, backoff=0)
    def fn(event: durable.Event, step: durable.Step) -> None:
        for name, chosen in [("many", step.options(retries=3)), ("none", step.options(retries=0)), ("usual", step)]:
            with contextlib.suppress(durable.StepError):
                chosen.run(name, fail, name)

    engine.start()
    for _ in range(4):
        engine.advance("1s")

    assert [log.count(name) for name in ("many", "none", "usual")] == [4, 1, 2]


def test_a_step_has_a_back_off_of_its_own(engine: Engine) -> None:
    @engine.function(retries=1, backoff=0)
    def fn(event: durable.Event, step: durable.Step) -> int:
        tried = step.run("first", len, "")
        return step.options(backoff="1h").run("work", int, "no" if not log else "7") + tried

    log: Log = []
    assert engine.start().waiting_kind == "retry"
    log.append("mended")

    assert engine.advance("59m").status == "waiting"
    assert value_of(engine.advance("2m")) == 7


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"retries": -1}, "retries must be a whole number, 0 or more"),
        ({"retries": True}, "retries must be a whole number"),
        ({"retries": 1.5}, "retries must be a whole number"),
        ({"timeout": 0}, "timeout must be longer than nothing, not 0"),
        ({"timeout": "soon"}, "soon"),
        ({"backoff": object()}, "backoff"),
        ({"idempotency_key": "no name"}, "must be the name of a parameter"),
    ],
)
def test_options_that_cannot_work_fail_the_run_and_name_the_line(
    engine: Engine, options: dict[str, Any], said: str
) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        step.options(**options).run("a", str.upper, "a")

    error = failure_of(engine.start())

    assert said in error.message
    assert f"{__file__}:" in error.message
    assert engine.run().attempt == 0


# The logger


def test_a_line_is_written_once_though_the_handler_runs_again(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        step.logger.info("began with %s", event.data["n"])
        step.sleep("nap", "1h")
        step.logger.info("went on")
        step.sleep("again", "1h")

    with caplog.at_level(logging.INFO, "django_durable.runs"):
        engine.start({"n": 7})
        engine.advance("1h")
        engine.advance("1h")

    assert [record.getMessage() for record in caplog.records] == ["began with 7", "went on"]


def test_a_line_says_of_which_run_it_is(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        step.logger.warning("low", extra={"order": 7})

    with caplog.at_level(logging.INFO, "django_durable.runs"):
        run = engine.start()

    [record] = caplog.records
    assert vars(record).items() >= {"run_id": str(run.pk), "function": run.function_id, "order": 7}.items()


def test_a_line_below_the_level_is_not_written(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        step.logger.debug("quiet")

    with caplog.at_level(logging.INFO, "django_durable.runs"):
        engine.start()

    assert caplog.records == []


# Waits for one of several events


@pytest.mark.parametrize("came", ["test/paid", "test/cancelled", "app/any"])
def test_the_first_of_several_events_counts(engine: Engine, came: str) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> Any:
        first = step.wait_for_event("first", ["test/paid", "test/cancelled", "app/*"], timeout="1h")
        return first and first.name

    engine.start()
    engine.settle()
    assert Wait.objects.count() == 3

    durable.send_event(came)

    assert value_of(engine.run()) == came
    assert not Wait.objects.exists()


def test_a_wait_for_several_events_times_out_once(engine: Engine) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> Any:
        return step.wait_for_event("first", ["test/paid", "test/cancelled"], timeout="1h")

    engine.start()

    assert value_of(engine.advance("61m")) is None
    assert not Wait.objects.exists()


def test_of_several_events_that_came_before_the_earliest_counts(engine: Engine) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> Any:
        step.sleep("nap", "1h")
        first = step.wait_for_event("first", ["test/b", "test/a"], timeout="1h", match="data.n")
        return first and first.name

    engine.start({"n": 7})
    for name, number in [("test/b", 8), ("test/a", 7), ("test/b", 7)]:
        durable.send_event(name, {"n": number})

    assert value_of(engine.advance("1h")) == "test/a"


def test_a_name_given_twice_is_waited_for_once(engine: Engine) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        step.wait_for_event("first", ["test/a", "test/a"], timeout="1h")

    engine.start()

    assert Wait.objects.count() == 1


@pytest.mark.parametrize("events", [[], (), ["test/a", ""], ["test/a", 7], 7, None])
def test_a_list_that_names_no_events_fails_the_run(engine: Engine, events: Any) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        step.wait_for_event("first", events, timeout="1h")

    assert engine.start().status == "failed"
    assert not Wait.objects.exists()


# Decorators


def test_a_decorated_function_runs_at_once_and_its_name_holds_the_value(engine: Engine) -> None:
    log: Log = []

    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> int:
        @step.run("total")
        def total() -> int:
            log.append("added up")
            return sum(event.data["prices"])

        step.sleep("nap", "1h")
        return total + 1

    engine.start({"prices": [1, 2]})

    assert value_of(engine.advance("1h")) == 4
    assert log == ["added up"]


LOG: Log = []


@durable.step
def send_invoice(order: int, *, copy: bool = False) -> str:
    """Send it."""
    LOG.append((order, copy))
    return f"I-{order}"


@pytest.fixture
def log() -> Log:
    LOG.clear()
    return LOG


def test_a_step_function_is_a_step_where_a_handler_calls_it(engine: Engine, log: Log) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> str:
        number = send_invoice(7, copy=True)
        step.sleep("nap", "1h")
        return number

    engine.start()

    assert value_of(engine.advance("1h")) == "I-7"
    assert log == [(7, True)]
    assert engine.step("send-invoice").kind == "run"


def test_a_step_function_is_a_plain_call_elsewhere(log: Log) -> None:
    assert send_invoice(7) == "I-7"
    assert (send_invoice.__name__, send_invoice.__doc__) == ("send_invoice", "Send it.")


def test_a_step_function_is_a_plain_call_inside_another_step(engine: Engine, log: Log) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> str:
        return step.run("outer", lambda: send_invoice(7))

    assert value_of(engine.start()) == "I-7"
    assert [*Step.objects.values_list("name", flat=True)] == ["outer"]


def test_a_step_function_is_a_step_in_a_branch(engine: Engine, log: Log) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> Any:
        return step.parallel(lambda: send_invoice(1), lambda: send_invoice(2))

    assert value_of(engine.start()) == ("I-1", "I-2")
    assert Step.objects.filter(name="send-invoice").exclude(branch="").count() == 2


def test_a_step_function_is_tried_again_as_every_step(engine: Engine) -> None:
    tries: Log = []

    @durable.step
    def flaky() -> int:
        tries.append(1)
        return 7 // (len(tries) - 1)

    @engine.function(backoff=0)
    def fn(event: durable.Event, step: durable.Step) -> int:
        return flaky()

    engine.start()
    engine.settle()

    assert value_of(engine.run()) == 7
    assert engine.step("flaky").attempt == 1


@pytest.mark.parametrize("given", ["send-invoice", None, int, ()])
def test_what_is_no_function_cannot_be_a_step(given: Any) -> None:
    with pytest.raises(durable.ConfigurationError, match=r"Write @durable\.step, without"):
        durable.step(given)
