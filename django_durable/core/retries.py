"""Whether and when a failed attempt is made again: pure policies of (attempt, error)."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from ..exceptions import ConfigurationError, EncodingError, InvalidStep, NonRetriable, RetryAfter
from .durations import LONGEST, Duration, parse_duration
from .option_values import duration, optional, refused, whole_number

Backoff = Callable[[int, BaseException], Duration]
"""Chooses the delay before the next attempt from the number of failed ones so far (from 1) and the last error."""

BackoffOption = Backoff | Duration | Sequence[Duration]
"""What a function, a step or a setting may be given as its back-off; :func:`make_backoff` reads it."""

ExceptionClasses = type[Exception] | Collection[type[Exception]]
_Classes = tuple[type[Exception], ...]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Exponential:
    """Multiply the delay with every failed attempt.

    *first* and *max* are durations, *factor* is at least 1. *jitter* is the share by which a delay is made
    shorter or longer at random, 0 to 1; it comes on top of *max*, since delays cut at *max* would meet again.

    Example::

        backoff=Exponential("10s", factor=3, max="1h")
    """

    first: Duration
    factor: float = 2
    max: Duration | None = None
    jitter: float = 0.2

    def __post_init__(self) -> None:
        _check_delay("Exponential(first)", self.first)
        _check_number("Exponential(factor)", self.factor, 1, math.inf)
        optional(_check_delay)("Exponential(max)", self.max)
        _check_number("Exponential(jitter)", self.jitter, 0, 1)

    def __call__(self, attempt: int, error: BaseException) -> timedelta:
        first = parse_duration(self.first).total_seconds()
        try:
            seconds = first * float(self.factor) ** (attempt - 1)
        except OverflowError:
            seconds = math.inf if first else 0.0
        return _jittered(_capped(seconds, self.max), self.jitter)


@dataclass(frozen=True, slots=True)
class Linear:
    """Add *increment* to the delay with every failed attempt.

    *first*, *increment* and *max* are durations. *jitter* works as in Exponential.

    Example::

        backoff=Linear("1m", "30s", max="10m")
    """

    first: Duration
    increment: Duration
    max: Duration | None = None
    jitter: float = 0.2

    def __post_init__(self) -> None:
        _check_delay("Linear(first)", self.first)
        _check_delay("Linear(increment)", self.increment)
        optional(_check_delay)("Linear(max)", self.max)
        _check_number("Linear(jitter)", self.jitter, 0, 1)

    def __call__(self, attempt: int, error: BaseException) -> timedelta:
        first, increment = parse_duration(self.first), parse_duration(self.increment)
        seconds = first.total_seconds() + increment.total_seconds() * (attempt - 1)
        return _jittered(_capped(seconds, self.max), self.jitter)


@dataclass(frozen=True, slots=True)
class _Delays:
    """Take the delays of a list in turn; the last one repeats."""

    delays: tuple[timedelta, ...]
    jitter: float = 0.0

    def __call__(self, attempt: int, error: BaseException) -> timedelta:
        return _jittered(self.delays[min(attempt, len(self.delays)) - 1], self.jitter)


DEFAULT_BACKOFF: Backoff = _Delays(
    tuple(map(parse_duration, ("15s", "30s", "1m", "2m", "5m", "10m", "20m", "40m", "1h", "2h"))), jitter=0.2
)


def make_backoff(name: str, value: object) -> Backoff:
    """Return the back-off that the option of that name asks for.

    None is the default back-off, a duration a constant delay, a list of durations one delay after the other (the
    last one repeats); Exponential, Linear and any callable of (attempt, error) are taken as they are. Raises
    ConfigurationError for anything else.
    """
    if value is None:
        return DEFAULT_BACKOFF
    if callable(value) and not isinstance(value, type):
        return value
    if isinstance(value, str | int | float | timedelta):
        return _Delays((_check_delay(name, value),))
    if isinstance(value, list | tuple) and value:
        return _Delays(tuple(_check_delay(f"{name}[{index}]", delay) for index, delay in enumerate(value)))
    raise refused(
        name,
        value,
        "a duration, a list of durations, Exponential(...), Linear(...) or a callable of (attempt, error)",
    )


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and when failed attempts are made again: *retries* more attempts after the first.

    With *retry_on*, only after errors of these classes; never after one of *no_retry_on*. Both are an exception class
    or several. NonRetriable and RetryAfter decide for themselves, whatever *retry_on* lists.
    """

    retries: int = 4
    backoff: Backoff = DEFAULT_BACKOFF
    retry_on: ExceptionClasses | None = None
    no_retry_on: ExceptionClasses | None = None

    def __post_init__(self) -> None:
        whole_number("retries", self.retries)
        never = _check_classes("no_retry_on", self.no_retry_on or ())
        object.__setattr__(self, "no_retry_on", never)
        if self.retry_on is not None:
            only = _check_classes("retry_on", self.retry_on)
            _check_exceptions(only, never)
            object.__setattr__(self, "retry_on", only)

    def next_attempt(self, failed_attempts: int, error: BaseException, now: datetime) -> datetime | None:
        """Choose when the next attempt starts; None if there is none.

        *failed_attempts* counts those so far, this one included, so it is at least 1.
        """
        if failed_attempts > self.retries or not self._may_retry(error):
            return None
        # A back-off or a RetryAfter.when that is itself broken must neither hide the step's own error nor stop the
        # engine in the middle of recording it, so the default back-off stands in for it.
        try:
            delay = self._delay(failed_attempts, error, now)
        except Exception:
            logger.exception("The back-off %r failed; the default one is used", self.backoff)
            delay = parse_duration(DEFAULT_BACKOFF(failed_attempts, error))
        return now + min(max(delay, timedelta()), LONGEST)

    def _may_retry(self, error: BaseException) -> bool:
        never, only = cast(_Classes, self.no_retry_on), cast("_Classes | None", self.retry_on)
        if isinstance(error, (NonRetriable, InvalidStep, EncodingError, *never)):
            return False
        return only is None or isinstance(error, (RetryAfter, *only))

    def _delay(self, failed_attempts: int, error: BaseException, now: datetime) -> timedelta:
        if not isinstance(error, RetryAfter):
            return parse_duration(self.backoff(failed_attempts, error))
        if not isinstance(error.when, datetime):
            return parse_duration(error.when)
        aware = error.when if error.when.utcoffset() is not None else error.when.replace(tzinfo=UTC)
        return aware - now


