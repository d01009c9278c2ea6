"""Input that can never work: a clear error that names what, where and the remedy, and nothing half-written."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from django.db import transaction
from django.test import override_settings

import django_durable as durable
from django_durable.core.functions import registry
from django_durable.models import Event, EventId, Run, Step, StepAttempt, Wait
from tests.engine.conftest import Engine, failure_of
from tests.testapp.models import Author

WEST = timezone(timedelta(hours=-1))


@dataclass
class Quote:
    price: int


def nothing() -> None:
    """Do nothing."""


async def asynchronous() -> None:
    """Do nothing."""


def line_of(function: Callable[..., object], marker: str = "step") -> str:
    """Return file and line of the line of *function* that ends in ``# <- marker``."""
    lines, start = inspect.getsourcelines(function)
    return f"{__file__}:{start + next(index for index, line in enumerate(lines) if f'# <- {marker}' in line)}"


# Functions that cannot be made


def handler(event: Any, step: Any) -> None:
    """Do nothing."""


async def async_generator_handler(event: Any, step: Any) -> Any:
    yield


def generator_handler(event: Any, step: Any) -> Any:
    yield


def short_handler(event: Any) -> None:
    """Do nothing."""


def long_handler(event: Any, step: Any, more: Any = None) -> None:
    """Do nothing."""


