"""Crash isolation: a bulkhead around runs that may kill their worker's process.

When a process dies, each run that it had under way may be the cause, and each counts a crash. The more often a run has
crashed, the fewer turns may be beside it. So the runs that only stood near the culprit record something, and are
cleared; and a run that fails as poisoned was alone in its process when that died for the last time.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ...core.processes import per_process
from ..store.rows import MOST_CRASHES
from .leases import Lease

PAUSE = 1.0  #: seconds between two checks whether the worker was told to stop
FEWER = 10  #: each crash divides the number of turns that may be beside the run by this


def most_beside(crashes: int) -> int:
    """Return how many turns a process may have under way with a run that crashed so often; at last only its own."""
    if crashes < 2:
        return sys.maxsize  # One death says next to nothing, and the runs in flight must go on as they were.
    return int(FEWER ** max(0, MOST_CRASHES - 1 - crashes))


class Bulkhead:
    """The turns that this process has under way, and those that wait until there are few enough."""

    def __init__(self) -> None:
        self._present: set[Lease] = set()
        self._suspects: set[Lease] = set()  #: of those that are present
        self._waiting: set[Lease] = set()
        self._changed = threading.Condition()

    def is_open(self) -> bool:
        """Tell whether another run may be claimed: no suspect waits for room or has too many others beside it."""
        return not self._waiting and (not self._suspects or len(self._present) < self._most())

    def wait_until_open(self, should_stop: Callable[[], bool]) -> bool:
        """Wait until the process may claim another run; False if it is told to stop."""
        with self._changed:
            while not self.is_open() and not should_stop():
                self._changed.wait(PAUSE)
            return not should_stop()

    def admits(self, lease: Lease) -> bool:
        """Let a claimed run in if few enough are present; else it waits, and no other run is claimed before it."""
        most = most_beside(lease.crashes)
        with self._changed:
            if len(self._present) >= min(self._most(), most):
                self._waiting.add(lease)
                return False
            self._waiting.discard(lease)
            self._present.add(lease)
            if most < sys.maxsize:
                self._suspects.add(lease)
            return True

    def leave(self, lease: Lease) -> None:
        """Note that the run's turn is over, or that it no longer waits to come in."""
        with self._changed:
            for leases in (self._present, self._suspects, self._waiting):
                leases.discard(lease)
            self._changed.notify_all()

    @contextmanager
    def of(self, lease: Lease, should_stop: Callable[[], bool]) -> Iterator[bool]:
        """Wait, and keep the lease, until the run may go on; yield False if the worker is told to stop first."""
        try:
            yield self.admits(lease) or self._waited(lease, should_stop)
        finally:
            self.leave(lease)

    def _waited(self, lease: Lease, should_stop: Callable[[], bool]) -> bool:
        lease.keep(should_stop)
        try:
            with self._changed:
                while not self.admits(lease):
                    if should_stop():
                        return False
                    self._changed.wait(PAUSE)
            return True
        finally:
            lease.drop()

    def _most(self) -> int:
        return min((most_beside(lease.crashes) for lease in self._suspects), default=sys.maxsize)


@per_process
def bulkhead() -> Bulkhead:
    """Return the bulkhead of this process."""
    return Bulkhead()
