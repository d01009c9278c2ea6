"""The driver that works in this process, at once: for tests, scripts and the shell."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from uuid import UUID

from ..engine.workers.work import work
from .base import BaseDriver


class InlineDriver(BaseDriver):
    """Works as soon as it is woken, in the caller's thread, until nothing is ready. Timers need the scheduler."""

    def __init__(self) -> None:
        self._at_work = threading.local()

    def wake(self, queue: str, run_ids: Sequence[UUID] = (), *, ingest: bool = False) -> None:
        """Work now; if the caller is at work already, it goes on with this wake-up afterwards."""
        hints = getattr(self._at_work, "hints", None)
        if hints is not None:
            hints.append((run_ids, ingest))
            return
        self._at_work.hints = hints = [(run_ids, ingest)]
        try:
            self._work(hints)
        finally:
            self._at_work.hints = None

    def _work(self, hints: list[tuple[Sequence[UUID], bool]]) -> None:
        while hints:
            run_ids = dict.fromkeys(run_id for named, _ in hints for run_id in named)
            ingest = any(asked for _, asked in hints)
            hints.clear()
            work(None, list(run_ids), ingest=ingest)
