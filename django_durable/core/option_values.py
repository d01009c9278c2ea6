"""The values that options and settings may have: each check returns the value, or refuses it by its name.

Every refusal has one form, whether the value was given to a function, a step, a back-off or a setting:
``retries must be a whole number, 0 or more, not -1``.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any, TypeVar

from ..exceptions import ConfigurationError, InvalidDuration
from .durations import parse_duration

T = TypeVar("T")
Word = TypeVar("Word", bound=str)

Check = Callable[[str, Any], T]
"""Returns the value of the option of that name, as it is used from then on; ConfigurationError if it cannot be used."""


def refused(name: str, value: object, wanted: str) -> ConfigurationError:
    """Return the error for an option whose value is not the one that is *wanted*."""
    return ConfigurationError(f"{name} must be {wanted}, not {value!r}")


def optional(check: Check[T]) -> Check[T | None]:
    """Return a check that also lets None pass, for an option that is not given."""
    return lambda name, value: None if value is None else check(name, value)


def whole_number(name: str, value: object, least: int = 0) -> int:
    """Return a whole number that is not below *least*."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise refused(name, value, f"a whole number, {least} or more")
    return value


def flag(name: str, value: object) -> bool:
    """Return True or False."""
    if not isinstance(value, bool):
        raise refused(name, value, "True or False")
    return value


def text(name: str, value: object) -> str:
    """Return a text."""
    if not isinstance(value, str):
        raise refused(name, value, "text")
    return value


def one_of(*choices: Word) -> Check[Word]:
    """Return a check that lets only these words pass."""

    def check(name: str, value: object) -> Word:
        for choice in choices:
            if value == choice:
                return choice
        raise refused(name, value, f"one of {', '.join(map(repr, choices))}")

    return check


def duration(name: str, value: Any) -> datetime.timedelta:
    """Return a duration of any length."""
    try:
        return parse_duration(value)
    except InvalidDuration as error:
        raise ConfigurationError(f"{name}: {error}") from error


def positive_duration(name: str, value: Any) -> datetime.timedelta:
    """Return a duration that is longer than nothing."""
    length = duration(name, value)
    if length <= datetime.timedelta():
        raise refused(name, value, "longer than nothing")
    return length
