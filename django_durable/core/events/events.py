"""Events: things that happened, by name, with data; and the names and wildcards that listen to them."""

from __future__ import annotations

import functools
import re
import reprlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeGuard

from ...exceptions import InvalidEvent
from ..type_variables import D_co
from ..values.classes import register_type

if TYPE_CHECKING:
    import datetime

    from ..values.errors import ErrorInfo

LONGEST_NAME = 255
RESERVED_PREFIX = "durable/"
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def _no_data() -> Any:
    return {}


# Without slots: Python 3.11 cannot make an Event[D](…) of a frozen generic class that has them.
@register_type
@dataclass(frozen=True)
class Event(Generic[D_co]):
    """Something that happened, as a handler receives it and as ``send_event`` takes it.

    ``name`` names it (``app/user.created``), ``data`` is a JSON object, of an :class:`EventType` an instance of its
    class; ``Event[OrderPaid]`` says so to type checkers. ``user`` says who did it. ``id`` is an
    idempotency key when sending and the event's own id when received. ``ts`` is when it happened, ``v`` the version of
    its schema, ``received_at`` when the database took it. ``batch`` holds all events of a run that got several.

    Example::

        send_event(Event("app/post.created", {"user": {"id": 7}}, id="post-1"))
    """

    name: str
    data: D_co = field(default_factory=_no_data)
    id: str | None = field(default=None, kw_only=True)
    user: Any = field(default=None, kw_only=True)
    ts: datetime.datetime | None = field(default=None, kw_only=True)
    v: str | None = field(default=None, kw_only=True)
    received_at: datetime.datetime | None = field(default=None, kw_only=True)
    batch: tuple[Event[D_co], ...] = field(default=(), kw_only=True, repr=False)


@register_type
@dataclass(frozen=True)
class EndEvent(Event[Any], Generic[D_co]):
    """An event that tells of a run's end: the run's id, and the event that had started it."""

    run_id: str = field(kw_only=True)
    original: Event[D_co] = field(kw_only=True)


@register_type
@dataclass(frozen=True)
class FailureEvent(EndEvent[D_co]):
    """The event of an ``on_failure`` handler: the error, the failed run's id and the event that had started it."""

    error: ErrorInfo = field(kw_only=True)


@register_type
@dataclass(frozen=True)
class CancelEvent(EndEvent[D_co]):
    """The event of an ``on_cancel`` handler: the reason, the cancelled run's id and the event that had started it."""

    reason: str = field(kw_only=True)


@register_type
@dataclass(frozen=True)
class CompletionEvent(EndEvent[D_co]):
    """The event of an ``on_complete`` handler: the run's result, its id and the event that had started it."""

    result: Any = field(kw_only=True)


def is_storable(text: object, longest: int) -> TypeGuard[str]:
    """Tell whether this is text of 1 to *longest* characters that every database holds: no NUL, no half surrogate."""
    return isinstance(text, str) and 0 < len(text) <= longest and not _UNSTORABLE.search(text)


def check_name(name: object) -> str:
    """Return *name* if it can name an event or be listened to.

    Raises InvalidEvent for anything but text, an empty or too long name, control characters and halves of surrogates.
    """
    if not isinstance(name, str) or not name:
        raise InvalidEvent(f"An event's name must be text such as 'app/user.created', not {reprlib.repr(name)}")
    if len(name) > LONGEST_NAME:
        raise InvalidEvent(f"The event name {name[:40]!r}… has {len(name)} characters; the limit is {LONGEST_NAME}")
    if found := _UNPRINTABLE.search(name):
        raise InvalidEvent(f"The event name {name!r} holds the character {found[0]!r}; use printable text")
    return name


def check_sendable(name: object) -> str:
    """Return *name* if users may send events of that name: valid, not reserved, no wildcard."""
    text = check_name(name)
    if text.startswith(RESERVED_PREFIX):
        raise InvalidEvent(f"The event name {text!r} is reserved: names with {RESERVED_PREFIX!r} are the engine's own")
    if text.endswith("*"):
        raise InvalidEvent(f"The event name {text!r} ends in a wildcard; wildcards listen, they are not sent")
    return text


def check_pattern(pattern: object) -> str:
    """Return *pattern* if it can be listened to: an exact name, or a prefix up to ``/`` or ``.`` and then ``*``."""
    text = check_name(pattern)
    if "*" in text and not re.fullmatch(r"[^*]*[/.]\*", text):
        raise InvalidEvent(
            f"The wildcard in {text!r} cannot be used: it stands once, last, after '/' or '.' (app/user.*)"
        )
    return text


@functools.lru_cache
def patterns_of(name: str) -> tuple[str, ...]:
    """Return the exact name and every wildcard that matches it: ``a/b.c`` gives ``a/b.c``, ``a/*``, ``a/b.*``."""
    return name, *(name[: match.end()] + "*" for match in re.finditer(r"[/.]", name))


def pattern_matches(pattern: str, name: str) -> bool:
    """Tell whether the name or wildcard *pattern* listens to the event name."""
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern
