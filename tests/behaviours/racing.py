"""Threads that start together, each with a connection of its own, and statements that stop half-way."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from django.db import connection

PATIENCE = 20.0  #: seconds after which something that should happen counts as not happening


class Track:
    """Some threads with open connections, on which several functions are set off at once, again and again."""

    def __init__(self, lanes: int = 3) -> None:
        self._lanes = lanes
        self._pool = ThreadPoolExecutor(lanes)

    def race(self, *racers: Callable[[], Any]) -> list[Any]:
        """Run each in a thread of its own, connected already, all set off at once; return what they return."""
        start = threading.Barrier(len(racers), timeout=PATIENCE)

        def run(racer: Callable[[], Any]) -> Any:
            connection.ensure_connection()
            start.wait()
            return racer()

        return list(self._pool.map(run, racers))

    def close(self) -> None:
        """Close the connections and end the threads."""
        self.race(*[lambda: connection.close()] * self._lanes)
        self._pool.shutdown()


class Balance:
    """Idle statements before one of two racers: one more before whoever won, so that in the end each of them wins."""

    def __init__(self) -> None:
        self._lead = 0

    def first(self, racer: Callable[[], Any]) -> Callable[[], Any]:
        """Return the first racer, held back if it won more often."""
        return _after(self._lead, racer)

    def second(self, racer: Callable[[], Any]) -> Callable[[], Any]:
        """Return the second racer, held back if it won more often."""
        return _after(-self._lead, racer)

    def note(self, *, first_won: bool) -> None:
        """Note who won."""
        self._lead += 1 if first_won else -1


def _after(statements: int, racer: Callable[[], Any]) -> Callable[[], Any]:
    def run() -> Any:
        with connection.cursor() as cursor:
            for _ in range(statements):
                cursor.execute("SELECT 1")
        return racer()

    return run


def stopping_after(text: str, reached: Callable[[], None]) -> Callable[..., Any]:
    """Return a wrapper for ``connection.execute_wrapper``: calls *reached* after the first statement with *text*."""
    left = [reached]

    def execute(run: Callable[..., Any], sql: str, params: Any, many: bool, context: dict[str, Any]) -> Any:
        result = run(sql, params, many, context)
        if text in sql and left:
            left.pop()()
        return result

    return execute


def wait_until(condition: Callable[[], object]) -> None:
    """Wait until *condition* holds; an AssertionError if it does not in time."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.002)


def somebody_waits_for_a_lock(kind: str) -> bool:
    """Tell whether a connection waits for a lock of that kind on PostgreSQL: advisory, transactionid or tuple."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = %s AND pid IN "
            "(SELECT pid FROM pg_stat_activity WHERE datname = current_database())",
            [kind],
        )
        return bool(cursor.fetchone()[0])
