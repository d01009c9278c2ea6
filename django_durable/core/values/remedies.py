"""What to do instead, for values that cannot be stored."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .tags import Unstorable


def refusal(value: object) -> Unstorable:
    """Return the error for a value of a type that cannot be stored, with the remedy for that type."""
    kind = next((remedy for fits, remedy in _REMEDIES if fits(value)), _OTHERWISE)
    return Unstorable(f"a value of type {_type_name(value)} cannot be stored", kind)


def _type_name(value: object) -> str:
    cls = value.__class__
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


def _has(*names: str) -> Callable[[Any], bool]:
    # The class is asked, because an instance may run code of its own to answer. A lazy object names the class of the
    # object that it stands for.
    return lambda value: all(hasattr(value.__class__, name) for name in names)


def _is(*types: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, types)


_OTHERWISE = "Return plain values, a dataclass, or an id to load it by"
_REMEDIES: list[tuple[Callable[[Any], bool], str]] = [
    (inspect.isawaitable, "Await it and return its result"),
    (_is(type), "Return its name, or an instance"),
    (callable, "Call it and return its result"),
    (inspect.ismodule, "Return its name"),
    (_has("_meta", "pk"), "Return its primary key, value.pk, and load it where it is needed"),
    (_has("iterator", "using"), 'Return a list of primary keys: list(queryset.values_list("pk", flat=True))'),
    (_has("getlist"), "Return value.dict(), or dict(value.lists()) to keep all values of a key"),
    (_has("read", "close"), "Return its path or its content, or an id to load it by"),
    (_has("__next__"), "Return a list of what it yields, list(value), or of primary keys"),
    (_has("_proxy____cast"), "Return str(value)"),
    (_is(BaseException), "Raise it, or return str(error)"),
    (_is(bytearray, memoryview), "Return bytes(value)"),
    (_is(os.PathLike), "Return str(value)"),
    (_has("model_dump"), "Return value.model_dump()"),
    (_has("__attrs_attrs__"), "Return attrs.asdict(value)"),
    (_has("tolist"), "Return value.tolist()"),
    (_is(Mapping), "Return dict(value)"),
    (_is(Iterable), "Return list(value)"),
]
