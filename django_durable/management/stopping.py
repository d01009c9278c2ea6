"""Commands that run until a signal tells them to stop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


@contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """Give an event that INT and TERM set. A second signal has its former effect: it ends the process at once."""
    stop = threading.Event()

    def tell(number: int, frame: FrameType | None) -> None:
        signal.signal(number, before[number] or signal.SIG_DFL)
        stop.set()

    before: dict[int, Any] = {number: signal.signal(number, tell) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)
