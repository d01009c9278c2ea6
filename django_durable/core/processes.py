"""Values of which each process has one of its own."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def per_process(make: Callable[[], T]) -> Callable[[], T]:
    """Call *make* once in each process, and return from then on what it made.

    A fork inherits its parent's objects, but not the threads that serve them, and not the right to use their
    connections. So whatever has either is made anew in the fork.
    """
    made: dict[int, T] = {}

    @functools.wraps(make)
    def of_this_process() -> T:
        pid = os.getpid()
        # Threads that make it at the same time all take the one that is kept first.
        return made[pid] if pid in made else made.setdefault(pid, make())

    return of_this_process
