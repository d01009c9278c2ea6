from __future__ import annotations

import functools
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import product
from typing import TYPE_CHECKING, Any

import pytest

from django_durable.core.events.conditions import match_rule
from django_durable.core.events.events import Event
from django_durable.core.replay.operations import (
    AtomicStep,
    CallSite,
    Invoke,
    Memo,
    RunStep,
    SendEvents,
    Sleep,
    StepKind,
    StepRef,
    StepStatus,
    WaitForEvent,
    recorded_error,
    return_annotation,
    step_key,
    whose_error,
)
from django_durable.core.values import encoding
from django_durable.core.values.errors import encode_error
from django_durable.exceptions import InvokeError, InvokeTimeout, StepError

if TYPE_CHECKING:
    from nowhere import Missing  # type: ignore[import-not-found]

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
REF = StepRef("charge", 0, b"key", CallSite("shop.py", 7))


@dataclass
class Quote:
    price: Decimal


class CardError(ValueError):
    pass


def quote() -> Quote:
    return Quote(Decimal(1))


def memo(status: StepStatus = StepStatus.COMPLETED, kind: StepKind = StepKind.RUN, **values: Any) -> Memo:
    return Memo(b"key", "charge", kind, status, **values)


def failed(error: BaseException, **values: Any) -> Memo:
    return memo(StepStatus.FAILED, error=encode_error(error), **values)


# Keys


def test_branch_name_and_ordinal_make_different_keys() -> None:
    keys = {step_key(*parts) for parts in product(["", "a", "a\0b"], ["a", "b", "ab"], [0, 1, 10])}

    assert len(keys) == 27


def test_a_key_is_the_same_in_every_process() -> None:
    assert step_key("", "send-welcome-email", 0).hex() == "660e3cc21960029f098d3a960688c54c"


def test_a_key_has_sixteen_bytes_whatever_the_name() -> None:
    assert {len(step_key("", name, 0)) for name in ("a", "x" * 1_000, "\ud800", "日本")} == {16}


def test_a_line_of_code_is_shown_as_file_and_number() -> None:
    assert str(REF.where) == "shop.py:7"


# Memos


@pytest.mark.parametrize(
    ("status", "settled"),
    [("planned", False), ("running", False), ("waiting", False), ("completed", True), ("failed", True)],
)
def test_a_step_is_settled_once_it_completed_or_failed(status: str, settled: bool) -> None:
    assert memo(StepStatus(status)).settled is settled


# Results


@pytest.mark.parametrize(("make", "kind"), [(RunStep, "run"), (AtomicStep, "atomic")])
def test_a_step_in_a_transaction_is_a_kind_of_its_own(make: type[RunStep], kind: str) -> None:
    assert make(REF, quote).kind == kind


def test_a_recorded_object_becomes_the_class_that_the_function_returns() -> None:
    recorded = memo(output=encoding.encode(Quote(Decimal("9.90"))))

    assert RunStep(REF, quote).result(recorded) == Quote(Decimal("9.90"))


def test_a_memo_without_output_is_none() -> None:
    assert RunStep(REF, quote).result(memo()) is None
    assert Invoke(REF, "shop/quote", "{}").result(memo(kind=StepKind.INVOKE)) is None
    assert SendEvents(REF, ()).result(memo(kind=StepKind.SEND)) == []


def test_a_sleep_ends_after_its_duration_or_at_its_moment() -> None:
    assert Sleep(REF, duration=timedelta(hours=1)).until_from(NOW) == NOW + timedelta(hours=1)
    assert Sleep(REF, until=NOW).until_from(NOW - timedelta(days=1)) == NOW


@pytest.mark.parametrize("off_by", [timedelta(), timedelta(microseconds=400)])
def test_a_moment_that_stays_is_not_logged(off_by: timedelta, caplog: pytest.LogCaptureFixture) -> None:
    Sleep(REF, until=NOW + off_by).result(memo(next_at=NOW))

    assert caplog.records == []


def test_a_moment_that_moved_is_logged_with_the_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        Sleep(REF, until=NOW + timedelta(hours=1)).result(memo(next_at=NOW))

    assert "sleep_until 'charge' (shop.py:7)" in caplog.text
    assert "the first value stays" in caplog.text


def test_a_duration_never_moves(caplog: pytest.LogCaptureFixture) -> None:
    Sleep(REF, duration=timedelta(hours=1)).result(memo(next_at=NOW))

    assert caplog.records == []


def test_a_wait_returns_its_event_or_none() -> None:
    op = WaitForEvent(REF, ("app/paid",), match_rule(None, None), timedelta(hours=1))
    event = Event("app/paid")

    assert op.result(memo(event=event)) == event
    assert op.result(memo()) is None


def test_a_childs_object_becomes_the_class_that_its_handler_returns() -> None:
    recorded = memo(kind=StepKind.INVOKE, output=encoding.encode(Quote(Decimal(2))))

    assert Invoke(REF, "shop/quote", "{}", hint=lambda: Quote).result(recorded) == Quote(Decimal(2))


