"""Values that are stored as a reference and loaded afresh when read: rows, say. A layer above registers their kinds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .tags import Unstorable


@dataclass(frozen=True, slots=True)
class Reference:
    """How values for which *fits* is true are written as an object with ``$`` *name*, and loaded.

    *write* returns the fields beside ``$``, whose values are encoded in turn, or raises Unstorable; *load* takes them.
    """

    name: str
    fits: Callable[[Any], bool]
    write: Callable[[Any], dict[str, Any]]
    load: Callable[[dict[str, Any]], Any]


class NotLoaded(Exception):
    """Carries an error of loading out of the reader: the text is readable, the value that it refers to is not."""

    def __init__(self, error: Exception) -> None:
        self.error = error


_known: dict[str, Reference] = {}


def register(reference: Reference) -> None:
    """Write and read such values from now on."""
    _known[reference.name] = reference


def find(value: object) -> Reference | None:
    """Return how to write *value*; None if it is not stored as a reference."""
    return next((reference for reference in _known.values() if reference.fits(value)), None)


def load(name: str, fields: dict[str, Any]) -> Any:
    """Load the value that a reference refers to; raises NotLoaded, Unstorable, or KeyError for an unknown *name*."""
    reference = _known[name]
    try:
        return reference.load(fields)
    except Unstorable:
        raise
    except Exception as error:
        raise NotLoaded(error) from error
