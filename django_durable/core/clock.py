"""The one place that asks what time it is.

The database's clock decides in SQL. Python code follows it: the engine reports the database's time with every claim,
and :func:`now` answers in it, so that a worker with a wrong clock does no harm. Tests move both clocks by one shift.
"""

from __future__ import annotations

import datetime

shifted_by = datetime.timedelta()  #: how far a test has moved time; always zero in production
_ahead = datetime.timedelta()  #: the database's clock minus this host's, as last seen


def now() -> datetime.datetime:
    """Return the time, aware, in UTC."""
    return datetime.datetime.now(datetime.UTC) + _ahead + shifted_by


def follow(database_now: datetime.datetime) -> None:
    """Keep to the database's clock, which just said *database_now* (without any shift)."""
    global _ahead
    _ahead = database_now - datetime.datetime.now(datetime.UTC)


def move(by: datetime.timedelta) -> None:
    """Move time, for tests: ``move(timedelta(hours=24))``. Negative values move it back."""
    global shifted_by
    shifted_by += by
