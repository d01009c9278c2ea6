"""What must hold of any input, where no database is needed. Each check raises where it does not."""

from __future__ import annotations

import contextlib
import math
import sys
import time
from argparse import ArgumentTypeError
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from django.core.exceptions import ValidationError

from django_durable.admin.runs.forms import _data_field
from django_durable.core.durations import describe, parse_duration, parse_moment, parse_wait
from django_durable.core.events.conditions import compile_condition, match_rule
from django_durable.core.events.match_keys import index_key, lookup, parse_path
from django_durable.core.retries import make_backoff
from django_durable.core.values import encoding
from django_durable.core.values.errors import ErrorInfo, decode_error, encode_error
from django_durable.engine.runs import histories
from django_durable.exceptions import (
    ConfigurationError,
    DurableError,
    EncodingError,
    EvaluationFailed,
    InvalidDuration,
    InvalidExpression,
    InvalidPath,
)
from django_durable.management.arguments import json_value

LAZY = ("tzdata", "cel_expr_python", "google")  #: time zones, and the library of expressions on its first use
LONGEST = 10.0  #: seconds of this thread's work for an input of a few hundred characters


@contextlib.contextmanager
def harmless() -> Iterator[None]:
    """Raise if what is done here imports anything of the project, or takes for ever."""
    asked: list[str] = []
    began = time.thread_time()
    watch = _Watch(asked)
    sys.meta_path.insert(0, watch)
    try:
        yield
    finally:
        sys.meta_path.remove(watch)
    assert not [name for name in asked if not name.startswith(LAZY)], asked
    assert time.thread_time() - began < LONGEST


class _Watch:
    """A finder of modules that finds none, and notes which were asked for."""

    def __init__(self, asked: list[str]) -> None:
        self._asked = asked

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """Note the name."""
        self._asked.append(name)


def decoding(text: str) -> None:
    """Any text is a value or an EncodingError, and so is whatever it holds as plain JSON."""
    with harmless(), contextlib.suppress(DurableError):
        encoding.decode(text)
    with harmless(), contextlib.suppress(ValueError, RecursionError, EncodingError):
        encoding.plain(encoding.json.loads(text))


def round_trip(value: Any) -> None:
    """What can be written is read back as it was, and written the same again."""
    try:
        text = encoding.encode(value)
    except EncodingError:
        return
    with harmless():
        read = encoding.decode(text)
    assert text.isascii()
    assert type(read) is type(value)
    assert read == value
    assert encoding.encode(read) == text


def event_data(value: Any) -> None:
    """What an event may carry is searchable JSON that is read back; everything else is a clear error."""
    try:
        data = encoding.event_data(value)
    except DurableError:
        return
    text = encoding.dump(data)
    assert r"\u0000" not in text.replace(r"\\", "")
    assert encoding.from_json(encoding.json.loads(text)) == value
    encoding.plain(data)


def errors(text: str) -> None:
    """Any text is the record of an error or an EncodingError; any message can be recorded."""
    with harmless(), contextlib.suppress(EncodingError):
        assert isinstance(decode_error(text), ErrorInfo)
    recorded = decode_error(encode_error(ValueError(text), limit=100))
    recorded.message.encode()
    assert len(recorded.message) < 200


def history(text: str) -> None:
    """Any text is a history or a DurableError."""
    with harmless(), contextlib.suppress(DurableError):
        histories.parse(text)


def duration(value: Any) -> None:
    """Anything is a duration or InvalidDuration; a duration can be shown, and waited for from now."""
    with harmless(), contextlib.suppress(InvalidDuration):
        parsed = parse_duration(value)
        assert isinstance(parsed, timedelta)
        assert describe(parsed)
        assert datetime(2030, 1, 1, tzinfo=UTC) + parse_wait(parsed)
    with harmless(), contextlib.suppress(ConfigurationError, InvalidDuration):
        make_backoff("backoff", value)


def moment(value: Any) -> None:
    """Anything is a moment in UTC or InvalidDuration."""
    with harmless(), contextlib.suppress(InvalidDuration):
        assert parse_moment(value, UTC).tzinfo is UTC


def expression(case: tuple[str, Any, Any]) -> None:
    """Any text compiles or is refused; a condition holds, does not, or fails; an index finds all that it holds for."""
    source, trigger, arriving = case
    with harmless(), contextlib.suppress(InvalidExpression):
        compile_condition(source)
        rule = match_rule(None, source)
        first, second = _event(trigger), _event(arriving)
        for other in (second, first):
            with contextlib.suppress(EvaluationFailed):
                if rule.matches(first, other):
                    assert index_key(rule.index_path, other, b"key") == rule.key_for(first, b"key")


def match_path(case: tuple[str, Any]) -> None:
    """Any text is a path or InvalidPath; following it never fails, and what it leads to has one key."""
    path, data = case
    document = _event(data)
    with harmless(), contextlib.suppress(InvalidPath):
        parse_path(path)
        lookup(document, path.split("."))
        rule = match_rule(path, None)
        if rule.matches(document, document):
            assert index_key(rule.index_path, document) == rule.key_for(document)


def typed_json(text: str) -> None:
    """What staff type into a form or a command is a value or an error that is shown."""
    with harmless(), contextlib.suppress(ValidationError, EncodingError):
        encoding.from_json(_data_field("data").clean(text))
    with harmless(), contextlib.suppress(ArgumentTypeError):
        value = json_value(text)
        assert not isinstance(value, float) or not math.isnan(value)


def _event(data: Any) -> dict[str, Any]:
    user = data if isinstance(data, dict) else None
    return {"id": "1", "name": "fuzz/a", "data": data, "user": user, "ts": "2030-01-01T00:00:00+00:00", "v": None}
