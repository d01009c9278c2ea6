"""Bounds on the time of one attempt of a step."""

from __future__ import annotations

import datetime
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ...exceptions import StepTimeout

_AT_ONCE = 0.001  #: seconds; 0 would stop the timer


def seconds_of(timeout: datetime.timedelta | None) -> float | None:
    """Return the time-out in seconds."""
    return None if timeout is None else timeout.total_seconds()


@contextmanager
def limited(timeout: datetime.timedelta) -> Iterator[None]:
    """Raise StepTimeout in the code inside once its time is over.

    In the main thread of a process, such as those of Celery's prefork pool, a timer signal interrupts the code. Nothing
    can interrupt another thread, so there the error is raised when the code is done.
    """
    ends = time.monotonic() + timeout.total_seconds()
    with _timer(timeout):
        yield
    if time.monotonic() > ends:
        raise StepTimeout(timeout)


@contextmanager
def _timer(timeout: datetime.timedelta) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def interrupt(*args: Any) -> None:
        raise StepTimeout(timeout)

    before = signal.signal(signal.SIGALRM, interrupt)
    began = time.monotonic()
    left, interval = signal.setitimer(signal.ITIMER_REAL, timeout.total_seconds())
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if left:  # A process has one such timer: this one is the project's own.
            left = max(left - (time.monotonic() - began), _AT_ONCE)
            signal.setitimer(signal.ITIMER_REAL, left, interval)
