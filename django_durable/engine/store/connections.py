"""Connections kept from one message to the next.

Celery closes Django's connections around every task. Connecting anew costs more than a short run: the new server
process has nothing cached and no statement prepared.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

from ...core.processes import per_process
from .transactions import alias

FRESH = 5.0  #: seconds for which an idle connection is taken to be alive
LONGEST_IDLE = 60.0  #: seconds after which a connection that no message needed is closed


@dataclass(frozen=True, slots=True)
class _Idle:
    connection: BaseDatabaseWrapper
    since: float  #: time.monotonic()


class IdleConnections:
    """The connections of this process to the durable database that no message uses now."""

    def __init__(self) -> None:
        self._idle: list[_Idle] = []
        self._lock = threading.Lock()

    def take(self) -> BaseDatabaseWrapper | None:
        """Return the connection that was used last, if any; one that was lost meanwhile is closed, to connect again."""
        with self._lock:
            kept = self._idle.pop() if self._idle else None
        if kept is None:
            return None
        current = kept.connection
        is_doubtful = current.errors_occurred or time.monotonic() - kept.since > FRESH
        if current.connection is not None and is_doubtful and not current.is_usable():
            current.close()
        current.errors_occurred = False
        return current

    def give_back(self, current: BaseDatabaseWrapper) -> None:
        """Keep this connection, and close those that have been idle for long."""
        now = time.monotonic()
        with self._lock:
            self._idle.append(_Idle(current, now))
            unused = [each for each in self._idle if now - each.since > LONGEST_IDLE]
            self._idle = self._idle[len(unused) :]
        for each in unused:
            each.connection.close()

    def close(self) -> None:
        """Close the idle connections."""
        with self._lock:
            idle, self._idle = self._idle, []
        for each in idle:
            each.connection.close()


@contextmanager
def kept_connection() -> Iterator[None]:
    """Work on a kept connection to the durable database, and keep it afterwards.

    Where Django pools connections (``OPTIONS["pool"]``) there is nothing to do: the pool keeps them.
    """
    name, kept = alias(), idle_connections()
    if connections[name].settings_dict["OPTIONS"].get("pool") or connections[name].in_atomic_block:
        yield
        return
    taken = kept.take()
    if taken is not None:
        connections[name].close()
        connections[name] = taken
    try:
        yield
    finally:
        worked_on = connections[name]
        del connections[name]
        if worked_on.in_atomic_block or (worked_on.connection is not None and not worked_on.autocommit):
            worked_on.close()
        else:
            if not worked_on.allow_thread_sharing:
                worked_on.inc_thread_sharing()
            kept.give_back(worked_on)


@per_process
def idle_connections() -> IdleConnections:
    """Return the idle connections of this process."""
    return IdleConnections()
