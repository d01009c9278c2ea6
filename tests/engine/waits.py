"""Handlers that wait for ``test/reply``, and the events that they wait for."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

import django_durable as durable
from django_durable.core import clock
from django_durable.core.ids import uuid7
from django_durable.models import Event, Run

HOUR = datetime.timedelta(hours=1)
Handler = Callable[[durable.Event, durable.Step], Any]


def waiting(**options: Any) -> Handler:
    """Return a handler that waits for ``test/reply`` and returns the data of what came."""

    def handler(event: durable.Event, step: durable.Step) -> Any:
        reply = step.wait_for_event("wait", **{"event": "test/reply", "timeout": "1h", **options})
        return reply and reply.data

    return handler


def napping(handler: Handler) -> Handler:
    """Return a handler that sleeps for an hour first."""

    def napper(event: durable.Event, step: durable.Step) -> Any:
        step.sleep("nap", "1h")
        return handler(event, step)

    return napper


def reply(data: dict[str, Any] | None = None, name: str = "test/reply", **options: Any) -> None:
    """Send an event that a wait may wait for."""
    durable.send_event(name, data, **options)


def output(run: Run) -> str | None:
    """Return the run's result, or None while it waits."""
    run.refresh_from_db()
    assert run.status in ("waiting", "completed"), run.error
    return run.output


def store_silently(name: str = "test/reply", data: dict[str, Any] | None = None, *, later: float = 0.0) -> Event:
    """Store an event received *later* seconds from now, whose hint is lost."""
    at = clock.now() + datetime.timedelta(seconds=later)
    return Event.objects.create(id=uuid7(), name=name, data=data or {}, ts=at, received_at=at, ingest_at=at)
