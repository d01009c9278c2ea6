from __future__ import annotations

import dataclasses
import math
import random
from dataclasses import FrozenInstanceError
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from django_durable.core.durations import LONGEST
from django_durable.core.retries import DEFAULT_BACKOFF, Exponential, Linear, RetryPolicy, make_backoff
from django_durable.exceptions import (
    ConfigurationError,
    EncodingError,
    NestedStep,
    NonRetriable,
    RetryAfter,
)

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
OOPS = ValueError("oops")


@pytest.fixture
def _middle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jitter neither shortens nor lengthens."""
    monkeypatch.setattr(random, "random", lambda: 0.5)


def delays(backoff: Any, count: int) -> list[float]:
    return [backoff(attempt, OOPS).total_seconds() for attempt in range(1, count + 1)]


@pytest.mark.usefixtures("_middle")
def test_the_default_delays() -> None:
    minutes = [0.25, 0.5, 1, 2, 5, 10, 20, 40, 60, 120, 120, 120]
    assert delays(DEFAULT_BACKOFF, 12) == [60 * m for m in minutes]


@pytest.mark.usefixtures("_middle")
def test_exponential_delays_grow_up_to_the_longest() -> None:
    assert delays(Exponential("10s", 3, "2m"), 4) == [10, 30, 90, 120]
    assert delays(Exponential(1), 4) == [1, 2, 4, 8]


@pytest.mark.usefixtures("_middle")
def test_linear_delays_grow_up_to_the_longest() -> None:
    assert delays(Linear("1m", "30s", max="2m"), 4) == [60, 90, 120, 120]


def test_the_millionth_attempt_waits_ten_years_at_most() -> None:
    assert Exponential("1s", jitter=0)(10**6, OOPS) == LONGEST
    assert Exponential(0, jitter=0)(10**6, OOPS) == timedelta()
    assert Linear("1d", "1d", jitter=0)(10**9, OOPS) == LONGEST


@pytest.mark.parametrize(
    "backoff", [DEFAULT_BACKOFF, Exponential("15s"), Linear("15s", 0)], ids=["default", "exponential", "linear"]
)
def test_jitter_is_a_fifth_up_or_down(backoff: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "random", lambda: 0.0)
    assert backoff(1, OOPS) == timedelta(seconds=12)
    monkeypatch.setattr(random, "random", lambda: 1.0)
    assert backoff(1, OOPS) == timedelta(seconds=18)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Exponential("soon"), r"Exponential\(first\).*'soon'"),
        (lambda: Exponential("-1s"), "between 0 and 10 years"),
        (lambda: Exponential("20000d"), "between 0 and 10 years"),
        (lambda: Exponential("1s", factor=0.5), r"Exponential\(factor\) must be a number of at least 1, not 0.5"),
        (lambda: Exponential("1s", factor=math.inf), "factor"),
        (lambda: Exponential("1s", factor=math.nan), "factor"),
        (lambda: Exponential("1s", factor=True), "factor"),
        (lambda: Exponential("1s", max="never"), r"Exponential\(max\)"),
        (lambda: Exponential("1s", jitter=1.5), "between 0 and 1"),
        (lambda: Linear("1s", "-1s"), r"Linear\(increment\)"),
        (lambda: Linear(None, "1s"), r"Linear\(first\)"),
        (lambda: RetryPolicy(retries=-1), "retries must be a whole number, 0 or more, not -1"),
        (lambda: RetryPolicy(retries=True), "retries must be a whole number, 0 or more, not True"),
        (lambda: RetryPolicy(retries=1.5), "retries must be a whole number, 0 or more, not 1.5"),
    ],
)
def test_policies_that_cannot_work_are_refused_when_made(make: Any, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        make()


def test_policies_do_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        Exponential("1s").first = "2s"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("10s", [10, 10, 10]),
        (5, [5, 5, 5]),
        (timedelta(minutes=1), [60, 60, 60]),
        (["1s", 2, timedelta(seconds=3)], [1, 2, 3, 3]),
        (("1s", "1m"), [1, 60, 60]),
        (Linear(1, 1, jitter=0), [1, 2, 3]),
    ],
)
def test_forms_of_a_backoff(value: Any, expected: Any) -> None:
    assert delays(make_backoff("backoff", value), len(expected)) == expected


def test_no_backoff_is_the_default_one() -> None:
    assert make_backoff("backoff", None) is DEFAULT_BACKOFF


def test_a_callable_is_a_backoff() -> None:
    def backoff(attempt: int, error: BaseException) -> str:
        return f"{attempt}{error}"

    chosen = RetryPolicy(backoff=make_backoff("backoff", backoff)).next_attempt(3, ValueError("m"), NOW)

    assert chosen == NOW + timedelta(minutes=3)


@pytest.mark.parametrize("value", [[], "soon", -5, True, {}, object(), Exponential, ["1s", "soon"], [None]])
def test_anything_else_is_no_backoff(value: Any) -> None:
    with pytest.raises(ConfigurationError, match="backoff"):
        make_backoff("backoff", value)


def policy(**options: Any) -> RetryPolicy:
    return RetryPolicy(**{"backoff": make_backoff("backoff", "10s"), **options})


def test_four_retries_after_the_first_attempt() -> None:
    assert policy().next_attempt(4, OOPS, NOW) == NOW + timedelta(seconds=10)
    assert policy().next_attempt(5, OOPS, NOW) is None


def test_no_retries() -> None:
    assert policy(retries=0).next_attempt(1, OOPS, NOW) is None


@pytest.mark.parametrize(
    "error", [NonRetriable("stolen"), NestedStep("a", "x.py:1", "b"), EncodingError("result", "bad", "Do not")]
)
def test_errors_that_stop_further_attempts(error: BaseException) -> None:
    assert policy().next_attempt(1, error, NOW) is None


@pytest.mark.parametrize(
    ("options", "retried"),
    [
        ({}, [OSError, FileNotFoundError, ValueError]),
        ({"retry_on": OSError}, [OSError, FileNotFoundError]),
        ({"retry_on": [FileNotFoundError, ValueError]}, [FileNotFoundError, ValueError]),
        ({"no_retry_on": FileNotFoundError}, [OSError, ValueError]),
        ({"no_retry_on": (OSError, ValueError)}, []),
        ({"retry_on": (OSError,), "no_retry_on": {FileNotFoundError}}, [OSError]),
    ],
)
def test_errors_are_tried_again_by_their_classes(options: Any, retried: list[type[Exception]]) -> None:
    errors = [OSError, FileNotFoundError, ValueError]

    assert [each for each in errors if policy(**options).next_attempt(1, each("oops"), NOW)] == retried


def test_the_classes_hold_in_a_policy_that_was_made_of_another() -> None:
    changed = dataclasses.replace(policy(retry_on=OSError), retry_on=ValueError)

    assert changed.retry_on == (ValueError,)
    assert dataclasses.replace(policy(retry_on=OSError), retries=1).retry_on == (OSError,)


def test_an_error_that_says_itself_what_follows_is_heard() -> None:
    assert policy(retry_on=OSError).next_attempt(1, RetryAfter("busy", "1s"), NOW) is not None
    assert policy(retry_on=NonRetriable).next_attempt(1, NonRetriable("stolen"), NOW) is None


@pytest.mark.parametrize("value", [7, "ValueError", ValueError("a"), int, KeyboardInterrupt, [OSError, None]])
@pytest.mark.parametrize("option", ["retry_on", "no_retry_on"])
def test_what_is_no_exception_class_is_refused(option: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=rf"^{option} must be a class of exceptions such as"):
        policy(**{option: value})


def test_classes_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="retry_on: FileNotFoundError is never tried again because of no_ret"):
        policy(retry_on=FileNotFoundError, no_retry_on=OSError)
    with pytest.raises(ConfigurationError, match="retry_on names no exception"):
        policy(retry_on=[])


@pytest.mark.parametrize(
    ("when", "seconds"),
    [
        (90, 90),
        (timedelta(minutes=2), 120),
        ("10m", 600),
        (datetime(2030, 1, 1, 13, tzinfo=UTC), 3600),
        (datetime(2030, 1, 1, 13), 3600),
        (datetime(2030, 1, 1, 13, tzinfo=timezone(timedelta(hours=1))), 0),
        (datetime(2000, 1, 1, tzinfo=UTC), 0),
        (-5, 0),
        (datetime.max, LONGEST.total_seconds()),
    ],
)
def test_retry_after_chooses_the_moment(when: Any, seconds: float) -> None:
    assert policy().next_attempt(1, RetryAfter("busy", when), NOW) == NOW + timedelta(seconds=seconds)


def test_retry_after_is_an_attempt_like_any_other() -> None:
    assert policy(retries=2).next_attempt(3, RetryAfter("busy", "1s"), NOW) is None


def fails(attempt: int, error: BaseException) -> Any:
    raise RuntimeError("in the back-off")


@pytest.mark.usefixtures("_middle")
@pytest.mark.parametrize(
    ("backoff", "error"),
    [
        (fails, OOPS),
        (lambda attempt, error: "soon", OOPS),
        (lambda attempt, error: None, OOPS),
        (lambda attempt, error: math.nan, OOPS),
        (lambda: 1, OOPS),
        (lambda attempt, error: 1, RetryAfter("busy", "soon")),
        (lambda attempt, error: 1, RetryAfter("busy", None)),
    ],
)
def test_a_broken_backoff_gives_way_to_the_default_one(
    backoff: Any, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    assert policy(backoff=backoff).next_attempt(2, error, NOW) == NOW + timedelta(seconds=30)
    assert "the default one is used" in caplog.text


def test_a_backoff_is_kept_between_now_and_ten_years() -> None:
    assert policy(backoff=lambda attempt, error: -5).next_attempt(1, OOPS, NOW) == NOW
    assert policy(backoff=lambda attempt, error: "99999d").next_attempt(1, OOPS, NOW) == NOW + LONGEST
