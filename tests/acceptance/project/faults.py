"""Kills this process before or after a chosen statement of its main thread: that of a solo worker's task."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.db.backends.signals import connection_created

from .ledger import write


@dataclass(slots=True)
class Fault:
    """Counts statements and, at number *kill_at*, dies *moment* ("before" or "after") it; 0 only counts."""

    kill_at: int
    moment: str
    count: int = 0

    def __call__(self, execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
        """Stand between Django and its database: an execute_wrapper."""
        if threading.current_thread() is not threading.main_thread():
            return execute(sql, params, many, context)
        self.count += 1
        write("statements", number=self.count, sql=" ".join(sql.split())[:200])
        self._die("before", sql)
        result = execute(sql, params, many, context)
        self._die("after", sql)
        return result

    def _die(self, moment: str, sql: str) -> None:
        if (self.count, self.moment) == (self.kill_at, moment):
            write("kills", number=self.count, moment=moment, sql=" ".join(sql.split())[:200])
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(self, *, connection: Any, **kwargs: Any) -> None:
        """Stand before the statements of a connection that was just made."""
        if self not in connection.execute_wrappers:
            connection.execute_wrappers.append(self)


_installed: Fault | None = None


def install(kill_at: int, moment: str) -> None:
    """Have this process die at that statement."""
    global _installed
    _installed = Fault(kill_at, moment)
    connection_created.connect(_installed.watch, weak=False)


def statements() -> int:
    """Return how many statements the main thread has sent; 0 where nothing counts."""
    return _installed.count if _installed else 0
