"""Attempts of a step's function: values, errors, retries, transactions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, NamedTuple
from uuid import UUID

import pytest
from django.db import connection, transaction
from django.test import override_settings

import django_durable as durable
from django_durable.core import clock
from django_durable.models import Step, StepAttempt
from tests.engine.conftest import Engine, failure_of, in_seconds
from tests.testapp.models import Author, Post

BOTH = pytest.mark.parametrize("kind", ["run", "atomic"])


class Colour(Enum):
    RED = "red"


@dataclass
class Quote:
    price: Decimal
    at: datetime


class Point(NamedTuple):
    x: int
    y: int


class CardError(ValueError):
    pass


def stolen(card: str = "4111") -> None:
    raise CardError(f"{card} was stolen")


def nothing() -> None:
    """Do nothing."""


# Values

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
VALUES = [
    None,
    (1, (2, "x")),
    {1, 2},
    frozenset({"a"}),
    Decimal("9.90"),
    NOON,
    date(2030, 1, 1),
    time(12),
    timedelta(hours=1),
    UUID(int=7),
    b"\0\xff",
    {1: "one", (1, 2): "pair"},
    "NUL \0 and half a surrogate \ud800",
    Quote(Decimal("9.90"), NOON),
    Point(1, 2),
    Colour.RED,
    [Quote(Decimal(1), NOON), {"deep": (Colour.RED,)}],
]


@BOTH
@pytest.mark.parametrize("value", VALUES, ids=lambda value: ascii(value)[:30])
def test_a_value_keeps_its_type_in_the_first_pass_and_in_later_ones(engine: Engine, kind: str, value: Any) -> None:
    seen = []

    def body() -> Quote | Point | Colour | list[Any]:
        return value  # type: ignore[no-any-return]

    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        seen.append(getattr(step, kind)("a", body))
        step.sleep("nap", "1h")

    engine.start()
    engine.advance("1h")

    assert seen == [value, value]
    assert [type(each) for each in seen] == [type(value)] * 2


def test_what_a_body_changes_outside_is_not_recorded_and_its_value_is_a_copy(engine: Engine) -> None:
    kept: list[list[int]] = []
    result = [1]

    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        value = step.run("a", lambda: result)
        kept.append(list(value))
        value.append(2)
        step.sleep("nap", "1h")

    engine.start()
    engine.advance("1h")

    assert kept == [[1], [1]]
    assert result == [1]


def test_arguments_are_passed_on_and_shown_shortened(engine: Engine) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> Any:
        return step.run("a", dict, [("id", 1)], template="welcome", long="x" * 500)

    run = engine.start()

    assert '"template":"welcome"' in run.output
    shown = engine.step("a").input
    assert shown.startswith("dict([('id', 1)], template='welcome', long='xxx")
    assert len(shown) < 300


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(("argument", "shown"), [(Unprintable(), "<Unprintable>"), ("\0 \ud800", "\\x00 \\ud800")])
def test_arguments_that_cannot_be_shown_do_no_harm(engine: Engine, argument: object, shown: str) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        step.run("a", lambda value: None, argument)

    assert engine.start().status == "completed"
    assert shown.strip("<>") in engine.step("a").input


def test_a_recorded_step_tells_when_it_ran_and_that_no_attempt_failed(engine: Engine) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        step.run("a", nothing)

    engine.start()

    step = engine.step("a")
    assert (step.kind, step.status, step.output, step.error, step.attempt) == ("run", "completed", "null", None, 0)
    assert step.planned_at == step.started_at
    assert step.started_at is not None
    assert step.finished_at is not None
    assert step.started_at <= step.finished_at


# Values that cannot be stored


@BOTH
@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"lines": [1, stolen]}, 'result["lines"][1]: a value of type function cannot be stored. Call it'),
        ((each for each in ()), "result: a value of type generator cannot be stored"),
        (Post, "result: a value of type"),
        ("x" * 2_000, "result: 2,002 bytes of JSON exceed the limit of 1,000. Store it elsewhere"),
    ],
    ids=["function", "generator", "class", "too large"],
)
def test_a_value_that_cannot_be_stored_fails_the_step_at_once(engine: Engine, kind: str, value: Any, said: str) -> None:
    calls = []

    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        getattr(step, kind)("a", lambda: calls.append(1) or value)

    with override_settings(DURABLE={"DRIVER": "inline", "MAX_PAYLOAD": 1_000}):
        assert engine.start().status == "failed"

    assert len(calls) == 1
    assert said in failure_of(engine.step("a")).message


# Errors


def test_a_step_is_tried_again_on_its_own_while_the_run_waits(engine: Engine) -> None:
    passes, attempts = [], []

    def body() -> str:
        attempts.append(1)
        if len(attempts) < 3:
            raise ValueError(f"number {len(attempts)}")
        return "done"

    @engine.function(backoff="10s")
    def fn(event: durable.Event, step: durable.Step) -> str:
        passes.append(step.attempt)
        return step.run("a", body)

    run = engine.start()
    assert (run.status, run.waiting_kind, run.attempt) == ("waiting", "retry", 0)
    assert run.waiting_for == "attempt 2 of 5 of a: ValueError: number 1"
    assert engine.step("a").status == "waiting"

    engine.advance("10s")
    assert engine.advance("10s").output == '"done"'
    assert passes == [0, 0, 0]
    assert (engine.step("a").attempt, engine.run().steps) == (2, 1)


def test_failed_attempts_are_kept_with_their_errors(engine: Engine) -> None:
    @engine.function(retries=1, backoff="10s")
    def fn(event: durable.Event, step: durable.Step) -> None:
        step.run("charge", stolen)

    engine.start()
    engine.advance("10s")

    kept = list(StepAttempt.objects.order_by("id"))
    assert [(each.name, each.number, each.status, each.output) for each in kept] == [
        ("charge", 1, "failed", None),
        ("charge", 2, "failed", None),
    ]
    assert {bytes(each.key or b"") for each in kept} == {engine.step("charge").key}
    assert "raise CardError" in failure_of(kept[0]).traceback
    assert all(each.owner for each in kept)


@pytest.mark.parametrize("retries", [None, 0, 1, 7])
def test_a_step_has_its_own_attempts_four_more_by_default(engine: Engine, retries: int | None) -> None:
    calls = []

    @engine.function(retries=retries, backoff="1m")
    def fn(event: durable.Event, step: durable.Step) -> None:
        step.run("a", lambda: calls.append(1) or stolen())

    engine.start()
    for _ in range(9):
        engine.advance("1m")

    assert len(calls) == 1 + (4 if retries is None else retries)
    assert engine.run().status == "failed"
    assert engine.step("a").attempt == len(calls)


def test_every_step_has_attempts_of_its_own(engine: Engine) -> None:
    calls = []

    def fails_once(name: str) -> None:
        calls.append(name)
        if calls.count(name) == 1:
            raise ValueError

    @engine.function(retries=1, backoff="1m")
    def fn(event: durable.Event, step: durable.Step) -> None:
        for name in ("a", "b", "a"):
            step.run(name, fails_once, name)

    engine.start()
    engine.advance("1m")

    assert engine.advance("1m").status == "completed"
    assert calls == ["a", "a", "b", "b", "a"]


def test_a_spent_step_raises_a_step_error_at_its_call_in_every_pass(engine: Engine) -> None:
    seen: list[durable.StepError] = []

    @engine.function(retries=1, backoff="1m")
    def fn(event: durable.Event, step: durable.Step) -> str:
        try:
            step.run("charge", stolen, card="42")
        except durable.StepError as error:
            seen.append(error)
        step.sleep("nap", "1h")
        return step.run("after", lambda: "handled")

    engine.start()
    engine.advance("1m")
    assert engine.advance("1h").output == '"handled"'

    first, second = seen
    assert (first.step_id, first.type, first.message) == ("charge", f"{__name__}.CardError", "42 was stolen")
    assert (first.attempts, first.cause) == (2, None)
    assert first.is_a(CardError)
    assert first.is_a(ValueError)
    assert not first.is_a(KeyError)
    assert 'raise CardError(f"{card} was stolen")' in first.traceback
    assert "django_durable/" not in first.traceback
    assert vars(first) == vars(second)


def test_the_cause_of_an_error_is_kept(engine: Engine) -> None:
    def body() -> None:
        try:
            stolen()
        except CardError as error:
            raise KeyError("no card") from error

    @engine.function(retries=0)
    def fn(event: durable.Event, step: durable.Step) -> Any:
        try:
            step.run("a", body)
        except durable.StepError as error:
            return error.cause and [error.cause.type, error.cause.message]

    assert engine.start().output == f'["{__name__}.CardError","4111 was stolen"]'


def test_the_same_error_can_be_handled_by_further_steps(engine: Engine) -> None:
    calls = []

    @engine.function(retries=0)
    def fn(event: durable.Event, step: durable.Step) -> None:
        try:
            step.run("charge", stolen)
        except durable.StepError:
            step.run("refund", calls.append, "refund")
            step.sleep("nap", "1h")
            step.run("tell", calls.append, "tell")

    engine.start()

    assert engine.advance("1h").status == "completed"
    assert calls == ["refund", "tell"]


def test_an_uncaught_step_error_fails_the_run_without_retries_of_the_handler(engine: Engine) -> None:
    passes = []

    @engine.function(retries=1, backoff="1m")
    def fn(event: durable.Event, step: durable.Step) -> None:
        passes.append(1)
        step.run("charge", stolen)

    engine.start()
    run = engine.advance("1m")

    assert (run.status, len(passes)) == ("failed", 2)
    error = failure_of(run)
    assert error.type == "django_durable.exceptions.StepError"
    assert error.cause is not None
    assert error.cause.message == "4111 was stolen"


def test_another_error_from_the_except_block_is_one_of_the_handler(engine: Engine) -> None:
    passes = []

    @engine.function(retries=1, backoff="1m")
    def fn(event: durable.Event, step: durable.Step) -> None:
        passes.append(1)
        try:
            step.run("charge", stolen)
        except durable.StepError as error:
            raise RuntimeError("mine") from error

    engine.start()
    run = engine.advance("1m")
    assert (run.status, run.waiting_kind, run.attempt) == ("waiting", "retry", 1)

    run = engine.advance("1m")
    assert (run.status, failure_of(run).message, len(passes)) == ("failed", "mine", 3)


class Odd(Exception):
    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    "error",
    [
        Odd(),
        ValueError("x" * 1_000_000),
        ValueError("\0\ud800"),
        ValueError(),
        ExceptionGroup("several", [KeyError(1)]),
    ],
    ids=["bad __str__", "long", "NUL", "empty", "group"],
)
@pytest.mark.parametrize("retries", [0, 1])
def test_odd_errors_are_recorded_too(engine: Engine, error: Exception, retries: int) -> None:
    def body() -> None:
        raise error

    @engine.function(retries=retries)
    def fn(event: durable.Event, step: durable.Step) -> None:
        step.run("x" * 255, body)

    run = engine.start()

    assert run.status == ("waiting" if retries else "failed")
    assert failure_of(engine.step("x" * 255)).type.endswith(type(error).__name__)


# When the next attempt is made


@pytest.mark.parametrize(
    ("backoff", "seconds"),
    [
        ("30s", [30, 30, 30]),
        (5, [5, 5, 5]),
        (["1m", "5m"], [60, 300, 300]),
        (durable.Exponential("10s", factor=3, jitter=0), [10, 30, 90]),
        (durable.Linear("1m", "30s", max="80s", jitter=0), [60, 80, 80]),
        (lambda attempt, error: timedelta(seconds=100 * attempt + len(str(error))), [103, 203, 303]),
    ],
    ids=["text", "number", "list", "exponential", "linear", "callable"],
)
def test_the_back_off_of_the_function_counts_for_each_step(engine: Engine, backoff: Any, seconds: list[int]) -> None:
    def body() -> None:
        raise ValueError("bad")

    @engine.function(backoff=backoff)
    def fn(event: durable.Event, step: durable.Step) -> None:
        step.run("a", body)

    pauses = [in_seconds(engine.start().next_at)]
    for pause in seconds[:-1]:
        pauses.append(in_seconds(engine.advance(pause).next_at))

    assert pauses == pytest.approx(seconds, abs=3)


def test_the_default_back_off_starts_with_15_seconds_more_or_less(engine: Engine) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        step.run("a", stolen)

    assert 10 <= in_seconds(engine.start().next_at) <= 18.1


@BOTH
def test_a_non_retriable_error_spends_the_step_at_once(engine: Engine, kind: str) -> None:
    def body() -> None:
        raise durable.NonRetriable("the card was stolen")

    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> Any:
        try:
            getattr(step, kind)("a", body)
        except durable.StepError as error:
            return [error.attempts, error.message, error.is_a(durable.NonRetriable)]

    assert engine.start().output == '[1,"the card was stolen",true]'


@BOTH
@pytest.mark.parametrize(
    "when",
    [600, "10m", timedelta(minutes=10), lambda: clock.now() + timedelta(minutes=10)],
    ids=["seconds", "text", "timedelta", "datetime"],
)
def test_a_step_may_choose_when_it_is_tried_again(engine: Engine, kind: str, when: Any) -> None:
    def body() -> None:
        raise durable.RetryAfter("busy", when() if callable(when) else when)

    @engine.function(retries=1)
    def fn(event: durable.Event, step: durable.Step) -> None:
        getattr(step, kind)("a", body)

    run = engine.start()
    assert in_seconds(run.next_at) == pytest.approx(600, abs=5)

    assert engine.advance("10m").status == "failed"
    assert engine.step("a").attempt == 2


# Values that come too late


def test_a_value_that_comes_after_the_run_was_cancelled_is_kept_as_discarded(engine: Engine) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        step.run("a", lambda: (durable.cancel_run(step.run_id), "too late")[1])
        pytest.fail("went on after the cancellation")

    run = engine.start()

    assert run.status == "cancelled"
    assert not Step.objects.exists()
    kept = StepAttempt.objects.get()
    assert (kept.name, kept.number, kept.status, kept.output) == ("a", 1, "discarded", '"too late"')


def test_an_error_that_comes_after_the_run_was_cancelled_changes_nothing(engine: Engine) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        step.run("a", lambda: durable.cancel_run(step.run_id) and stolen())

    assert engine.start().status == "cancelled"
    assert not Step.objects.exists()


# Bodies that leave a transaction open


def write_author(name: str) -> None:
    Author.objects.create(name=name)


def authors() -> list[str]:
    return list(Author.objects.values_list("name", flat=True))


def leave_autocommit_off() -> None:
    write_author("left")
    transaction.set_autocommit(False)
    write_author("open")


def leave_a_block_open() -> None:
    transaction.atomic().__enter__()
    write_author("open")


def leave_a_block_open_and_fail() -> None:
    leave_a_block_open()
    stolen()


def leave_autocommit_off_and_fail() -> None:
    leave_autocommit_off()
    stolen()


def leave_autocommit_off_and_call_a_step(step: durable.Step) -> None:
    leave_autocommit_off()
    step.run("inner", nothing)


@pytest.mark.parametrize("body", [leave_autocommit_off, leave_a_block_open])
def test_a_body_that_leaves_a_transaction_open_fails_its_attempt_with_the_remedy(
    engine: Engine, body: Callable[[], None]
) -> None:
    @engine.function(retries=0)
    def fn(event: durable.Event, step: durable.Step) -> None:
        step.run("a", body)

    engine.start()

    message = failure_of(engine.step("a")).message
    assert "left a transaction open; it was rolled back. Use 'with transaction.atomic()'" in message
    assert "open" not in authors()


@pytest.mark.parametrize(
    "body", [leave_autocommit_off, leave_a_block_open, leave_autocommit_off_and_fail, leave_a_block_open_and_fail]
)
@BOTH
def test_what_a_body_left_open_harms_no_later_work(engine: Engine, kind: str, body: Callable[[], None]) -> None:
    bodies = [body, nothing]

    @engine.function(backoff="1m")
    def fn(event: durable.Event, step: durable.Step) -> None:
        getattr(step, kind)("a", lambda: bodies.pop(0)())

    engine.start()
    assert connection.get_autocommit()
    assert not connection.in_atomic_block

    assert engine.advance("1m").status == "completed"
    assert "open" not in authors()


def test_a_refused_step_inside_an_open_transaction_fails_the_run_all_the_same(engine: Engine) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        step.run("a", leave_autocommit_off_and_call_a_step, step)

    run = engine.start()

    assert (run.status, connection.get_autocommit()) == ("failed", True)
    assert failure_of(run).type == "django_durable.exceptions.NestedStep"


def test_a_body_may_close_the_connection(engine: Engine) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        step.run("a", connection.close)

    assert engine.start().status == "completed"
