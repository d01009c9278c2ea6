"""Durations and moments as people write them."""

from __future__ import annotations

import re
import reprlib
from datetime import UTC, date, datetime, time, timedelta, tzinfo

from ..exceptions import InvalidDuration

Duration = str | float | int | timedelta

LONGEST = timedelta(days=3653)
"""The longest wait that can be asked for: 10 years."""

_MICROSECONDS = {
    "us": 1,
    "ms": 1_000,
    "s": 1_000_000,
    "m": 60_000_000,
    "h": 3_600_000_000,
    "d": 86_400_000_000,
    "w": 604_800_000_000,
}
_SPELLINGS = {
    "us": "us µs μs microsecond microseconds",
    "ms": "ms msec msecs millisecond milliseconds",
    "s": "s sec secs second seconds",
    "m": "m min mins minute minutes",
    "h": "h hr hrs hour hours",
    "d": "d day days",
    "w": "w week weeks",
}
_UNITS = {spelling: unit for unit, spellings in _SPELLINGS.items() for spelling in spellings.split()}
_CALENDAR_UNITS = frozenset(["mo", "mon", "month", "months", "y", "yr", "yrs", "year", "years"])

_NUMBER = r"[0-9]+(?:[.,][0-9]+)?"
_PART = rf"({_NUMBER})\s*([^\W\d_]+)"
_PARTS = re.compile(_PART)
_TEXT = re.compile(rf"([+-]?)\s*({_PART}(?:\s*{_PART})*)")
_ISO = re.compile(
    rf"([+-]?)P(?=.)(?:({_NUMBER})Y)?(?:({_NUMBER})M)?(?:({_NUMBER})W)?(?:({_NUMBER})D)?"
    rf"(?:T(?=.)(?:({_NUMBER})H)?(?:({_NUMBER})M)?(?:({_NUMBER})S)?)?"
)
_FORMS = '"24h", "1 day", "1h30m", "500ms", "P1D", "PT1H30M", a timedelta, or seconds as a number'
_MONTHS = "months and years have no fixed length: write days or weeks, or compute a date and use sleep_until"


def parse_duration(value: Duration) -> timedelta:
    """Read a duration.

    A number counts seconds. Text holds numbers with units from microseconds to weeks, or an ISO 8601 duration.
    A sign in front applies to the whole. Raises InvalidDuration for anything else.

    Example::

        parse_duration("1h30m") == parse_duration("PT1H30M") == timedelta(minutes=90)
    """
    if isinstance(value, timedelta):
        return value
    try:
        if isinstance(value, str):
            return _from_text(value)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return timedelta(seconds=value)
    except InvalidDuration:
        raise
    except (OverflowError, ValueError) as error:
        # NaN is a ValueError, infinity an OverflowError.
        raise _invalid(value, "it is not a finite length of time that can be kept") from error
    raise _invalid(value)


def _from_text(text: str) -> timedelta:
    stripped = text.strip()
    if iso := _ISO.fullmatch(stripped):
        return _from_iso(text, iso)
    if not (match := _TEXT.fullmatch(stripped)):
        raise _invalid(text, "a number needs a unit" if _is_number(stripped) else "")
    total = sum(_microseconds(number, _unit(text, name)) for number, name in _PARTS.findall(match[2]))
    return _signed(match[1], total)


def _from_iso(text: str, match: re.Match[str]) -> timedelta:
    sign, years, months, *fixed = match.groups()
    if years or months:
        raise _invalid(text, _MONTHS)
    return _signed(
        sign, sum(_microseconds(number, unit) for number, unit in zip(fixed, "wdhms", strict=True) if number)
    )


def _unit(text: str, name: str) -> str:
    # A lone capital M means a month to some readers and a minute to others.
    if name == "M" or name.lower() in _CALENDAR_UNITS:
        raise _invalid(text, _MONTHS)
    if unit := _UNITS.get(name.lower()):
        return unit
    raise _invalid(text, f"{reprlib.repr(name)} is not a unit of time")


def _microseconds(number: str, unit: str) -> float:
    return float(number.replace(",", ".")) * _MICROSECONDS[unit]


def _signed(sign: str, microseconds: float) -> timedelta:
    return timedelta(microseconds=-microseconds if sign == "-" else microseconds)


def _is_number(text: str) -> bool:
    return re.fullmatch(rf"[+-]?{_NUMBER}", text) is not None


def _invalid(value: object, reason: str = "") -> InvalidDuration:
    why = f": {reason}" if reason else ""
    return InvalidDuration(f"Cannot read {_shown(value)} as a duration{why}. Accepted: {_FORMS}")


def _shown(value: object) -> str:
    try:
        return reprlib.repr(value)
    except ValueError:
        # Python refuses to write an int of thousands of digits.
        return "a very large number"


def parse_moment(value: datetime | date | str, default_tz: tzinfo) -> datetime:
    """Read a moment as an aware datetime in UTC.

    A date means its midnight; text is an ISO 8601 date or datetime. A value without a zone is in *default_tz*; where a
    wall time comes twice, its ``fold`` chooses one of the two. Raises InvalidDuration for anything else.
    """
    moment = _as_datetime(value)
    try:
        if moment.utcoffset() is None:
            moment = moment.replace(tzinfo=default_tz)
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise InvalidDuration(f"Cannot use {_shown(value)} as a moment: it is outside the years 1 to 9999") from error


def _as_datetime(value: object) -> datetime:
    if isinstance(value, datetime):
        return value
    if isinstance(value, date):
        return datetime.combine(value, time())
    if isinstance(value, str):
        try:
            return datetime.fromisoformat(value.strip())
        except ValueError:
            pass
    raise InvalidDuration(
        f"Cannot read {_shown(value)} as a moment. "
        'Accepted: a datetime, a date, or ISO text such as "2030-01-31" or "2030-01-31T09:00+01:00"'
    )


def parse_wait(value: Duration) -> timedelta:
    """Read how long to wait: a duration of 10 years at most; raises InvalidDuration for any other.

    A negative one is raised to minus 10 years, so that adding it to the present cannot overflow.
    """
    duration = parse_duration(value)
    if duration > LONGEST:
        raise InvalidDuration(f"{describe(duration)} is too long: the longest wait is 10 years")
    return max(duration, -LONGEST)


def describe(duration: timedelta) -> str:
    """Write a duration for people, in its two largest units.

    Example::

        describe(timedelta(hours=24)) == "24h"
        describe(timedelta(hours=26)) == "1d 2h"
    """
    if duration < timedelta():
        return f"-{describe(-duration)}"
    units = ["h", "m", "s", "ms", "us"]
    if duration > timedelta(hours=24):
        units.insert(0, "d")
    rest = duration // timedelta(microseconds=1)
    parts = []
    for unit in units:
        count, rest = divmod(rest, _MICROSECONDS[unit])
        if count:
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2]) or "0s"