# Errors


def test_a_failed_step_raises_its_recorded_error() -> None:
    recorded = failed(CardError("stolen"), attempt=5)

    with pytest.raises(StepError) as caught:
        RunStep(REF, quote).result(recorded)

    error = caught.value
    assert (error.step_id, error.type, error.message) == ("charge", f"{__name__}.CardError", "stolen")
    assert (error.attempts, error.cause) == (5, None)
    assert str(error) == f"Step 'charge' failed after 5 attempt(s): {__name__}.CardError: stolen"


@pytest.mark.parametrize(
    ("cls", "is_one"), [(CardError, True), (ValueError, True), (Exception, True), (KeyError, False)]
)
def test_a_step_error_knows_the_classes_of_the_original(cls: type[Exception], is_one: bool) -> None:
    with pytest.raises(StepError) as caught:
        RunStep(REF, quote).result(failed(CardError("stolen")))

    assert caught.value.is_a(cls) is is_one


def test_a_step_error_has_traceback_and_cause() -> None:
    try:
        try:
            raise KeyError("card")
        except KeyError as missing:
            raise CardError("no card") from missing
    except CardError as error:
        recorded = failed(error)

    with pytest.raises(StepError) as caught:
        RunStep(REF, quote).result(recorded)

    assert 'raise CardError("no card")' in caught.value.traceback
    cause = caught.value.cause
    assert isinstance(cause, StepError)
    assert (cause.type, cause.message) == ("builtins.KeyError", "'card'")


def test_every_pass_raises_an_error_of_its_own_with_the_same_content() -> None:
    recorded, errors = failed(CardError("stolen"), attempt=2), []
    for _ in range(2):
        with pytest.raises(StepError) as caught:
            RunStep(REF, quote).result(recorded)
        errors.append(caught.value)

    assert errors[0] is not errors[1]
    assert [vars(error) for error in errors[:1]] == [vars(error) for error in errors[1:]]


@pytest.mark.parametrize(
    ("child", "cls", "run_id", "status"),
    [
        ({"run_id": "7", "status": "failed"}, InvokeError, "7", "failed"),
        ({"timeout": True}, InvokeTimeout, None, None),
        ({}, InvokeError, None, None),
    ],
)
def test_a_failed_invocation_raises_what_is_known_of_the_child(
    child: dict[str, Any], cls: type[InvokeError], run_id: str | None, status: str | None
) -> None:
    recorded = failed(CardError("stolen"), kind=StepKind.INVOKE, output=json.dumps(child))

    with pytest.raises(InvokeError) as caught:
        Invoke(REF, "shop/charge", "{}").result(recorded)

    assert type(caught.value) is cls
    assert (caught.value.run_id, caught.value.status, caught.value.message) == (run_id, status, "stolen")


@pytest.mark.parametrize(
    "original",
    [
        recorded_error("charge", failed(CardError("stolen"), attempt=5)),
        recorded_error("charge", failed(CardError("stolen"), kind=StepKind.INVOKE, output='{"run_id": "7"}')),
        recorded_error("charge", failed(CardError("stolen"), kind=StepKind.INVOKE, output='{"timeout": true}')),
    ],
    ids=["step", "child", "child in vain"],
)
def test_a_branch_that_an_error_of_its_step_ended_raises_that_error(original: StepError) -> None:
    output, attempts = whose_error(original), original.attempts
    ended = failed(original, kind=StepKind.BRANCH, output=output, attempt=attempts)

    error = recorded_error("parallel 0", ended)

    assert type(error) is type(original)
    assert vars(error) == vars(original)


def test_a_branch_that_its_own_error_ended_raises_an_error_of_the_branch() -> None:
    error = recorded_error("parallel 0", failed(CardError("stolen"), kind=StepKind.BRANCH, attempt=5))

    assert (error.step_id, error.type, error.attempts) == ("parallel 0", f"{__name__}.CardError", 5)


# Annotations


class Quoter:
    def quote(self) -> Quote:
        return quote()


@functools.wraps(quote)
def wrapped() -> Any:
    return quote()


def unreadable() -> Missing:
    raise AssertionError


@pytest.mark.parametrize(
    ("fn", "annotation"),
    [
        (quote, Quote),
        (wrapped, Quote),
        (unreadable, None),
        (lambda: 1, None),
        (len, None),
        (functools.partial(unreadable), None),
        (Quoter(), None),
    ],
)
def test_the_return_annotation_is_read_where_it_can_be(fn: Callable[..., Any], annotation: object) -> None:
    assert return_annotation(fn) is annotation


@pytest.mark.parametrize("fn", [functools.partial(quote), Quoter().quote, Quote], ids=["partial", "method", "class"])
def test_partials_methods_and_classes_say_what_they_return(fn: Callable[..., Any]) -> None:
    assert return_annotation(fn) is Quote
