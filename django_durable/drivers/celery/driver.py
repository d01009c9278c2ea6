"""The driver of projects that have a broker: hints are messages of the project's Celery app."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator, Sequence
from typing import Any
from uuid import UUID

# Celery imports this module when it first publishes: a process that is forked meanwhile would have half of it for ever.
import celery.backends.base  # noqa: F401
from celery.app import app_or_default
from django.core.checks import CheckMessage, Warning
from django.utils.module_loading import import_string

from ...conf import get_settings
from ...core.processes import per_process
from ...exceptions import ConfigurationError
from ..base import BaseDriver
from . import task  # noqa: F401  # registers the task and the hooks of workers
from .publisher import Publisher

PICKLES = frozenset({"pickle", "application/x-python-serialize"})

embedded_worker_runs = threading.Event()  #: set while a worker in this process takes in-memory messages


class CeleryDriver(BaseDriver):
    """Publishes hints as messages of the project's Celery app."""

    keeps_timers = True

    def __init__(self) -> None:
        self.app = _find_app()
        self._publisher = per_process(lambda: Publisher(self.app))

    def wake(self, queue: str, run_ids: Sequence[UUID] = (), *, ingest: bool = False) -> None:
        """Leave a hint to this process's publisher; drop it where nobody could receive it."""
        if self._has_receiver():
            self._publisher().add(queue, run_ids, ingest=ingest)

    def flush(self) -> None:
        """Give pending hints a moment to get out."""
        self._publisher().flush()

    def default_queue(self) -> str:
        """Return the setting QUEUE, or Celery's own default: the queue that a plain worker consumes."""
        return get_settings().queue or self._default_queue

    @functools.cached_property
    def _default_queue(self) -> str:
        # Cached, because every run asks for it, and Celery's conf is slow to answer.
        return str(self.app.conf.task_default_queue)

    def check(self) -> list[CheckMessage]:
        """Return the faults of the Celery app's configuration."""
        return [*self._check_broker(), *self._check_content()]

    def _check_broker(self) -> Iterator[CheckMessage]:
        options = self.app.conf.broker_transport_options or {}
        if not self.broker_url:
            yield Warning(
                "No message broker is configured, so no worker is told of new work.",
                hint="Develop with 'manage.py durable dev'. For production set broker_url in your Celery app, "
                "start RabbitMQ or Redis, and run 'celery -A <project> worker'.",
                id="durable.W011",
            )
        elif self.broker_url.startswith(("redis", "sentinel")) and "socket_timeout" not in options:
            yield Warning(
                "A frozen Redis would block the thread that publishes hints for ever.",
                hint='Set broker_transport_options = {"socket_timeout": 5} in your Celery app.',
                id="durable.W004",
            )

    def _check_content(self) -> Iterator[CheckMessage]:
        if PICKLES.intersection(self.app.conf.accept_content or ()):
            yield Warning(
                "The Celery app accepts pickle: whoever can write to the broker runs code in your workers.",
                hint='Set accept_content = ["json"] in your Celery app. Durable functions send JSON only.',
                id="durable.W012",
            )

    @property
    def broker_url(self) -> str:
        """The broker's URL, empty if none is configured: Celery would then guess a RabbitMQ on this host."""
        return str(self.app.conf.broker_write_url or self.app.conf.broker_url or "")

    def _has_receiver(self) -> bool:
        return bool(self.broker_url) and (not self.broker_url.startswith("memory") or embedded_worker_runs.is_set())


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
        reason = f"DURABLE['CELERY_APP']: {path!r} cannot be imported ({error})"
        raise ConfigurationError(f"{reason}; name the dotted path of a Celery app") from error
