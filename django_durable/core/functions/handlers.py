"""Handlers: the form that each must have, its place in the source, and the version of its code."""

from __future__ import annotations

import hashlib
import inspect
import marshal
import textwrap
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ...exceptions import ConfigurationError


def place_of(handler: object) -> str:
    """Return the file and line of a handler, of the innermost one where decorators wrap it."""
    code = getattr(inspect.unwrap(handler) if callable(handler) else handler, "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code else repr(handler)


def check_handler(handler: Callable[..., Any]) -> None:
    """Raise ConfigurationError for a function that cannot be run as a handler."""
    if inspect.isgeneratorfunction(handler) or inspect.isasyncgenfunction(handler):
        raise ConfigurationError("its handler contains 'yield'; a handler calls steps and returns")
    if not _takes_event_and_step(inspect.signature(handler)):
        raise ConfigurationError("its handler must take exactly two positional parameters: (event, step)")


def _takes_event_and_step(signature: inspect.Signature) -> bool:
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = list(signature.parameters.values())
    return len(parameters) == 2 and all(each.kind in positional for each in parameters)


def version_of(handler: Callable[..., Any]) -> str:
    """Return a hash of a handler's source, or of its bytecode where no file holds its source."""
    return hashlib.sha256(_source(handler)).hexdigest()[:16]


def _source(handler: Any) -> bytes:
    code = handler.__code__
    # Python 3.13 takes the text of "python -c" for the source of any code compiled from a string.
    if not code.co_filename.startswith("<"):
        with suppress(OSError, TypeError):
            return textwrap.dedent(inspect.getsource(handler)).encode()
    return marshal.dumps(code.replace(co_filename="", co_firstlineno=1))
