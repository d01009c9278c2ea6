"""The thread that publishes hints. It knows of Celery's app only that one can send a task by its name."""

from __future__ import annotations

import atexit
import logging
import math
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from ...core import fault_points

logger = logging.getLogger("django_durable")

TASK = "django_durable.work"
IDS_IN_A_MESSAGE = 100
MOST_PENDING = 1_000  #: ids that wait for a broker that does not answer; the scheduler hints the others
INGEST_PAUSE = 0.01  #: seconds between two messages that say only that events wait
LONGEST_PAUSE = 5.0  #: seconds between attempts to reach a broker that is down


@dataclass(slots=True)
class _Hint:
    """The news for a queue's workers, and from when on they may be told (``time.monotonic()``)."""

    run_ids: set[UUID] = field(default_factory=set)
    ingest: bool = False
    due: float = math.inf

    def add(self, run_ids: Sequence[UUID], *, ingest: bool, due: float) -> None:
        self.ingest = self.ingest or ingest
        self.run_ids.update(run_ids[: MOST_PENDING - len(self.run_ids)])
        self.due = min(self.due, due)


class Publisher:
    """A thread that publishes hints; callers only leave them here.

    One message has all events ingested that are there. So of events that are sent in quick succession, workers are told
    of the first at once, and of the others together: else each event would occupy a worker that finds nothing left to
    do.
    """

    def __init__(self, app: Any) -> None:
        self._app = app
        self._hints: dict[str, _Hint] = {}
        self._told: dict[str, float] = {}  #: by queue: when its workers were last told that events wait
        self._changed = threading.Condition()
        self._idle = True
        self._thread: threading.Thread | None = None
        self._pid = os.getpid()

    def add(self, queue: str, run_ids: Sequence[UUID], *, ingest: bool) -> None:
        """Have the workers of *queue* told."""
        with self._changed:
            hint, due = self._hints.setdefault(queue, _Hint()), 0.0
            if ingest and not run_ids and queue in self._told:
                due = self._told[queue] + INGEST_PAUSE
            is_sooner = due < hint.due
            hint.add(run_ids, ingest=ingest, due=due)
            if is_sooner:
                self._changed.notify_all()
            self._start()

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="durable-publisher", daemon=True)
            self._thread.start()
            atexit.register(self.flush)

    def flush(self, timeout: float = 1.0) -> None:
        """Wait until everything is published, at most *timeout* seconds.

        In a fork of its process it does not wait: the publisher's thread is not there.
        """
        if os.getpid() != self._pid:
            return
        with self._changed:
            self._changed.wait_for(lambda: self._idle and not self._hints, timeout)

    def _run(self) -> None:
        failures = 0
        while True:
            queue, hint = self._next()
            try:
                self._publish(queue, hint)
                failures = 0
            except Exception as error:
                failures += 1
                if failures == 1:
                    logger.warning("The broker cannot be reached; runs go on when it can: %s", error)
                self.add(queue, list(hint.run_ids), ingest=hint.ingest)
                # Of a long outage, 2**failures would be too large for a float and end the thread.
                time.sleep(min(LONGEST_PAUSE, 0.1 * 2 ** min(failures, 10)))

    def _next(self) -> tuple[str, _Hint]:
        """Wait until a hint is due, and take it."""
        with self._changed:
            self._idle = True
            self._changed.notify_all()
            while (pause := min((hint.due for hint in self._hints.values()), default=math.inf) - time.monotonic()) > 0:
                self._changed.wait(None if pause == math.inf else pause)
            self._idle = False
            queue = min(self._hints, key=lambda queue: self._hints[queue].due)
            hint = self._hints.pop(queue)
            if hint.ingest:
                self._told[queue] = time.monotonic()
            return queue, hint

    def _publish(self, queue: str, hint: _Hint) -> None:
        run_ids = [str(run_id) for run_id in hint.run_ids]
        fault_points.point("publish.before")
        for start in range(0, max(len(run_ids), 1), IDS_IN_A_MESSAGE):
            self._app.send_task(
                TASK,
                (queue, run_ids[start : start + IDS_IN_A_MESSAGE], hint.ingest and start == 0),
                queue=queue,
                retry=False,
                ignore_result=True,
                serializer="json",
            )
        fault_points.point("publish.after")
