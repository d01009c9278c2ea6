"""The known name that somebody who wrote an unknown one may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(given: str, known: Iterable[str]) -> str | None:
    """Return the known name that is most like *given*, whatever the case of either; None if none is alike."""
    by_lower_case = {name.lower(): name for name in known}
    return next((by_lower_case[name] for name in difflib.get_close_matches(given.lower(), by_lower_case, n=1)), None)


def did_you_mean(given: str, known: Iterable[str], otherwise: str) -> str:
    """Return the end of an error about an unknown name: the nearest known one, or *otherwise* if none is alike."""
    name = nearest(given, known)
    return otherwise if name is None else f"did you mean {name!r}?"
