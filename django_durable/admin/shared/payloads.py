"""Recorded values and errors as text for people: readable, capped, never an error page. Templates escape the text."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Expression, ExpressionWrapper, F
from django.db.models.functions import Left, Length

from ...codecs import get_codec
from ...core.values.encoding import plain
from ...core.values.errors import ErrorInfo, decode_error
from ...exceptions import EncodingError
from ...fields import PayloadField

LONG = 20_000  #: characters shown of a run's payload
SHORT = 4_000  #: characters shown of each of many payloads
LINE = 600  #: characters read of an error to show it in one line
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_TEXT = r'"((?:[^"\\]|\\u[0-9a-f]{4}|\\["\\/bfnrt])*)'
_ERROR_HEAD = re.compile(rf'\{{"type":\s*{_TEXT}",\s*"message":\s*{_TEXT}(?:",\s*"traceback":\s*{_TEXT})?')


@dataclass(frozen=True, slots=True)
class Payload:
    """A value as text, and how many characters of it are not shown."""

    text: str
    left_out: int = 0


def heads(*columns: str, limit: int) -> dict[str, Expression]:
    """Return annotations that read the first *limit* characters of text columns, and their sizes."""
    read = {f"{column}_head": head(column, limit) for column in columns}
    return {**read, **{f"{column}_size": Length(column) for column in columns}}


def head(column: str, limit: int) -> Expression:
    """Return an annotation that reads the first *limit* characters of a text column.

    A column that goes through a codec is read whole: it has no beginning until it is decoded.
    """
    if get_codec() is None:
        return Left(column, limit)
    return ExpressionWrapper(F(column), output_field=_HeadField(limit))


class _Head(str):
    """The beginning of a decoded text, with the size of the whole."""

    __slots__ = ("size",)

    size: int


class _HeadField(PayloadField):
    """Reads the beginning of a payload that goes through a codec."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit

    def get_db_converters(self, connection: BaseDatabaseWrapper) -> list[Any]:
        """Return the converters that open the stored text and cut it."""
        return [*super().get_db_converters(connection), self._cut]

    def _cut(self, value: str | None, expression: Any, connection: BaseDatabaseWrapper) -> str | None:
        if value is None:
            return None
        cut = _Head(value[: self.limit])
        cut.size = len(value)
        return cut


def _read(row: Mapping[str, Any], column: str) -> tuple[str | None, int]:
    """Return the first characters of a column that :func:`heads` read, and the size of the whole."""
    text = row[f"{column}_head"]
    return text, getattr(text, "size", row[f"{column}_size"])


def stored_payload(row: Mapping[str, Any], column: str) -> Payload | None:
    """Return a column that :func:`heads` read, laid out if it is complete; None if it is null."""
    head, size = _read(row, column)
    if head is None:
        return None
    if size > len(head):
        return Payload(printable(head), size - len(head))
    return Payload(printable(_laid_out(head)))


def json_payload(value: Any) -> Payload:
    """Return a value of a JSON column, laid out and cut at the greatest length."""
    try:
        text = printable(_indented(value))
    except EncodingError:  # Somebody wrote it by hand.
        text = printable(json.dumps(value, ensure_ascii=False, indent=2))
    return Payload(text[:LONG], max(0, len(text) - LONG))


def stored_error(row: Mapping[str, Any]) -> ErrorInfo | None:
    """Return the part of the column ``error`` that :func:`heads` read."""
    head, size = _read(row, "error")
    if head is None:
        return None
    if size > len(head):
        type_, message, traceback = _beginning(head)
        return ErrorInfo(type_, message, f"{traceback} …")
    return _complete_error(head)


def error_line(head: str | None) -> str:
    """Return class and message of an error in one line, from the first characters of its text."""
    type_, message, _ = _beginning(head or "")
    return ": ".join(filter(None, [type_.rpartition(".")[2], " ".join(message.split())]))


def printable(text: str) -> str:
    """Escape the characters that no page takes or that mislead readers: NUL, controls, surrogates, bidi overrides."""
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def _laid_out(text: str) -> str:
    # A payload may have been written by older code or by hand; it is shown as it is then.
    try:
        indented = _indented(json.loads(text))
    except Exception:
        return text
    return indented if len(indented) <= 4 * len(text) + 100 else text


def _indented(value: Any) -> str:
    return json.dumps(plain(value), ensure_ascii=False, indent=2)


def _complete_error(text: str) -> ErrorInfo:
    try:
        return _printable_error(decode_error(text))
    except Exception:
        return ErrorInfo("", printable(text))


def _printable_error(error: ErrorInfo) -> ErrorInfo:
    return ErrorInfo(
        type=printable(error.type),
        message=printable(error.message),
        traceback=printable(error.traceback),
        cause=_printable_error(error.cause) if error.cause else None,
    )


def _beginning(head: str) -> tuple[str, str, str]:
    """Return the parts of class, message and traceback that a cut text of an error holds."""
    match = _ERROR_HEAD.match(head)
    if match is None:
        return "", printable(head), ""
    type_, message, traceback = (printable(json.loads(f'"{text}"')) for text in match.groups(""))
    return type_, message, traceback
