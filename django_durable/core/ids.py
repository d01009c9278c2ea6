"""Ids that sort by time: UUID version 7 (RFC 9562, section 5.7)."""

from __future__ import annotations

import os
import threading
import uuid

from . import clock

_lock = threading.Lock()
_last = 0


def _renew_lock() -> None:
    """Give a forked process a lock of its own: a thread of the parent may have held it at that moment."""
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


def uuid7() -> uuid.UUID:
    """Return a new id, greater than every earlier one of this process.

    48 bits of milliseconds, then 26 bits that count up within a millisecond from a random start (RFC 9562, section
    6.2, method 1), then 48 random bits, so that processes do not collide.
    """
    global _last
    milliseconds = int(clock.now().timestamp() * 1000)
    seed = milliseconds << 26 | int.from_bytes(os.urandom(3), "big")
    with _lock:
        # Ids grow even while the clock stands still or steps back.
        _last = counter = max(seed, _last + 1)
    return _assemble(counter, int.from_bytes(os.urandom(6), "big"))


def _assemble(counter: int, tail: int) -> uuid.UUID:
    milliseconds, sequence = counter >> 26, counter & 0x3FFFFFF
    high = milliseconds << 16 | 0x7 << 12 | sequence >> 14
    low = 0b10 << 62 | (sequence & 0x3FFF) << 48 | tail
    return uuid.UUID(int=high << 64 | low)