@pytest.mark.parametrize(
    ("options", "wrong", "said"),
    [
        ({"retires": 3}, handler, "has no option 'retires'; did you mean 'retries'?"),
        ({"colour": 3}, handler, "has no option 'colour'; the options are id, trigger"),
        ({"id": "Not A Slug"}, handler, "The durable function 'Not A Slug' ("),
        ({"id": "a/b/c"}, handler, "write 'slug' or 'app/slug'"),
        ({"retries": -1}, handler, "retries must be a whole number, 0 or more, not -1"),
        ({"backoff": "soon"}, handler, "backoff: Cannot read 'soon' as a duration"),
        ({"backoff": []}, handler, "backoff must be a duration, a list of durations"),
        ({"retry_on": "ValueError"}, handler, "retry_on must be a class of exceptions such as ConnectionError"),
        ({"no_retry_on": 7}, handler, "no_retry_on must be a class of exceptions such as ConnectionError"),
        ({"queue": ""}, handler, "must be the name of a queue"),
        ({"checkpoint": "no"}, handler, "checkpoint must be True or False, not 'no'"),
        ({"on_code_change": "stop"}, handler, "on_code_change must be one of 'continue', 'pin', 'fail', not 'stop'"),
        ({"on_code_change": ["pin"]}, handler, "must be one of 'continue', 'pin', 'fail'"),
        ({"trigger": 7}, handler, "trigger must be an event's name, On(...)"),
        ({"trigger": ""}, handler, "The trigger '' cannot be used. An event's name must be text"),
        ({"trigger": "app/u*"}, handler, "The wildcard in 'app/u*' cannot be used"),
        ({"trigger": "app/\n"}, handler, "use printable text"),
        ({"on_failure": 7}, handler, "decorates a function, not 7"),
        ({"on_cancel": 7}, handler, "decorates a function, not 7"),
        ({"on_complete": 7}, handler, "decorates a function, not 7"),
        ({"on_failure": generator_handler}, handler, "contains 'yield'; a handler calls steps and returns"),
        ({"on_failure": async_generator_handler}, handler, "contains 'yield'; a handler calls steps and returns"),
        ({}, async_generator_handler, "contains 'yield'; a handler calls steps and returns"),
        ({}, generator_handler, "contains 'yield'; a handler calls steps and returns"),
        ({}, short_handler, "must take exactly two positional parameters: (event, step)"),
        ({}, long_handler, "must take exactly two positional parameters: (event, step)"),
        ({}, 7, "decorates a function, not 7"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_function_that_cannot_work_is_refused_when_it_is_made(
    engine: Engine, options: dict[str, Any], wrong: Any, said: str
) -> None:
    with pytest.raises(durable.ConfigurationError) as refused:
        durable.function(**options)(wrong)

    assert said in str(refused.value)
    assert [id for id in registry._functions if "on_failure" in id] == []


@pytest.mark.parametrize(
    ("if_", "said"),
    [
        ("event.data.total >", "does not compile at line 1, column 19"),
        ("async.data.id == 1", "the variables are event"),
        ("1 + 1", "it gives int, not true or false"),
    ],
)
def test_a_bad_condition_of_a_trigger_is_refused_with_its_position(if_: str, said: str) -> None:
    with pytest.raises(durable.ConfigurationError) as refused:
        durable.On("app/paid", if_=if_)

    assert "The trigger 'app/paid' cannot be used" in str(refused.value)
    assert said in str(refused.value)


def test_two_functions_of_one_id_are_refused_with_both_places(engine: Engine) -> None:
    durable.function("same")(handler)

    with pytest.raises(durable.ConfigurationError) as refused:
        durable.function("same")(short_of(handler))

    assert "Two durable functions have the id 'project/same'" in str(refused.value)
    assert str(refused.value).count(f"{__file__}:") == 2


def short_of(other: Any) -> Any:
    def another(event: Any, step: Any) -> None:
        other(event, step)

    return another


# Events that cannot be sent


@pytest.mark.parametrize(
    ("event", "error", "said"),
    [
        ({"name": "durable/mine"}, durable.InvalidEvent, "is reserved: names with 'durable/'"),
        ({"name": "app/*"}, durable.InvalidEvent, "wildcards listen, they are not sent"),
        ({"name": ""}, durable.InvalidEvent, "must be text such as 'app/user.created', not ''"),
        ({"name": None}, durable.InvalidEvent, "must be text such as 'app/user.created', not None"),
        ({"name": "x" * 256}, durable.InvalidEvent, "has 256 characters; the limit is 255"),
        ({"name": "a\nb"}, durable.InvalidEvent, r"holds the character '\n'"),
        ({"name": "a\0b"}, durable.InvalidEvent, r"holds the character '\x00'"),
        ({"data": [1]}, durable.InvalidEvent, "data: an event's data is a dictionary, not list"),
        ({"data": "text"}, durable.InvalidEvent, "data: an event's data is a dictionary, not str"),
        ({"data": {1: 2}}, durable.InvalidEvent, "the keys of an event's data are text, not 1"),
        ({"data": {"a": [nothing]}}, durable.EncodingError, 'data["a"][0]: a value of type function'),
        ({"data": {"a": float("nan")}}, durable.EncodingError, 'data["a"]'),
        ({"data": {"a": "\0"}}, durable.EncodingError, 'data["a"]: the text holds a NUL character. Remove it'),
        ({"data": {"a": "\ud800"}}, durable.EncodingError, 'data["a"]: the text holds half of a surrogate pair'),
        ({"data": {"a": "x" * 600_000}}, durable.PayloadTooLarge, "data: 600,008 bytes of JSON exceed the limit"),
        ({"user": 7}, durable.InvalidEvent, "user: an event's data is a dictionary, not int"),
        ({"user": {"a": "x" * 600_000}}, durable.PayloadTooLarge, "user: 600,008 bytes of JSON exceed the limit"),
        ({"id": ""}, durable.InvalidEvent, "app/a: id is text of 1 to 1,000 characters, not ''"),
        ({"id": "x" * 1_001}, durable.InvalidEvent, "id is text of 1 to 1,000 characters"),
        ({"id": 7}, durable.InvalidEvent, "id is text of 1 to 1,000 characters, not 7"),
        ({"ts": datetime(2030, 1, 1)}, durable.InvalidEvent, "app/a: ts is an aware datetime, not"),
        ({"ts": "2030-01-01"}, durable.InvalidEvent, "ts is an aware datetime, not '2030-01-01'"),
        ({"id": "\ud800"}, durable.InvalidEvent, "id is text of 1 to 1,000 characters"),
        ({"v": "\ud800"}, durable.InvalidEvent, "v is text of 1 to 100 characters"),
        ({"ts": datetime.max.replace(tzinfo=WEST)}, durable.InvalidEvent, "ts lies outside the years 1 to 9999"),
        ({"v": 2}, durable.InvalidEvent, "app/a: v is text of 1 to 100 characters, not 2"),
    ],
    ids=lambda value: ascii(value)[:40] if isinstance(value, dict) else "",
)
def test_an_event_that_cannot_be_sent_is_refused_and_nothing_is_stored(
    engine: Engine, event: dict[str, Any], error: type[Exception], said: str
) -> None:
    wrong = durable.Event(**{"name": "app/a", **event})

    with pytest.raises(error) as refused:
        durable.send_events([durable.Event("app/fine", id="1"), wrong])

    assert said in str(refused.value)
    assert not Event.objects.exists()
    assert not EventId.objects.exists()


@pytest.mark.parametrize("wrong", [7, None, {"name": "app/a"}, ["app/a"]])
def test_something_that_is_no_event_is_refused(engine: Engine, wrong: Any) -> None:
    with pytest.raises(durable.InvalidEvent, match=r'is not an event. Write Event\("app/name"'):
        durable.send_event(wrong)
    with pytest.raises(durable.InvalidEvent, match="is not an event"):
        durable.send_events([durable.Event("app/fine"), wrong])

    assert not Event.objects.exists()


# Step calls that can never work: the run fails at once


def bad_id(step: durable.Step) -> None:
    step.run("", nothing)  # <- step


def long_id(step: durable.Step) -> None:
    step.run("x" * 256, nothing)  # <- step


def id_with_nul(step: durable.Step) -> None:
    step.run("a\0b", nothing)  # <- step


def id_with_half_a_surrogate(step: durable.Step) -> None:
    step.run("\ud800", nothing)  # <- step


def id_that_is_no_text(step: durable.Step) -> None:
    step.run(7, nothing)  # type: ignore[arg-type]  # <- step


def no_function(step: durable.Step) -> None:
    step.run("bad", "nothing")  # type: ignore[arg-type]  # <- step


def called_function(step: durable.Step) -> None:
    step.atomic("bad", nothing())  # type: ignore[arg-type,func-returns-value]  # <- step


def async_function(step: durable.Step) -> None:
    step.atomic("bad", asynchronous)  # <- step


def bad_duration(step: durable.Step) -> None:
    step.sleep("bad", "soon")  # <- step


def number_without_a_unit(step: durable.Step) -> None:
    step.sleep("bad", "10")  # <- step


def months(step: durable.Step) -> None:
    step.sleep("bad", "1 month")  # <- step


def more_than_ten_years(step: durable.Step) -> None:
    step.sleep("bad", timedelta(days=3654))  # <- step


def unreadable_date(step: durable.Step) -> None:
    step.sleep_until("bad", "tomorrow")  # <- step


def bad_pattern(step: durable.Step) -> None:
    step.wait_for_event("bad", "app/a*", timeout="1h")  # <- step


def bad_timeout(step: durable.Step) -> None:
    step.wait_for_event("bad", "app/a", timeout="later")  # <- step


def bad_expression(step: durable.Step) -> None:
    step.wait_for_event("bad", "app/a", timeout="1h", if_="async.data.n >")  # <- step


def bad_path(step: durable.Step) -> None:
    step.wait_for_event("bad", "app/a", timeout="1h", match="data..id")  # <- step


def path_that_starts_nowhere(step: durable.Step) -> None:
    step.wait_for_event("bad", "app/a", timeout="1h", match="user_id")  # <- step


def path_that_the_trigger_lacks(step: durable.Step) -> None:
    step.wait_for_event("bad", "app/a", timeout="1h", match="data.user.id")  # <- step


def bad_lookback(step: durable.Step) -> None:
    step.wait_for_event("bad", "app/a", timeout="1h", lookback="since:nowhere")  # <- step


def no_durable_function(step: durable.Step) -> None:
    step.invoke("bad", nothing)  # type: ignore[call-overload]  # <- step


def bad_invoke_timeout(step: durable.Step) -> None:
    step.invoke("bad", "child", timeout="later")  # <- step


def data_that_cannot_be_stored(step: durable.Step) -> None:
    step.invoke("bad", "child", {"f": nothing})  # <- step


def event_that_is_none(step: durable.Step) -> None:
    step.send_event("bad", "app/a")  # type: ignore[arg-type]  # <- step


def reserved_event(step: durable.Step) -> None:
    step.send_event("bad", durable.Event("app/fine"), durable.Event("durable/mine"))  # <- step


def event_with_bad_data(step: durable.Step) -> None:
    step.send_event("bad", durable.Event("app/fine"), durable.Event("app/a", {"n": nothing}))  # <- step


def event_with_a_bad_time(step: durable.Step) -> None:
    step.send_event("bad", durable.Event("app/a", ts=datetime(2030, 1, 1)))  # <- step


def step_in_a_step(step: durable.Step) -> None:
    step.run("outer", lambda: step.run("bad", nothing))  # <- step


def step_in_a_step_that_catches_everything(step: durable.Step) -> None:
    def body() -> None:
        with suppress(BaseException):
            step.sleep("bad", "1h")  # <- step

    step.run("outer", body)


def step_in_a_transaction(step: durable.Step) -> None:
    with transaction.atomic():
        Author.objects.create(name="Ada")
        step.run("bad", nothing)  # <- step


def sleep_in_a_transaction(step: durable.Step) -> None:
    with transaction.atomic():
        Author.objects.create(name="Ada")
        step.sleep("bad", "1h")  # <- step


def step_in_a_manual_transaction(step: durable.Step) -> None:
    transaction.set_autocommit(False)
    Author.objects.create(name="Ada")
    step.run("bad", nothing)  # <- step


CALLS = [
    (bad_id, "InvalidStep", "a step's id is text of 1 to 255 characters, not ''"),
    (long_id, "InvalidStep", "a step's id is text of 1 to 255 characters"),
    (id_with_nul, "InvalidStep", "a step's id is text of 1 to 255 characters"),
    (id_with_half_a_surrogate, "InvalidStep", "a step's id is text of 1 to 255 characters"),
    (id_that_is_no_text, "InvalidStep", "a step's id is text of 1 to 255 characters, not 7"),
    (no_function, "InvalidStep", "needs a function to run, not 'nothing'. Pass the function itself"),
    (called_function, "InvalidStep", "needs a function to run, not None. Pass the function itself"),
    (async_function, "InvalidStep", "asynchronous() is async, and a transaction needs plain code. Use step.run"),
    (bad_duration, "InvalidStep", "Cannot read 'soon' as a duration"),
    (number_without_a_unit, "InvalidStep", "a number needs a unit"),
    (months, "InvalidStep", "months and years have no fixed length"),
    (more_than_ten_years, "InvalidStep", "the longest wait is 10 years"),
    (unreadable_date, "InvalidStep", "as a moment. Accepted: a datetime, a date, or ISO text"),
    (bad_pattern, "InvalidStep", "The wildcard in 'app/a*' cannot be used"),
    (bad_timeout, "InvalidStep", "Cannot read 'later' as a duration"),
    (bad_expression, "InvalidStep", "'async.data.n >' does not compile at line 1, column 15"),
    (bad_path, "InvalidStep", "The path 'data..id' cannot be read"),
    (path_that_starts_nowhere, "InvalidStep", "user_id"),
    (path_that_the_trigger_lacks, "InvalidStep", "The event 'test/start' that started the run has no 'data.user.id'"),
    (bad_lookback, "InvalidStep", "lookback='since:nowhere' names no step that has finished"),
    (no_durable_function, "InvalidStep", "invokes a durable function or its id, not <function nothing"),
    (bad_invoke_timeout, "InvalidStep", "Cannot read 'later' as a duration"),
    (data_that_cannot_be_stored, "InvalidStep", 'data["f"]: a value of type function cannot be stored'),
    (event_that_is_none, "InvalidStep", "send_event takes Event objects, not 'app/a'"),
    (reserved_event, "InvalidStep", "is reserved"),
    (event_with_bad_data, "InvalidStep", 'data["n"]: a value of type function cannot be stored'),
    (event_with_a_bad_time, "InvalidStep", "app/a: ts is an aware datetime"),
    (step_in_a_step, "NestedStep", "called inside the body of step 'outer'"),
    (step_in_a_step_that_catches_everything, "NestedStep", "called inside the body of step 'outer'"),
    (step_in_a_transaction, "StepInTransaction", "inside a transaction that the handler opened"),
    (sleep_in_a_transaction, "StepInTransaction", "inside a transaction that the handler opened"),
    (step_in_a_manual_transaction, "StepInTransaction", "inside a transaction that the handler opened"),
]


@pytest.mark.parametrize("catches", [False, True], ids=["plain", "caught"])
@pytest.mark.parametrize(("call", "cls", "said"), CALLS, ids=[call.__name__ for call, *_ in CALLS])
def test_a_step_that_can_never_work_fails_the_run_at_once_and_writes_nothing(
    engine: Engine, call: Callable[[durable.Step], None], cls: str, said: str, catches: bool
) -> None:
    passes = []

    @durable.function("child")
    def child(event: durable.Event, step: durable.Step) -> None:
        """Do nothing."""

    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        passes.append(1)
        try:
            call(step)
        except Exception:
            assert catches, "an ordinary except clause must not see it"
        step.run("after", pytest.fail, "went on")

    run = engine.start()
    engine.advance("1d")

    assert (run.status, run.attempt, len(passes)) == ("failed", 0, 1)
    error = failure_of(run)
    assert error.type == f"django_durable.exceptions.{cls}"
    assert said in error.message
    assert f"({line_of(call)})" in error.message
    assert (Run.objects.count(), Event.objects.count(), Author.objects.count()) == (1, 1, 0)
    assert not Step.objects.exists()
    assert not StepAttempt.objects.exists()
    assert not Wait.objects.exists()


def test_a_trigger_without_the_path_is_named_with_the_path(engine: Engine) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        step.wait_for_event("reply", "app/reply", timeout="1h", match="data.order.id")

    message = failure_of(engine.start({"order": {}})).message

    assert "'reply'" in message
    assert "'test/start'" in message
    assert "'data.order.id'" in message


# Kinds and limits


def test_a_step_that_changed_its_kind_fails_the_run_with_both_kinds(engine: Engine) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        step.run("pause", nothing)
        step.sleep("nap", "1h")

    engine.start()
    registry._functions.clear()

    @engine.function("fn")
    def changed(event: durable.Event, step: durable.Step) -> None:
        step.sleep("pause", "1h")  # <- step

    run = engine.advance("1h")

    error = failure_of(run)
    assert error.type == "django_durable.exceptions.StepKindMismatch"
    assert "recorded as step.run and now called as step.sleep" in error.message
    assert line_of(changed.handler) in error.message


@pytest.mark.parametrize(
    ("one", "limit", "recorded"),
    [
        (lambda step, calls: step.run("a", calls.append, 1), 3, 3),
        (lambda step, calls: step.atomic("a", calls.append, 1), 1, 1),
        (lambda step, calls: step.sleep("a", 0) or calls.append(1), 3, 3),
        (lambda step, calls: step.sleep("a", "1h") or calls.append(1), 2, 2),
        (lambda step, calls: step.send_event("a", durable.Event("app/a")) and calls.append(1), 2, 2),
        (lambda step, calls: step.wait_for_event("a", "app/early", timeout="1h") and calls.append(1), 2, 2),
        (lambda step, calls: step.run("a", calls.append, 1), 0, 0),
    ],
    ids=["run", "atomic", "no sleep", "sleep", "send", "look back", "none at all"],
)
def test_one_step_too_many_fails_the_run_before_its_body_runs(
    engine: Engine, one: Callable[[durable.Step, list[int]], object], limit: int, recorded: int
) -> None:
    calls: list[int] = []

    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        calls.clear()
        for _ in range(10):
            one(step, calls)

    with override_settings(DURABLE={"DRIVER": "inline", "MAX_STEPS": limit}):
        with transaction.atomic():
            durable.send_event("test/start")
            durable.send_events([durable.Event("app/early")] * 5)
        for _ in range(limit):
            engine.advance("1h")

    run = engine.run()
    error = failure_of(run)
    assert error.type == "django_durable.exceptions.TooManySteps"
    assert f"the run has {limit} steps already, the limit" in error.message
    assert Step.objects.count() == run.steps == recorded
    assert len(calls) <= limit


@pytest.mark.parametrize("kind", ["map", "parallel"])
def test_a_group_wider_than_a_run_may_have_steps_fails_the_run_before_any_branch(engine: Engine, kind: str) -> None:
    calls: list[int] = []

    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        if kind == "map":
            step.map("wide", calls.append, range(20))
        else:
            step.parallel(*[lambda: step.run("one", calls.append, 1)] * 20)

    with override_settings(DURABLE={"DRIVER": "inline", "MAX_STEPS": 20}):
        run = engine.start()

    assert failure_of(run).type == "django_durable.exceptions.TooManySteps"
    assert (calls, Step.objects.count()) == ([], 0)


def test_a_value_too_large_for_an_invocation_starts_no_child(engine: Engine) -> None:
    @durable.function("child")
    def child(event: durable.Event, step: durable.Step) -> None:
        """Do nothing."""

    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        step.invoke("call", child, {"text": "x" * 1_000})

    with override_settings(DURABLE={"DRIVER": "inline", "MAX_PAYLOAD": 1_000}):
        run = engine.start()

    assert run.status == "failed"
    assert "data: 1,011 bytes of JSON exceed the limit of 1,000" in failure_of(run).message
    assert Run.objects.count() == 1


def test_an_object_whose_class_nobody_names_fails_its_step_at_once_and_is_not_recorded(engine: Engine) -> None:
    calls = []

    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> Any:
        try:
            return step.run("quote", lambda: [{"of": Quote(calls.append(1))}])
        except durable.StepError as error:
            return error.message

    run = engine.start()

    assert (run.status, len(calls)) == ("completed", 1)
    assert f'result[0][\\"of\\"]: a value of class {__name__}.Quote cannot be read back' in run.output
    assert "Name the class in the return annotation of the step's function, or call register_type on it" in run.output
    assert (engine.step("quote").status, engine.step("quote").output) == ("failed", None)


@pytest.mark.parametrize(("limit", "bodies"), [(0, 1), (100, 1), (101, 1), (102, 2), (203, 2), (204, 3), (1_000, 3)])
def test_a_run_that_has_recorded_too_much_fails_before_the_next_body_runs(
    engine: Engine, limit: int, bodies: int
) -> None:
    ran: list[int] = []

    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        for number in range(3):
            step.run("large", lambda number=number: ran.append(number) or "x" * 100)
            step.sleep("nap", "1h" if number == 1 else 0)

    with override_settings(DURABLE={"DRIVER": "inline", "MAX_RUN": limit}):
        engine.start()
        run = engine.advance("1h")

    assert len(ran) == bodies
    assert run.status == ("completed" if limit == 1_000 else "failed")


def test_the_error_of_a_run_that_recorded_too_much_names_sizes_and_setting(engine: Engine) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        step.run("large", lambda: "x" * 100)
        step.run("next", lambda: None)  # <- step

    with override_settings(DURABLE={"DRIVER": "inline", "MAX_RUN": 50}):
        run = engine.start()

    error = failure_of(run)
    assert error.type == "django_durable.exceptions.RunTooLarge"
    assert f"Step 'next' ({line_of(fn.handler)})" in error.message
    assert "has recorded 102 bytes of values and errors, more than the limit of 50" in error.message
    assert 'DURABLE["MAX_RUN"]' in error.message


def test_errors_of_steps_count_among_what_a_run_records(engine: Engine) -> None:
    def fail() -> None:
        raise durable.NonRetriable("x" * 1_000)

    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        with suppress(durable.StepError):
            step.run("fail", fail)
        step.run("next", lambda: None)

    with override_settings(DURABLE={"DRIVER": "inline", "MAX_RUN": 1_000}):
        run = engine.start()

    assert failure_of(run).type == "django_durable.exceptions.RunTooLarge"


def test_a_branch_that_has_recorded_too_much_fails_the_run(engine: Engine) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        def branch() -> None:
            step.run("large", lambda: "x" * 100)
            step.sleep("nap", "1h")
            step.run("next", lambda: None)

        step.parallel(branch)

    with override_settings(DURABLE={"DRIVER": "inline", "MAX_RUN": 50}):
        engine.start()
        run = engine.advance("1h")

    assert failure_of(run).type == "django_durable.exceptions.RunTooLarge"


@dataclass
class Unnamed:
    """A class that no annotation names."""


def test_an_object_in_a_branch_that_no_annotation_names_fails_before_it_is_recorded(engine: Engine) -> None:
    objects = [Unnamed()]

    def of_no_class(item: int) -> Any:
        return objects[item]

    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> str:
        try:
            step.map("objects", of_no_class, [0])
        except durable.StepError as error:
            return error.message
        return ""

    run = engine.start()

    assert run.status == "completed"
    assert f"result: a value of class {__name__}.Unnamed cannot be read back" in run.output
