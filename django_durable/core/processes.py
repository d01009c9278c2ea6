"""Values of which each process has one of its own."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def per_process(make: Callable[[], T]) -> Callable[[], T]:
    """Call *make* once in each process, and return from then on what it made.

    A fork inherits its parent's objects, but not the threads that serve them, and not the right to use their
    connections. So whatever has either is made anew in the fork.
    """
    made: list[T] = []
    inherited: list[T] = []  # A client that lets go of a connection in the fork may end it for the parent, too.
    lock = threading.Lock()

    @functools.cache
    def of_this_process() -> T:
        # Threads that ask for the first time together are all given the one that is made first.
        with lock:
            if not made:
                made.append(make())
            return made[0]

    def forget() -> None:
        nonlocal lock
        lock = threading.Lock()  # A thread of the parent may have held it.
        inherited.extend(made)
        made.clear()
        of_this_process.cache_clear()

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=forget)
    return of_this_process
