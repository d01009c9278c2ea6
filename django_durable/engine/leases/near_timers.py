"""Near timers: those due before the scheduler looks again, kept by the process that parked their runs.

The row stays the truth: the scheduler's next look finds a timer that was lost with its process.
"""

from __future__ import annotations

import heapq
import logging
import threading
import time
from uuid import UUID

from django.db import Error

from ...core.processes import per_process
from ..runs import timers
from ..store.transactions import connection

logger = logging.getLogger("django_durable")

NEAR = 1.8  #: seconds; timers farther away are the scheduler's
_LATE = 0.003  #: seconds; the database's clock, which decides, may be a little behind this process's


class NearTimers:
    """A thread that fires the near timers of this process, each when it is due."""

    def __init__(self) -> None:
        self._due: list[tuple[float, UUID]] = []
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def set(self, run_id: UUID, seconds: float) -> None:
        """Fire the run's timer in so many seconds."""
        with self._changed:
            heapq.heappush(self._due, (time.monotonic() + seconds + _LATE, run_id))
            self._changed.notify()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="durable-alarms", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while True:
            _fire(self._wait())

    def _wait(self) -> list[UUID]:
        with self._changed:
            while not self._due or self._due[0][0] > time.monotonic():
                self._changed.wait(self._due[0][0] - time.monotonic() if self._due else None)
            ringing = []
            while self._due and self._due[0][0] <= time.monotonic():
                ringing.append(heapq.heappop(self._due)[1])
            return ringing


def _fire(run_ids: list[UUID]) -> None:
    try:
        timers.fire(run_ids)
    except Error as error:
        logger.warning("Timers are left to the scheduler: %s", error)
    finally:
        connection().close()


@per_process
def near_timers() -> NearTimers:
    """Return the near timers of this process."""
    return NearTimers()
