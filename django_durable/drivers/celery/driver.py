"""Celery carries the hints, runs the work, and keeps the scheduler. The only module that imports Celery.

Messages carry ids only, are acknowledged early, keep no result and are never delayed: losing or doubling one changes
when something happens, never what. They are published by a thread, so that a broker that is down or frozen blocks and
fails nobody.
"""

from __future__ import annotations

import atexit
import functools
import logging
import math
import mmap
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import celery

# Celery imports it when it first publishes: a process that is forked meanwhile would keep it half done.
import celery.backends.base
from billiard.pool import SIG_SOFT_TIMEOUT, soft_timeout_sighandler
from celery import bootsteps, signals
from celery.app import app_or_default
from celery.worker import state
from django.core.checks import CheckMessage, Warning
from django.db import close_old_connections
from django.utils.module_loading import import_string

from ...conf import get_settings
from ...core import fault_points
from ...core.events.events import is_storable
from ...core.functions import registry
from ...core.processes import per_process
from ...engine.leases import leases
from ...engine.runs import catalog
from ...engine.scheduler import scheduler
from ...engine.store.connections import idle_connections, kept_connection
from ...engine.workers.work import work
from ...exceptions import ConfigurationError
from ..base import BaseDriver, get_driver

logger = logging.getLogger("django_durable")

TASK = "django_durable.work"
IDS_IN_A_MESSAGE = 100
LONGEST_QUEUE = 255  #: characters of a queue's name
PICKLES = frozenset({"pickle", "application/x-python-serialize"})
MOST_PENDING = 1_000  #: ids that wait for a broker that does not answer; the scheduler hints the others
INGEST_PAUSE = 0.01  #: seconds between two messages that say only that events wait
LONGEST_PAUSE = 5.0  #: seconds between attempts to reach a broker that is down
STOP_SECONDS = 3.0  #: how long an embedded worker waits for its turns to end

# One byte shared with the pool's processes, which are forked later: Celery tells its main process only.
_stopping = mmap.mmap(-1, 1)


@celery.shared_task(name=TASK, ignore_result=True, acks_late=False, max_retries=0)
def work_on(queue: str, run_ids: Sequence[str], ingest: bool) -> None:
    """Do what a message asks for: see :func:`.workers.work.work`. Ignore what is no hint of ours."""
    try:
        wanted = _read_hint(queue, run_ids)
    except (ValueError, TypeError, AttributeError) as error:
        return logger.warning("A message is no hint and was ignored (%s)", type(error).__name__)
    close_old_connections()
    try:
        with kept_connection() if _is_from_the_broker() else nullcontext(), _soft_limit() as is_over:
            work(queue, wanted, ingest=bool(ingest), should_stop=lambda: _told_to_stop() or is_over())
    finally:
        close_old_connections()
        if _told_to_stop():
            # The pool's processes end without running what atexit keeps.
            get_driver().flush()


def _is_from_the_broker() -> bool:
    """Tell whether the task that runs now came as a message: else its thread's connection is the caller's."""
    request = celery.current_task.request
    return not (request.is_eager or request.called_directly)


def _read_hint(queue: object, run_ids: Sequence[str]) -> list[UUID]:
    """Return the ids; raise ValueError, TypeError or AttributeError for what a publisher of ours never sends."""
    if not is_storable(queue, LONGEST_QUEUE) or not isinstance(run_ids, list | tuple):
        raise ValueError("no queue, or no list of ids")
    return [UUID(run_id) for run_id in run_ids[:IDS_IN_A_MESSAGE]]


def _told_to_stop() -> bool:
    return _stopping[0] != 0


@contextmanager
def _soft_limit() -> Iterator[Callable[[], bool]]:
    """Take Celery's soft time limit as an order to stop at the next step; yield what tells whether it is over.

    The limit is the message's, which works on one run after the other. Raised in whatever runs at that moment, it would
    be the failed attempt of a step that has its own time limit, or interrupt a commit.
    """
    passed = []
    # Only in a process of the prefork pool: elsewhere the signal means something else.
    if SIG_SOFT_TIMEOUT is None or signal.getsignal(SIG_SOFT_TIMEOUT) is not soft_timeout_sighandler:
        yield lambda: False
        return
    signal.signal(SIG_SOFT_TIMEOUT, lambda number, frame: passed.append(number))
    try:
        yield lambda: bool(passed)
    finally:
        signal.signal(SIG_SOFT_TIMEOUT, soft_timeout_sighandler)


@signals.worker_init.connect
def _prepare_worker(sender: Any, **kwargs: Any) -> None:
    """Give every kind of worker the scheduler."""
    _stopping[0] = 0
    sender.app.steps["worker"].add(SchedulerStep)


@signals.worker_shutting_down.connect
def _stop_turns(**kwargs: Any) -> None:
    """Have turns end at their next step, in this process and in the pool's."""
    _stopping[0] = 1


class SchedulerStep(bootsteps.StartStopStep):
    """Runs the scheduler in a thread of the worker's main process, after the pool has forked."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        self.enabled = get_settings().scheduler == "worker"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=scheduler.run, args=(self._stop,), name="durable-scheduler", daemon=True)

    def start(self, parent: Any) -> None:
        """Start to schedule."""
        self._thread.start()

    def stop(self, parent: Any) -> None:
        """Stop, and wait a moment for it."""
        self._stop.set()
        self._thread.join(timeout=2)


@dataclass(slots=True)
class _Hint:
    """What there is to tell a queue's workers, from when on (``time.monotonic()``)."""

    run_ids: set[UUID] = field(default_factory=set)
    ingest: bool = False
    due: float = math.inf

    def add(self, run_ids: Sequence[UUID], *, ingest: bool, due: float) -> None:
        self.ingest = self.ingest or ingest
        self.run_ids.update(run_ids[: MOST_PENDING - len(self.run_ids)])
        self.due = min(self.due, due)


