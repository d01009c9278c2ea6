"""A Celery worker inside this process, as ``durable dev`` runs one."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from celery.worker import state

from ...conf import get_settings
from ...core.functions import registry
from ...engine.leases import leases
from ...engine.runs import catalog
from ...engine.store.connections import idle_connections
from ..base import get_driver
from .driver import CeleryDriver, embedded_worker_runs
from .task import stop_turns

STOP_SECONDS = 3.0  #: how long it waits for its turns to end

worker_state: Any = state


@contextmanager
def embedded_worker(concurrency: int = 8) -> Iterator[None]:
    """Run a Celery worker with *concurrency* threads, and the scheduler, inside this process.

    It serves the queues of all functions. Without a configured broker it uses Celery's in-memory transport. On leaving,
    turns stop at their next step; they get 3 seconds.
    """
    worker = _make_worker(_celery_driver(), concurrency)
    thread = threading.Thread(target=worker.start, name="durable-worker", daemon=True)
    embedded_worker_runs.set()
    thread.start()
    try:
        yield
    finally:
        embedded_worker_runs.clear()
        _stop(thread)
        idle_connections().close()


def _celery_driver() -> CeleryDriver:
    driver = get_driver()
    if not isinstance(driver, CeleryDriver):
        raise TypeError(f"An embedded worker needs DURABLE['DRIVER'] = 'celery', not {get_settings().driver!r}")
    return driver


def _make_worker(driver: CeleryDriver, concurrency: int) -> Any:
    app = driver.app
    if not driver.broker_url:
        app.conf.update(broker_url="memory://", broker_transport_options={"polling_interval": 0.02})
    return app.WorkController(
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


def _stop(thread: threading.Thread) -> None:
    stop_turns()
    worker_state.should_stop = 0
    _wait_for_turns(thread)
    worker_state.should_stop = None


def _wait_for_turns(thread: threading.Thread) -> None:
    """Wait until no turn is under way: the worker's own thread may sleep longer in its transport, for nothing."""
    deadline = time.monotonic() + STOP_SECONDS
    while thread.is_alive() and leases.turns_are_under_way() and time.monotonic() < deadline:
        thread.join(timeout=0.05)
