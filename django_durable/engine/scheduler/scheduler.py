"""The scheduler: wakes runs that are due, hints again at runs that no worker took, frees runs of dead workers.

A run or branch is due when the alarm in its row has rung. Any number of schedulers may run; one leads and polls, the
others wait.
"""

from __future__ import annotations

import datetime
import logging
import math
import random
import threading
import time
from collections.abc import Callable
from typing import Any
from uuid import UUID

from django.db import DatabaseError

from ...conf import get_settings
from ...core import fault_points
from ...core.ids import uuid7
from ...drivers.base import get_driver
from ...models import Run, RunStatus, Step, StepKind, StepStatus
from ..leases.leases import BEAT, worker_name
from ..runs import catalog, timers
from ..runs.starting import announce
from ..store.rows import ReadyRun, SchedulerView
from ..store.stores import get_store
from ..store.transactions import alias, connection

logger = logging.getLogger("django_durable")

BATCH = 200  #: due runs handled at once
POLL = 1.7  #: seconds between two looks, if nothing is known to be due sooner; nearer timers are kept by their process
LEADERSHIP = datetime.timedelta(seconds=1.95)  #: how long a silent leader keeps the others waiting
DEPUTYSHIP = datetime.timedelta(
    seconds=13
)  #: how long a silent deputy, who watches the leader, keeps the others waiting: shorter than a lease
SOONEST = 0.02  #: seconds between two looks at least, so that rows due meanwhile are handled together
BRIEF = 0.25  #: seconds for which any connection is kept
LONG = 2.0  #: seconds for which PostgreSQL's connection is kept
SPARED = 2 * BEAT  #: seconds after an outage in which workers may renew their leases before any is taken from them
LONGEST_OUTAGE_PAUSE = 8.0  #: seconds between two looks while the database fails
SHORTEST_PAUSE, LONGEST_PAUSE = 1.0, 60.0  #: seconds between two hints that events wait for ingest


def run(stop: threading.Event) -> None:
    """Schedule until *stop* is set. Errors are logged, and the pauses before the next look grow with them."""
    scheduler, known, failures = Scheduler(), False, 0
    while not stop.is_set():
        try:
            if not known:
                catalog.sync()
                known = True
            pause, failures = scheduler.look(), 0
        except DatabaseError as error:
            logger.warning("The scheduler cannot use the database: %s", error)
            scheduler.spare_leases()
            pause, failures = _pause_after(failures), failures + 1
        except Exception:
            # No error may end the only thread that wakes runs.
            logger.exception("The scheduler's look failed; it looks again")
            pause, failures = _pause_after(failures), failures + 1
        if failures or pause > _kept_for():
            connection().close()
        stop.wait(pause)
    connection().close()


def _kept_for() -> float:
    """Return for how long a connection is kept open while the scheduler sleeps.

    Processes that are forked meanwhile inherit it. PostgreSQL's drivers leave a connection alone that another process
    made; others would end its session when they tidy up in the fork.
    """
    return LONG if connection().vendor == "postgresql" else BRIEF


_Alarm = dict[str, Any]  #: of a run or a branch


def _pause_after(failures: int) -> float:
    """Return how long to leave the database alone; the schedulers of many workers do not come back all at once."""
    return random.uniform(0.5, 1.0) * min(LONGEST_OUTAGE_PAUSE, math.ldexp(POLL, min(failures, 10)))


