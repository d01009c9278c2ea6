"""Querysets to read with, and the database's time in queries."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any

from django.db import models
from django.db.models import Func

from .core import clock

if TYPE_CHECKING:
    from django.db.backends.base.base import BaseDatabaseWrapper
    from django.db.models.sql.compiler import SQLCompiler

    from .models import Event, Run, Step  # noqa: F401  # for the strings below


_MICROSECOND = datetime.timedelta(microseconds=1)


class DatabaseNow(Func):
    """The database's time, moved by the clock's shift and by *later*, as an expression of a query.

    SQLite shares this host's clock, and has only milliseconds of its own. So there the expression is the clock's value.
    """

    output_field = models.DateTimeField()

    def __init__(self, later: datetime.timedelta = datetime.timedelta()) -> None:
        self.later = later
        super().__init__()

    def as_sql(  # type: ignore[override]
        self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, **extra: Any
    ) -> tuple[str, Any]:
        """Return the clock's value as a parameter."""
        return "%s", [connection.ops.adapt_datetimefield_value(clock.now() + self.later)]

    def as_postgresql(self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, **extra: Any) -> tuple[str, Any]:
        """Return the statement's time: now() would be the transaction's."""
        return "(statement_timestamp() + %s)", [clock.shifted_by + self.later]

    def as_mysql(self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, **extra: Any) -> tuple[str, Any]:
        """Return the time in UTC, as Django stores it."""
        return "(utc_timestamp(6) + interval %s microsecond)", [(clock.shifted_by + self.later) // _MICROSECOND]


NOW = DatabaseNow()


class EventQuerySet(models.QuerySet["Event"]):
    """Events."""

    def to_ingest(self) -> EventQuerySet:
        """Events that are due and not ingested, in the order in which they are ingested."""
        return self.filter(ingested_at=None, ingest_at__lte=DatabaseNow()).order_by("ingest_at", "id")


class RunQuerySet(models.QuerySet["Run"]):
    """Runs."""

    def due(self) -> RunQuerySet:
        """Runs whose alarm has rung, oldest first."""
        return self.filter(next_at__lte=DatabaseNow()).order_by("next_at")


class StepQuerySet(models.QuerySet["Step"]):
    """Steps."""

    def in_order(self) -> StepQuerySet:
        """Steps in the order in which they were reached."""
        return self.order_by("planned_at", "seq")
