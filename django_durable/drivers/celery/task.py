"""A worker's side: the task that a message calls, how it is told to stop, and the scheduler beside it."""

from __future__ import annotations

import logging
import mmap
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any
from uuid import UUID

import celery
from billiard.pool import SIG_SOFT_TIMEOUT, soft_timeout_sighandler
from celery import bootsteps, signals
from django.db import close_old_connections

from ...conf import get_settings
from ...core.events.events import is_storable
from ...engine.scheduler import scheduler
from ...engine.store.connections import kept_connection
from ...engine.workers.work import work
from ..base import get_driver
from .publisher import IDS_IN_A_MESSAGE, TASK

logger = logging.getLogger("django_durable")

LONGEST_QUEUE = 255  #: characters of a queue's name

# One byte shared with the pool's processes, which are forked later: Celery tells its main process only.
_stopping = mmap.mmap(-1, 1)


@celery.shared_task(name=TASK, ignore_result=True, acks_late=False, max_retries=0)
def work_on(queue: str, run_ids: Sequence[str], ingest: bool) -> None:
    """Do what a message asks for, as :func:`.workers.work.work` describes; ignore a message that is not a hint."""
    try:
        wanted = _read_hint(queue, run_ids)
    except (ValueError, TypeError, AttributeError) as error:
        return logger.warning("A message is not a hint and was ignored (%s)", type(error).__name__)
    close_old_connections()
    try:
        with kept_connection() if _is_from_the_broker() else nullcontext(), _soft_limit() as is_over:
            work(queue, wanted, ingest=bool(ingest), should_stop=lambda: _told_to_stop() or is_over())
    finally:
        close_old_connections()
        if _told_to_stop():
            # The pool's processes end without calling the functions that atexit keeps.
            get_driver().flush()


def _is_from_the_broker() -> bool:
    """Tell whether a message called the task: else the connection of its thread is the caller's."""
    request = celery.current_task.request
    return not (request.is_eager or request.called_directly)


def _read_hint(queue: object, run_ids: Sequence[str]) -> list[UUID]:
    """Return the ids; raise ValueError, TypeError or AttributeError for a message that no publisher of ours sends."""
    if not is_storable(queue, LONGEST_QUEUE) or not isinstance(run_ids, list | tuple):
        raise ValueError("no queue, or no list of ids")
    return [UUID(run_id) for run_id in run_ids[:IDS_IN_A_MESSAGE]]


def _told_to_stop() -> bool:
    return _stopping[0] != 0


@contextmanager
def _soft_limit() -> Iterator[Callable[[], bool]]:
    """Take Celery's soft time limit as an order to stop at the next step; yield a test whether the limit has passed.

    The limit is the message's, which works on one run after the other. Raised in the code that runs at that moment, it
    would be the failed attempt of a step that has its own time limit, or interrupt a commit.
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
def stop_turns(**kwargs: Any) -> None:
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
