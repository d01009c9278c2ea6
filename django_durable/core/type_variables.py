"""The type variables of generic classes, with defaults: to strict checkers too, a bare ``Event`` is ``Event[Any]``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    # Every type checker brings its own copy; at run time the standard library's TypeVar is enough.
    from typing_extensions import TypeVar

    D = TypeVar("D", default=Any)  #: the data of an event
    D_co = TypeVar("D_co", covariant=True, default=Any)
    R = TypeVar("R", default=Any)  #: the result of a handler
else:
    from typing import TypeVar

    D = TypeVar("D")
    D_co = TypeVar("D_co", covariant=True)
    R = TypeVar("R")
