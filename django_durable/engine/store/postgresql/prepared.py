"""Prepared statements for the engine's own hot ones, where a connection leads straight to one server process.

Planning such a statement costs the server more than executing it. Django turns prepared statements off, because a
pooler that hands every transaction to another server process (PgBouncer) would look for them where they are not, or
worse, find another client's statement of that name. Behind such a pooler, the process id that greeted the connection
is the pooler's own: one look per connection tells.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.utils import CursorWrapper

from ....core import clock

if TYPE_CHECKING:
    Cursor = psycopg.Cursor[Any]
else:
    Cursor = psycopg.Cursor

_THRESHOLD = 1  #: executions of a statement on a connection before it is prepared

_UNKNOWN: Any = object()  #: stands for the cursor of a connection that has executed one statement
_KEPT = "_durable_cursor"  #: attribute of Django's connection, with the driver's one that the cursor belongs to


class PreparingCursor(Cursor):
    """Prepares what it executes again and again; other cursors of the connection do as the project configured."""

    def execute(self, query: Any, params: Any = None, **options: Any) -> PreparingCursor:
        """Execute a statement, prepared if it was executed before."""
        connection = self.connection
        configured = connection.prepare_threshold
        connection.prepare_threshold = _THRESHOLD if configured is None else configured
        try:
            return super().execute(query, params, **options)
        finally:
            connection.prepare_threshold = configured


def rows(alias: str, sql: str, /, **values: Any) -> list[Any]:
    """Execute a hot statement of the engine on this database; return the rows that it gives."""
    wrapper: Any = connections[alias]
    cursor: Any
    raw, cursor = getattr(wrapper, _KEPT, (None, None))
    if cursor is None or cursor is _UNKNOWN or raw is not wrapper.connection or wrapper.queries_logged:
        cursor = hot_cursor(wrapper)
    cursor.execute(sql, {"shift": clock.shifted_by, **values})
    found: list[Any] = cursor.fetchall()
    return found


def hot_cursor(wrapper: BaseDatabaseWrapper) -> CursorWrapper:
    """Return the connection's cursor for statements that are executed again and again; it is not closed after each."""
    if wrapper.connection is None:
        wrapper.ensure_connection()
    raw = wrapper.connection
    kept, cursor = getattr(wrapper, _KEPT, (None, None))
    if kept is not raw:
        # A connection that is opened for one statement, as an idle scheduler's, is not worth a look.
        setattr(wrapper, _KEPT, (raw, _UNKNOWN))
        return wrapper.cursor()
    if cursor is _UNKNOWN:
        cursor = _make_cursor(wrapper)
        setattr(wrapper, _KEPT, (raw, cursor))
    return wrapper.cursor() if cursor is None or wrapper.queries_logged else cursor


def _make_cursor(wrapper: BaseDatabaseWrapper) -> CursorWrapper | None:
    """Return a cursor that prepares; None where that would not be safe."""
    if not _is_direct(wrapper):
        return None
    with wrapper.wrap_database_errors:
        cursor: Any = PreparingCursor(wrapper.connection)
    return wrapper.make_cursor(cursor)


def _is_direct(wrapper: BaseDatabaseWrapper) -> bool:
    """Tell whether the connection's statements are executed by the server process that it was greeted by."""
    raw: Any = wrapper.connection
    with wrapper.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        row = cursor.fetchone()
    return bool(row and row[0] == raw.info.backend_pid)
