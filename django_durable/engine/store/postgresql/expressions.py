"""Expressions that several statements use: the database's time, lists of columns, and sets of statuses."""

from __future__ import annotations

from collections.abc import Iterable

from ....core.functions import run_statuses
from ....core.replay import operations
from .. import stored_memos
from ..rows import CLAIM_COLUMNS, EventRow

NOW = "(statement_timestamp() + %(shift)s)"  #: see :class:`~django_durable.managers.DatabaseNow`

RUN = ("id", *CLAIM_COLUMNS)  #: what is read of a run that is claimed
EVENT = tuple(EventRow.__slots__)
MEMO = stored_memos.COLUMNS


def columns(names: Iterable[str], table: str) -> str:
    """Return the list of these columns of *table*."""
    return ", ".join(f'{table}."{name}"' for name in names)


def _listed(statuses: Iterable[str]) -> str:
    return f"({', '.join(repr(str(status)) for status in statuses)})"


SETTLED, LIVE = _listed(operations.SETTLED), _listed(run_statuses.LIVE)  #: statuses of steps, and of runs
