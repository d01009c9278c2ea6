from __future__ import annotations

import contextlib
import math
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_durable.core.durations import LONGEST, describe, parse_duration, parse_moment, parse_wait
from django_durable.exceptions import InvalidDuration

BERLIN = ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("24h", timedelta(hours=24)),
        ("1 day", timedelta(days=1)),
        ("2 weeks", timedelta(weeks=2)),
        ("1h30m", timedelta(minutes=90)),
        ("1h 30m", timedelta(minutes=90)),
        ("1.5h", timedelta(minutes=90)),
        ("1,5h", timedelta(minutes=90)),
        ("500ms", timedelta(milliseconds=500)),
        ("250us", timedelta(microseconds=250)),
        ("250µs", timedelta(microseconds=250)),
        ("  10 Seconds ", timedelta(seconds=10)),
        ("3 mins", timedelta(minutes=3)),
        ("-5m", timedelta(minutes=-5)),
        ("+5m", timedelta(minutes=5)),
        ("-1h30m", timedelta(minutes=-90)),
        ("P1D", timedelta(days=1)),
        ("P2W", timedelta(weeks=2)),
        ("PT1H30M", timedelta(minutes=90)),
        ("P1DT0.5S", timedelta(days=1, milliseconds=500)),
        ("-PT5M", timedelta(minutes=-5)),
        (90, timedelta(seconds=90)),
        (0.5, timedelta(milliseconds=500)),
        (-1, timedelta(seconds=-1)),
        (0, timedelta()),
        (timedelta(hours=2), timedelta(hours=2)),
    ],
)
def test_forms_of_a_duration(value: Any, expected: Any) -> None:
    assert parse_duration(value) == expected


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (True, "True"),
        (None, "None"),
        ([], "[]"),
        (math.nan, "nan"),
        (math.inf, "inf"),
        ("", "''"),
        ("soon", "'soon'"),
        ("10", "a number needs a unit"),
        ("3 parsecs", "'parsecs' is not a unit of time"),
        ("1h and a bit", "1h and a bit"),
        ("1e400s", "1e400s"),
        ("P", "'P'"),
        ("PT", "'PT'"),
        ("P1DT", "'P1DT'"),
        ("1 month", "months and years have no fixed length"),
        ("2 years", "months and years have no fixed length"),
        ("1M", "months and years have no fixed length"),
        ("P1M", "months and years have no fixed length"),
        ("P1Y", "months and years have no fixed length"),
        ("9" * 30 + "h", "not a finite length of time"),
        ("9" * 5000 + "h", "not a finite length of time"),
        (10**30, "not a finite length of time"),
        pytest.param(10**5000, "a very large number", id="5001 digits"),
    ],
)
def test_anything_else_is_refused_and_named(value: Any, said: str) -> None:
    with pytest.raises(InvalidDuration) as caught:
        parse_duration(value)
    assert said in str(caught.value)
    assert "Accepted" in str(caught.value)
    assert len(str(caught.value)) < 400


@given(st.integers(0, 10**12), st.sampled_from(["ms", "s", "m", "h"]))
def test_whole_numbers_are_read_exactly(count: int, unit: str) -> None:
    seconds = {"ms": 1000, "s": 10**6, "m": 60 * 10**6, "h": 3600 * 10**6}[unit]
    try:
        expected = timedelta(microseconds=count * seconds)
    except OverflowError:
        return
    assert abs(parse_duration(f"{count}{unit}") - expected) <= expected * 1e-15


@given(st.text() | st.from_regex(r"[+-]?P?[0-9]{1,3}[a-zA-Z]{1,4}"))
def test_text_is_a_duration_or_refused(text: str) -> None:
    with contextlib.suppress(InvalidDuration):
        assert isinstance(parse_duration(text), timedelta)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (datetime(2030, 1, 31, 9, tzinfo=BERLIN), datetime(2030, 1, 31, 8, tzinfo=UTC)),
        (datetime(2030, 1, 31, 9), datetime(2030, 1, 31, 8, tzinfo=UTC)),
        (date(2030, 7, 1), datetime(2030, 6, 30, 22, tzinfo=UTC)),
        ("2030-07-01", datetime(2030, 6, 30, 22, tzinfo=UTC)),
        (" 2030-07-01T09:00 ", datetime(2030, 7, 1, 7, tzinfo=UTC)),
        ("2030-07-01T09:00:00Z", datetime(2030, 7, 1, 9, tzinfo=UTC)),
        ("2030-07-01T09:00+05:30", datetime(2030, 7, 1, 3, 30, tzinfo=UTC)),
    ],
)
def test_forms_of_a_moment(value: Any, expected: Any) -> None:
    moment = parse_moment(value, BERLIN)
    assert moment == expected
    assert moment.tzinfo is UTC


def test_fold_chooses_between_two_equal_wall_times() -> None:
    """When clocks go back, 02:30 comes twice."""
    twice = datetime(2030, 10, 27, 2, 30)
    assert parse_moment(twice, BERLIN) == datetime(2030, 10, 27, 0, 30, tzinfo=UTC)
    assert parse_moment(twice.replace(fold=1), BERLIN) == datetime(2030, 10, 27, 1, 30, tzinfo=UTC)


@pytest.mark.parametrize("value", ["tomorrow", "", "2030-13-01", 5, None, True])
def test_unreadable_moments_are_refused_and_named(value: Any) -> None:
    with pytest.raises(InvalidDuration, match="Cannot read") as caught:
        parse_moment(value, UTC)
    assert repr(value) in str(caught.value)


def test_a_moment_outside_of_the_calendar_is_refused() -> None:
    with pytest.raises(InvalidDuration, match="years 1 to 9999"):
        parse_moment(datetime.min, timezone(timedelta(hours=5)))


def test_ten_years_are_the_limit() -> None:
    assert parse_wait(LONGEST) == LONGEST
    with pytest.raises(InvalidDuration, match="10 years"):
        parse_wait(LONGEST + timedelta(microseconds=1))


def test_a_bounded_duration_can_be_added_to_the_present() -> None:
    assert parse_wait(timedelta(seconds=-5)) == timedelta(seconds=-5)
    assert datetime(2030, 1, 1) + parse_wait(timedelta.min)


@pytest.mark.parametrize(
    ("duration", "text"),
    [
        (timedelta(hours=24), "24h"),
        (timedelta(hours=26), "1d 2h"),
        (timedelta(days=14), "14d"),
        (timedelta(hours=1, minutes=30, seconds=5), "1h 30m"),
        (timedelta(days=2, minutes=5), "2d 5m"),
        (timedelta(seconds=1.5), "1s 500ms"),
        (timedelta(milliseconds=500), "500ms"),
        (timedelta(microseconds=7), "7us"),
        (timedelta(), "0s"),
        (timedelta(minutes=-5), "-5m"),
        (timedelta.min, "-999999999d"),
    ],
)
def test_durations_for_people(duration: timedelta, text: str) -> None:
    assert describe(duration) == text
