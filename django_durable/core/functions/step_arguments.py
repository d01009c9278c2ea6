"""Arguments of steps: each is read, or refused with the reason, and then the run fails for good."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from typing import Any

from ...exceptions import DurableError
from ..durations import Duration, parse_duration
from ..events import events
from ..events.event_types import EventType
from ..events.events import Event
from ..option_values import optional, positive_duration, refused, whole_number
from ..replay.operations import StepOptions
from ..retries import make_backoff
from . import registry

LONGEST_SUMMARY = 200


def step_options(retries: Any, backoff: Any, timeout: Any, thread: bool, key_argument: Any) -> StepOptions:
    """Return the options that ``step.options`` was given."""
    return StepOptions(
        retries=optional(whole_number)("retries", retries),
        backoff=optional(make_backoff)("backoff", backoff),
        timeout=optional(positive_duration)("timeout", timeout),
        thread=thread,
        key_argument=optional(_parameter)("idempotency_key", key_argument),
    )


def _parameter(name: str, value: object) -> str:
    if not isinstance(value, str) or not value.isidentifier():
        raise refused(name, value, "the name of a parameter of the step's function")
    return value


def read_limit(limit: object) -> int | None:
    """Return how many branches may run at the same time; None for all of them."""
    return None if limit is None else whole_number("limit", limit, least=1)


def read_summary(text: object) -> str:
    """Return a summary, cut to the length of its column, without the characters that no database takes."""
    if not isinstance(text, str):
        raise DurableError(f"a summary is text, not {text!r}")
    return text.replace("\0", "").encode("utf-8", "replace").decode()[:LONGEST_SUMMARY]


def check_signal(signal: object) -> str:
    """Return the name of a signal; raise DurableError for anything that cannot be one."""
    if not events.is_storable(signal, events.LONGEST_NAME):
        raise DurableError(f"a signal's name is text of 1 to {events.LONGEST_NAME} characters, not {signal!r}")
    return signal


def read_patterns(asked: Any) -> tuple[tuple[str, ...], tuple[EventType[Any], ...]]:
    """Return the names and wildcards to wait for, and those of them that have types."""
    is_one = isinstance(asked, (str, EventType)) or not isinstance(asked, Iterable)
    several = [asked] if is_one else list(asked)
    if not several:
        raise DurableError("waits for no event: give it a name, a wildcard, or a list of them")
    types = tuple(each for each in several if isinstance(each, EventType))
    names = (each.name if isinstance(each, EventType) else each for each in several)
    return tuple(dict.fromkeys(events.check_pattern(name) for name in names)), types


def read_lookback(lookback: bool | Duration) -> bool | datetime.timedelta | str:
    """Return which earlier events count: all, none, those of a duration, or those since the step that a text names."""
    if isinstance(lookback, bool):
        return lookback
    if isinstance(lookback, str) and lookback.startswith("since:"):
        return lookback
    return parse_duration(lookback)


def check_events(sent: Sequence[Any]) -> Sequence[Event]:
    """Return the events to send."""
    for event in sent:
        if not isinstance(event, Event):
            raise DurableError(f'send_event takes Event objects, not {event!r}. Write Event("app/name", {{…}})')
        events.check_sendable(event.name)
    return sent


def read_function_id(function_id: object, app_label: str) -> str:
    """Return the id of the function that a step invokes by ``app/slug`` or, in its own app, ``slug``."""
    if not isinstance(function_id, str):
        raise DurableError(f"invokes a durable function or its id, not {function_id!r}")
    return registry.qualified(function_id, app_label)
