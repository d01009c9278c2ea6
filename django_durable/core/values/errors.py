"""Exceptions, written as JSON text, and the record that is read back. Writing one never fails."""

from __future__ import annotations

import itertools
import json
import os
import traceback
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...exceptions import EncodingError, StepError
from .classes import class_name, register_type

DEEPEST_CAUSE = 5
_GROUP_DEPTH = 3
_GROUP_WIDTH = 10
PACKAGE = str(Path(__file__).parents[2]) + os.sep  #: the beginning of the name of each file of this package


@register_type
@dataclass(frozen=True, slots=True)
class ErrorInfo:
    """The record of an exception.

    ``type`` is the dotted path of its class, ``bases`` those of the class and all its bases except object,
    ``traceback`` the user's frames as text, ``cause`` the exception that it came from.
    """

    type: str
    message: str
    traceback: str = ""
    cause: ErrorInfo | None = None
    bases: tuple[str, ...] = ()


def encode_error(error: BaseException, *, limit: int = 8_000) -> str:
    """Write an exception and its causes as JSON text.

    Messages and tracebacks longer than *limit* characters lose their middle. The cause of a StepError is the original
    error of the step, as it was recorded.
    """
    return json.dumps(asdict(_info(error, limit, ())), separators=(",", ":"))


def encode_message(cls: type[BaseException], message: str) -> str:
    """Write an error of the engine's own that nobody raised as JSON text: one of class *cls* with this message."""
    return json.dumps({"type": class_name(cls), "message": message, "bases": _bases(cls)}, separators=(",", ":"))


def decode_error(text: str) -> ErrorInfo:
    """Read what :func:`encode_error` wrote; raises EncodingError for anything else.

    The classes that it names are text, and nothing is imported for them.
    """
    try:
        return _read(json.loads(text))
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise EncodingError(
            "error", f"it cannot be read back ({type(error).__name__})", "Replay the run from the start"
        ) from error


def _read(data: dict[str, Any]) -> ErrorInfo:
    cause = data.get("cause")
    return ErrorInfo(
        type=str(data.get("type", "builtins.Exception")),
        message=str(data.get("message", "")),
        traceback=str(data.get("traceback", "")),
        cause=_read(cause) if cause else None,
        bases=tuple(map(str, data.get("bases", ()))),
    )


def _info(error: BaseException, limit: int, inner: tuple[BaseException, ...]) -> ErrorInfo:
    return ErrorInfo(
        type=_clean(class_name(type(error)), limit),
        message=_text(error, limit),
        traceback=_traceback(error, limit),
        cause=_cause(error, limit, (*inner, error)),
        bases=tuple(_clean(name, limit) for name in _bases(type(error))),
    )


def _bases(cls: type[BaseException]) -> list[str]:
    return [class_name(each) for each in cls.__mro__ if each is not object]


def _cause(error: BaseException, limit: int, chain: tuple[BaseException, ...]) -> ErrorInfo | None:
    if len(chain) > DEEPEST_CAUSE:
        return None
    if isinstance(error, StepError):
        return _original(error, limit, DEEPEST_CAUSE - len(chain))
    cause = error.__cause__
    if cause is None and not error.__suppress_context__:
        cause = error.__context__
    if cause is None or any(cause is outer for outer in chain):
        return None
    return _info(cause, limit, chain)


def _original(error: StepError, limit: int, deeper: int) -> ErrorInfo:
    return ErrorInfo(
        type=_text(error.type, limit),
        message=_text(error.message, limit),
        traceback=_text(error.traceback, limit),
        cause=_original(error.cause, limit, deeper - 1) if error.cause is not None and deeper > 0 else None,
        bases=tuple(map(str, error.bases)),
    )


def _text(value: object, limit: int) -> str:
    try:
        return _clean(str(value), limit)
    except Exception as odd:
        return f"(its __str__ raised {type(odd).__name__})"


def _traceback(error: BaseException, limit: int) -> str:
    try:
        return _clean("".join(_lines(error, limit, _GROUP_DEPTH)), limit)
    except Exception as odd:
        return f"(its traceback cannot be shown: {type(odd).__name__})\n"


def _lines(error: BaseException, limit: int, depth: int) -> Iterator[str]:
    if error.__traceback__ is not None:
        yield "Traceback (most recent call last):\n"
        yield from _frames(error)
    # A long message stands beside the traceback in full; here it must not push out the frames.
    message = _text(error, limit // 4)
    yield f"{class_name(type(error))}: {message}\n" if message else f"{class_name(type(error))}\n"
    for note in getattr(error, "__notes__", ()):
        yield f"{note}\n"
    if isinstance(error, BaseExceptionGroup) and depth > 0:
        yield from _group(error, limit, depth)


def _frames(error: BaseException) -> Iterator[str]:
    frames = traceback.extract_tb(error.__traceback__)
    for ours, part in itertools.groupby(frames, key=lambda frame: frame.filename.startswith(PACKAGE)):
        group = list(part)
        if ours:
            yield f"  [{len(group)} frame{'s' if len(group) > 1 else ''} of django_durable]\n"
        else:
            yield from traceback.StackSummary.from_list(group).format()


def _group(error: BaseExceptionGroup[Any], limit: int, depth: int) -> Iterator[str]:
    for number, part in enumerate(error.exceptions[:_GROUP_WIDTH], 1):
        yield f"  {number} of {len(error.exceptions)}:\n"
        for text in _lines(part, limit // 4, depth - 1):
            yield "".join(f"    {line}" for line in text.splitlines(keepends=True))


def _clean(text: str, limit: int) -> str:
    """Keep head and tail of a long text, and escape the characters that no database or page takes: NUL, surrogates."""
    shown = _escaped(text if len(text) <= 2 * limit else text[:limit] + text[-limit:])
    if len(shown) <= limit:
        return shown
    # Measured once it is escaped: an escape has up to six times the length.
    half = limit // 2
    left_out = max(len(text), len(shown)) - 2 * half
    return f"{shown[:half]}\n… {left_out:,} characters left out …\n{shown[-half:]}"


def _escaped(text: str) -> str:
    return text.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode()


def headline(error: BaseException) -> str:
    """Return one line that tells people of the error: its class and the start of its message."""
    info = _info(error, 300, ())
    return f"{info.type.rpartition('.')[2]}: {info.message}".splitlines()[0]
