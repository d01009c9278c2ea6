"""How many rows fit into memory at once: payloads are as large as their senders like, up to a limit for each."""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterable
from itertools import accumulate
from typing import Any

from django.db.models import TextField
from django.db.models.functions import Cast, Coalesce, Length

MOST = 4 * 1024 * 1024  #: characters of JSON in one page, which take up to 50 times as many bytes once they are read
FEW = 8  #: rows that are read whatever their size


def size_of(*columns: str) -> Any:
    """Return the expression of how many characters the payloads in these columns have."""
    return functools.reduce(operator.add, map(_length, columns))


def _length(column: str) -> Any:
    return Coalesce(Length(Cast(column, TextField())), 0)


def first_page(rows: Any, *columns: str, page: int) -> tuple[list[Any], bool]:
    """Return the first rows whose payloads fit, at most *page*, and whether there may be more.

    A few rows cost one query.
    """
    few = min(FEW, page)
    found = list(rows[:few])
    if len(found) < few:
        return found, False
    sizes = list(rows.annotate(payload_size=size_of(*columns)).values_list("payload_size", flat=True)[:page])
    count = max(1, fitting(sizes))
    return (found if count == few else list(rows[:count])), count < len(sizes) or len(sizes) == page


def fitting(sizes: Iterable[int]) -> int:
    """Return how many of the first payloads of these sizes fit together."""
    return sum(total <= MOST for total in accumulate(sizes))