class Publisher:
    """A thread that publishes hints; callers only leave them here.

    One message has all events ingested that are there. So of those that are sent one right after the other, the first
    is told at once, and the others together: else each would occupy a worker that finds nothing left to do.
    """

    def __init__(self, app: Any) -> None:
        self._app = app
        self._hints: dict[str, _Hint] = {}
        self._told: dict[str, float] = {}  #: by queue: when it was last told that events wait
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
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="durable-publisher", daemon=True)
                self._thread.start()
                atexit.register(self.flush)

    def flush(self, timeout: float = 1.0) -> None:
        """Wait until everything is published, at most *timeout* seconds; not in a fork, where its thread is missing."""
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


class CeleryDriver(BaseDriver):
    """Publishes hints as messages of the project's Celery app."""

    keeps_timers = True

    def __init__(self) -> None:
        self.app = _find_app()
        self._publisher = per_process(lambda: Publisher(self.app))

    def wake(self, queue: str, run_ids: Sequence[UUID] = (), *, ingest: bool = False) -> None:
        """Leave a hint to the publisher of this process; drop it where nobody could receive it."""
        if self._has_receiver():
            self._publisher().add(queue, run_ids, ingest=ingest)

    def flush(self) -> None:
        """Give hints that were left a moment to get out."""
        self._publisher().flush()

    def default_queue(self) -> str:
        """Return the setting QUEUE, or Celery's own default, which a plain worker consumes."""
        return get_settings().queue or self._default_queue

    @functools.cached_property
    def _default_queue(self) -> str:
        return str(self.app.conf.task_default_queue)  # It is asked for with every run, and conf is slow to answer.

    def check(self) -> list[CheckMessage]:
        """Return what is wrong with the broker's configuration."""
        if not self.broker_url:
            return [
                Warning(
                    "No message broker is configured, so no worker is told of new work.",
                    hint="Develop with 'manage.py durable dev'. For production set broker_url in your Celery app, "
                    "start RabbitMQ or Redis, and run 'celery -A <project> worker'.",
                    id="durable.W011",
                ),
                *self._check_content(),
            ]
        return [*self._check_timeout(), *self._check_content()]

    def _check_content(self) -> list[CheckMessage]:
        if not PICKLES.intersection(self.app.conf.accept_content or ()):
            return []
        return [
            Warning(
                "The Celery app accepts pickle: whoever can write to the broker runs code in your workers.",
                hint='Set accept_content = ["json"] in your Celery app. Durable functions send JSON only.',
                id="durable.W012",
            )
        ]

    def _check_timeout(self) -> list[CheckMessage]:
        options = self.app.conf.broker_transport_options or {}
        if not self.broker_url.startswith(("redis", "sentinel")) or "socket_timeout" in options:
            return []
        return [
            Warning(
                "A frozen Redis would block the thread that publishes hints for ever.",
                hint='Set broker_transport_options = {"socket_timeout": 5} in your Celery app.',
                id="durable.W004",
            )
        ]

    @property
    def broker_url(self) -> str:
        """The broker's URL, empty if none is configured: Celery would then guess a RabbitMQ on this host."""
        return str(self.app.conf.broker_write_url or self.app.conf.broker_url or "")

    def _has_receiver(self) -> bool:
        return bool(self.broker_url) and (not self.broker_url.startswith("memory") or _embedded.is_set())


def _find_app() -> Any:
    """Return the Celery app of the setting CELERY_APP, or the current one.

    Celery's current app is a thread's own, so it is asked for once, when Django starts.
    """
    path = get_settings().celery_app
    if path is None:
        return app_or_default()
    try:
        return import_string(path.replace(":", "."))
    except ImportError as error:
        raise ConfigurationError(f"DURABLE['CELERY_APP'] = {path!r} is no Celery app: {error}") from error


def _wait_for_turns(worker: threading.Thread, seconds: float) -> None:
    """Wait until no turn is under way: the worker's own thread may sleep longer in its transport, for nothing."""
    deadline = time.monotonic() + seconds
    while worker.is_alive() and leases.turns_are_under_way() and time.monotonic() < deadline:
        worker.join(timeout=0.05)


_embedded = threading.Event()
worker_state: Any = state


@contextmanager
def embedded_worker(concurrency: int = 8) -> Iterator[None]:
    """Run a Celery worker with *concurrency* threads, and the scheduler, inside this process.

    It serves the queues of all functions. Without a configured broker it uses Celery's in-memory transport. On leaving,
    turns stop at their next step; they get 3 seconds.
    """
    driver = get_driver()
    if not isinstance(driver, CeleryDriver):
        raise TypeError(f"An embedded worker needs DURABLE['DRIVER'] = 'celery', not {get_settings().driver!r}")
    app = driver.app
    if not driver.broker_url:
        app.conf.update(broker_url="memory://", broker_transport_options={"polling_interval": 0.02})
    worker = app.WorkController(
        app=app,
        hostname=f"durable-{os.getpid()}@{socket.gethostname()}",
        pool="threads",
        concurrency=concurrency,
        queues=sorted({driver.default_queue(), *map(catalog.queue_of, registry.functions())}),
        without_heartbeat=True,
        without_gossip=True,
        without_mingle=True,
        loglevel=logging.WARNING,
    )
    thread = threading.Thread(target=worker.start, name="durable-worker", daemon=True)
    _embedded.set()
    thread.start()
    try:
        yield
    finally:
        _embedded.clear()
        _stop_turns()
        worker_state.should_stop = 0
        _wait_for_turns(thread, STOP_SECONDS)
        worker_state.should_stop = None
        idle_connections().close()
