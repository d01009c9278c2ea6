"""What people read of a step: the call that it makes, and the attempt that it waits for."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from ...codecs import headline

if TYPE_CHECKING:
    from ...core.retries import RetryPolicy

LONGEST_CALL = 1_000  #: characters

_summary = reprlib.Repr()
_summary.maxstring = _summary.maxother = 100


def retry_text(failed: int, policy: RetryPolicy, name: str, error: Exception) -> str:
    """Return which attempt a step waits for after *failed* ones, and why."""
    return f"attempt {failed + 1} of {policy.retries + 1} of {name}: {headline(error)}"


def call_text(fn: Any, args: Iterable[Any] = (), kwargs: Mapping[str, Any] | None = None) -> str:
    """Return the call of a step's function as people read it, shortened."""
    if isinstance(fn, partial):
        return call_text(fn.func, (*fn.args, *args), {**fn.keywords, **(kwargs or {})})
    parts = [_argument(value) for value in args]
    parts += [f"{name}={_argument(value)}" for name, value in (kwargs or {}).items()]
    name = getattr(fn, "__qualname__", type(fn).__qualname__)
    return f"{name}({', '.join(parts)})".replace("\0", "\\x00")[:LONGEST_CALL]


def _argument(value: object) -> str:
    try:
        text = _summary.repr(value)
    except Exception:  # An argument's own __repr__ must not fail the step.
        text = f"<{type(value).__name__}>"
    return text.encode("utf-8", "backslashreplace").decode()