def _check_classes(name: str, value: object) -> _Classes:
    classes = tuple(value) if isinstance(value, list | tuple | set | frozenset) else (value,)
    for each in classes:
        if not (isinstance(each, type) and issubclass(each, Exception)):
            raise refused(name, each, "a class of exceptions such as ConnectionError, or a tuple of them")
    return classes


def _check_exceptions(only: _Classes, never: _Classes) -> None:
    if not only:
        raise ConfigurationError("retry_on names no exception. Write retries=0 if nothing is to be tried again")
    for each in only:
        if issubclass(each, never):
            raise ConfigurationError(
                f"retry_on: {each.__name__} is never tried again because of no_retry_on. Remove it from one of them"
            )


def _capped(seconds: float, longest: Duration | None) -> timedelta:
    cap = LONGEST if longest is None else min(parse_duration(longest), LONGEST)
    return timedelta(seconds=min(seconds, cap.total_seconds()))


def _jittered(delay: timedelta, jitter: float) -> timedelta:
    return delay * (1 + jitter * (2 * random.random() - 1)) if jitter else delay


def _check_delay(name: str, value: Any) -> timedelta:
    delay = duration(name, value)
    if not timedelta() <= delay <= LONGEST:
        raise refused(name, value, "between 0 and 10 years")
    return delay


def _check_number(name: str, value: object, least: float, most: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most or value == math.inf:
        limits = f"of at least {least}" if most == math.inf else f"between {least} and {most}"
        raise refused(name, value, f"a number {limits}")
