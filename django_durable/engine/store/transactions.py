"""Transactions of the engine: on its database, at READ COMMITTED, tried again after deadlocks and lost connections."""

from __future__ import annotations

import functools
import logging
import random
import re
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

from django.db import DatabaseError, InterfaceError, OperationalError, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from ...conf import cached_setting, get_settings

P = ParamSpec("P")
R = TypeVar("R")

REMEDY = "Use 'with transaction.atomic()', or commit it"

READ_COMMITTED = 2  #: psycopg.IsolationLevel, whose module is there only with PostgreSQL
_ROW = re.compile(r"^DETAIL:.*$", re.MULTILINE)
_TRIES = 8
#: Serialization failure, deadlock, and the ends of the project's own lock_timeout and statement_timeout.
_CONFLICTS = ("40001", "40P01", "55P03", "57014")
_LONGEST_PAUSE = 1.0  #: seconds


@cached_setting
def alias() -> str:
    """Return the alias of the database that holds the durable rows."""
    return get_settings().database


def connection() -> BaseDatabaseWrapper:
    """Return this thread's connection to that database."""
    return connections[alias()]


def is_open(depth: int) -> bool:
    """Tell whether a transaction was opened beside the *depth* atomic blocks before, or autocommit was turned off."""
    current = connections[alias()]
    return len(current.atomic_blocks) != depth or not (current.in_atomic_block or current.get_autocommit())


def roll_back_open(depth: int) -> bool:
    """Roll back all of a transaction that somebody left open: the next statements would become part of it.

    Return False if none was open, as is nearly always so.
    """
    if not is_open(depth):
        return False
    current = connection()
    current.close()
    del connections[current.alias]
    return True


@contextmanager
def atomic(*, savepoint: bool = True) -> Iterator[BaseDatabaseWrapper]:
    """Open a transaction of the engine, or a savepoint inside the open one; without *savepoint*, join the open one."""
    current = connection()
    if current.in_atomic_block:
        with transaction.atomic(using=current.alias, savepoint=savepoint):
            yield current
        return
    with _read_committed(current):
        if current.vendor == "sqlite":
            # Takes the write lock at once: a transaction that reads first cannot wait for it later (SQLITE_BUSY).
            with current.cursor() as cursor:
                cursor.execute("UPDATE django_durable_lock SET owner = owner WHERE name = ''")
        yield current


@contextmanager
def one_statement() -> Iterator[None]:
    """Make a statement part of the open transaction, which fails with it, or else a transaction of its own."""
    current = connection()
    if current.in_atomic_block or not current.get_autocommit():
        with atomic(savepoint=False):
            yield
    else:
        yield


@contextmanager
def _read_committed(current: BaseDatabaseWrapper) -> Iterator[None]:
    """Open a transaction that reads what was committed before each statement, not before it began.

    So every decision sees what was committed before it took its lock. The project, the role or the server may have
    another level as its default; the driver names this one as the transaction begins, which costs no statement.
    """
    if current.vendor != "postgresql" or not current.get_autocommit():
        with transaction.atomic(using=current.alias):
            yield
        return
    driver: Any = current.connection
    configured, driver.isolation_level = driver.isolation_level, READ_COMMITTED

    def restore() -> None:
        if current.connection is driver and not driver.closed and current.autocommit:
            driver.isolation_level = configured

    try:
        with transaction.atomic(using=current.alias):
            # Comes before other callbacks, which may open transactions of the project's own.
            transaction.on_commit(restore, using=current.alias)
            yield
    finally:
        restore()


def retried(function: Callable[P, R]) -> Callable[P, R]:
    """Call *function* again after a deadlock, a serialization failure, a busy or a lost database.

    It must change nothing the second time (fenced, conditional): after a lost connection nobody knows whether the first
    try was committed. Inside an open transaction, the error is for the code that opened it.
    """

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        for tried in range(1, _TRIES):
            used = connections[alias()].connection
            try:
                return function(*args, **kwargs)
            except (OperationalError, InterfaceError) as error:
                current = connection()
                if current.in_atomic_block or not (_is_conflict(error) or _is_lost(current, used)):
                    raise
            time.sleep(random.uniform(0, min(_LONGEST_PAUSE, 0.01 * 2**tried)))
        return function(*args, **kwargs)

    return call


def _is_lost(current: BaseDatabaseWrapper, used: object) -> bool:
    # Django opens another connection when it leaves a transaction whose own was lost.
    if current.connection is not None and current.connection is used and current.is_usable():
        return False
    current.close()
    return True


def _is_conflict(error: Exception) -> bool:
    cause = error.__cause__
    if getattr(cause, "sqlstate", None) in _CONFLICTS:
        return True
    if error.args and error.args[0] in (1205, 1213):  # MariaDB's timeout of a lock, and its deadlock
        return True
    return "database is locked" in str(error) or "database table is locked" in str(error)


def _leave_out_rows(record: logging.LogRecord) -> bool:
    """Keep the values out of the log that PostgreSQL quotes of a row that it refuses: they may be a payload."""
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, DatabaseError):
        lines = traceback.format_exception(error)
        record.exc_info, record.exc_text = None, _ROW.sub("DETAIL: left out", "".join(lines).rstrip("\n"))
    return True


logging.getLogger("django_durable").addFilter(_leave_out_rows)
