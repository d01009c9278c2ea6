"""Rows as the tests of the models need them."""

from __future__ import annotations

from typing import Any

from django_durable.core import clock
from django_durable.models import Event, Function, Run, Step


def make_function(id: str = "shop/fulfil") -> Function:
    """Return a function's row; one that exists is left."""
    first = {"slug": id.rpartition("/")[2], "first_seen": clock.now(), "last_seen": clock.now()}
    return Function.objects.get_or_create(id=id, defaults=first)[0]


def make_event(**values: Any) -> Event:
    """Store an event."""
    now = clock.now()
    return Event.objects.create(name="shop/paid", **{"ts": now, "received_at": now, "ingest_at": now, **values})


def make_run(**values: Any) -> Run:
    """Store a run, which is queued if nothing else is said."""
    now = clock.now()
    return Run.objects.create(function=make_function(), **{"created_at": now, "ready_at": now, **values})


def make_step(run: Run, **values: Any) -> Step:
    """Store a step, which waits if nothing else is said."""
    given = {"key": bytes(16), "name": "charge", "kind": "run", "status": "waiting", "planned_at": clock.now()}
    return Step.objects.create(run=run, **given | values)
