"""Paths into events, and the keys under which an index finds what waits for an event.

Values that differ may share a key, but values that CEL or ``match=`` takes for equal never have two. So whoever finds a
wait or an event under a key checks it with the rule itself.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Final

from ...exceptions import InvalidPath

ROOTS: Final = ("data", "user", "name", "id", "ts", "v")
SEGMENT: Final = re.compile(r"[^\s.&]+")
SEPARATOR: Final = " & "
LONGEST_PATH: Final = 255

MISSING: Final = object()
"""The result of :func:`lookup` where a path leads nowhere; None is a value."""

UNINDEXED: Final = b"\x00" * 16
"""The key of every event, and of every wait, for the empty set of paths."""

UNMATCHABLE: Final = b"\xff" * 16
"""The key of a wait that no event can resolve; no event has it."""

_POSITION = re.compile(r"[0-9]{1,9}")
_MAX_DEPTH = 20
_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode


def parse_path(text: str) -> tuple[str, ...]:
    """Split a path into an event, such as ``"data.user.id"``, into its segments.

    Raises InvalidPath where it is malformed or does not start with a part of an event.
    """
    segments = tuple(text.split("."))
    if len(text) > LONGEST_PATH:
        raise InvalidPath(f"The path {text[:40]!r}… has {len(text)} characters; the limit is {LONGEST_PATH}")
    if not all(SEGMENT.fullmatch(segment) for segment in segments):
        raise InvalidPath(f"The path {text!r} cannot be read. Write names joined by dots, such as 'data.user.id'")
    if segments[0] not in ROOTS:
        meant = segments[1:] if segments[0] in ("event", "async") else segments
        meant = meant if meant and meant[0] in ROOTS else ("data", *meant)
        raise InvalidPath(
            f"The path {text!r} does not start with a part of an event ({', '.join(ROOTS)}). "
            f"Did you mean {'.'.join(meant)!r}?"
        )
    return segments


def lookup(document: object, path: Iterable[str]) -> object:
    """Follow *path* through mappings by key and through lists by decimal position; MISSING where it ends early."""
    for segment in path:
        if isinstance(document, Mapping):
            document = document.get(segment, MISSING)
        elif isinstance(document, list) and _POSITION.fullmatch(segment) and int(segment) < len(document):
            document = document[int(segment)]
        else:
            return MISSING
    return document


def index_key(index_path: str, arriving: Mapping[str, Any], secret: bytes = b"") -> bytes | None:
    """Return the key of an arriving event for a set of paths, such as ``"data.kind & data.user.id"``.

    None where the event lacks one of them: then no wait indexed by this set can match. For *secret* see
    :func:`key_of`.
    """
    return key_of(index_path, [lookup(arriving, path) for path in _paths(index_path)], secret)


def key_of(index_path: str, values: Sequence[object], secret: bytes = b"") -> bytes | None:
    """Return the key of *values*, one for each path of the set in its order; None where one is MISSING.

    With a *secret* of at most 64 bytes, nobody who lacks it can find out the values by trying some.
    """
    if not index_path:
        return UNINDEXED
    if any(value is MISSING for value in values):
        return None
    # Paths and JSON contain no line break.
    text = "\n".join([index_path, *(_canonical(_comparable(value)) for value in values)])
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16, key=secret).digest()


@lru_cache(maxsize=4096)
def _paths(index_path: str) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(path.split(".")) for path in index_path.split(SEPARATOR)) if index_path else ()


def _comparable(value: Any, depth: int = 0) -> object:
    """Turn every number into its double, as CEL compares 1 with 1.0. All parts below a great depth become None."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, (int, float)):
        return _double(value)
    if depth == _MAX_DEPTH:
        return None
    if isinstance(value, Mapping):
        return {key: _comparable(item, depth + 1) for key, item in value.items()}
    return [_comparable(item, depth + 1) for item in value]


def _double(number: float) -> float:
    try:
        return float(number) + 0.0  # -0.0 becomes 0.0
    except OverflowError:
        return math.inf if number > 0 else -math.inf


def same(left: Any, right: Any) -> bool:
    """Tell whether two plain JSON values are equal: 1 equals 1.0; neither equals true or "1"."""
    pairs = [(left, right)]
    while pairs:  # no recursion, as events may be nested deeply
        left, right = pairs.pop()
        if isinstance(left, Mapping) and isinstance(right, Mapping):
            if left.keys() != right.keys():
                return False
            pairs.extend((left[key], right[key]) for key in left)
        elif isinstance(left, list) and isinstance(right, list):
            if len(left) != len(right):
                return False
            pairs.extend(zip(left, right, strict=True))
        elif isinstance(left, bool) != isinstance(right, bool) or left != right:
            return False
    return True