class Scheduler:
    """One scheduler, with a name of its own for the leadership."""

    def __init__(self) -> None:
        self._name = f"{worker_name()}:{uuid7().hex}"
        self._hinted = 0.0  #: time.monotonic() of the last hint that events wait
        self._pause = SHORTEST_PAUSE
        self._reads_past = 0.0  #: time.monotonic() from which on it may read past a flood of hints again
        self._waiting: UUID | None = None  #: the event that is first to be ingested, as last seen
        self._spares_until = 0.0  #: time.monotonic() until which no lease is taken

    def spare_leases(self) -> None:
        """Note that the database was away: workers that could not renew their leases get a moment to do so."""
        self._spares_until = time.monotonic() + SPARED

    def look(self) -> float:
        """Handle what is due if this scheduler leads; return after how many seconds to look again."""
        view = get_store().look(self._name, leadership=LEADERSHIP, deputyship=DEPUTYSHIP)
        if not view.leads:
            # The deputy looks when the leader is late, the others when the deputy is, and not all at once.
            return max(SOONEST, view.patience + (0 if view.is_deputy else random.random()))
        moments = self._events(view)
        for rings_at, handle in ((view.run_at, self._runs), (view.branch_at, self._branches)):
            if rings_at is None or rings_at > view.now:
                moments.append(rings_at)
            else:
                moments += handle(view.now)
        seconds = min(((moment - view.now).total_seconds() for moment in moments if moment), default=POLL)
        return min(POLL, max(SOONEST, seconds)) if seconds > 0 else 0.0

    def _runs(self, now: datetime.datetime) -> list[datetime.datetime | None]:
        """Handle the runs whose alarms have rung; return when the next one rings, which is now if there may be more."""
        alarms = Run.objects.using(alias()).filter(next_at__isnull=False)
        rows: Any = alarms.order_by("next_at").values("id", "queue", "status", "next_at")[:BATCH]
        first = list(rows)
        return self._handled([*first, *self._beyond_hints(first, now)], now, self._handle)

    def _branches(self, now: datetime.datetime) -> list[datetime.datetime | None]:
        """Handle the branches whose alarms have rung; return when the next one rings, now if there may be more."""
        branches = Step.objects.using(alias()).filter(kind=StepKind.BRANCH, next_at__isnull=False)
        rows: Any = branches.order_by("next_at").values("run_id", "run__queue", "status", "next_at")[:BATCH]
        return self._handled(list(rows), now, self._handle_branches)

    def _handled(
        self, alarms: list[_Alarm], now: datetime.datetime, handle: Callable[[list[_Alarm]], None]
    ) -> list[datetime.datetime | None]:
        due = [each for each in alarms if each["next_at"] <= now]
        if time.monotonic() < self._spares_until:
            due = [each for each in due if each["status"] != RunStatus.RUNNING]
        handle(due)
        if len(due) >= BATCH:
            return [now]
        return [each["next_at"] for each in alarms if each["next_at"] > now]

    def _beyond_hints(self, first: list[_Alarm], now: datetime.datetime) -> list[_Alarm]:
        """Return further due runs that need more than a hint: a flood of queued ones keeps no timer of others waiting.

        It reads past the flood, so it looks once in a poll.
        """
        due = [run for run in first if run["next_at"] <= now]
        is_flooded = len(due) == BATCH and any(run["status"] == RunStatus.QUEUED for run in due)
        if not is_flooded or time.monotonic() < self._reads_past:
            return []
        self._reads_past = time.monotonic() + POLL
        known = [run["id"] for run in due]
        others = Run.objects.using(alias()).due().filter(status__in=(RunStatus.WAITING, RunStatus.RUNNING))
        fields: Any = others.exclude(id__in=known).values("id", "queue", "status", "next_at")
        return list(fields[:BATCH])

    def _handle(self, due: list[_Alarm]) -> None:
        rehint = get_settings().rehint
        queued, waiting, running = ([run for run in due if run["status"] == each] for each in _WITH_ALARM)
        get_store().hint_later([run["id"] for run in queued], rehint=rehint)
        get_store().expire([run["id"] for run in running], rehint=rehint)
        if due:
            fault_points.point("sweep.after_update")
        announce([ReadyRun(run["id"], run["queue"]) for run in [*queued, *running]])
        if waiting:
            timers.fire([run["id"] for run in waiting])

    def _handle_branches(self, due: list[_Alarm]) -> None:
        """Hint again at branches that nobody took, free those of dead workers, and wake those that waited."""
        others = {each["run_id"]: each["run__queue"] for each in due if each["status"] != StepStatus.WAITING}
        if others:
            get_store().expire_branches(list(others), rehint=get_settings().rehint)
            announce([ReadyRun(run_id, queue) for run_id, queue in others.items()])
        waiting = {each["run_id"] for each in due if each["status"] == StepStatus.WAITING}
        if waiting:
            timers.fire(list(waiting))

    def _events(self, view: SchedulerView) -> list[datetime.datetime | None]:
        """Hint that events wait, with growing pauses while one event stays first; return when the next is due."""
        if view.event_at is None or view.event_at > view.now:
            return [view.event_at]
        if view.event_id != self._waiting:
            self._waiting, self._pause = view.event_id, SHORTEST_PAUSE
        if time.monotonic() - self._hinted >= self._pause:
            self._hinted, self._pause = time.monotonic(), min(LONGEST_PAUSE, 2 * self._pause)
            get_driver().wake(get_driver().default_queue(), ingest=True)
        return []


_WITH_ALARM = (RunStatus.QUEUED, RunStatus.WAITING, RunStatus.RUNNING)
