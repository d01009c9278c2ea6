"""Rows as the engine would write them, for pages to show."""

from __future__ import annotations

import datetime
import json
from typing import Any

from django_durable.core import clock
from django_durable.core.replay.operations import step_key
from django_durable.models import ENDED, Event, Function, Run, Step, StepAttempt, Wait

SECOND = datetime.timedelta(seconds=1)


def make_function(id: str = "shop/fulfil-order", **values: Any) -> Function:
    """Return a function's row; one that exists is left."""
    now = clock.now()
    first = {"slug": id.rpartition("/")[2], "first_seen": now, "last_seen": now}
    return Function.objects.get_or_create(id=id, defaults=first | values)[0]


def make_event(name: str = "shop/order.paid", **values: Any) -> Event:
    """Return an event's row, ingested."""
    now = clock.now()
    first = {"data": {"order_id": 7}, "ts": now, "received_at": now, "ingest_at": now, "ingested_at": now}
    return Event.objects.create(name=name, **first | values)


def make_run(function: str = "shop/fulfil-order", status: str = "queued", **values: Any) -> Run:
    """Return a run's row with the times that its status asks for."""
    now = clock.now()
    first: dict[str, Any] = {"queue": "celery", "created_at": now, "started_at": now, "next_at": now}
    if status in ENDED:
        first |= {"finished_at": now + 2 * SECOND, "next_at": None}
    if status == "queued":
        first |= {"ready_at": now}
    return Run.objects.create(function=make_function(function), status=status, **first | values)


def make_step(run: Run, name: str, ordinal: int = 0, status: str = "completed", **values: Any) -> Step:
    """Return a step's row; a settled one took a second."""
    first: dict[str, Any] = {"kind": "run", "planned_at": run.created_at, "started_at": run.created_at}
    if status in ("completed", "failed"):
        first |= {"seq": 1, "finished_at": run.created_at + SECOND}
    return Step.objects.create(
        run=run, key=step_key("", name, ordinal), name=name, ordinal=ordinal, status=status, **first | values
    )


def make_attempt(run: Run, name: str, number: int = 1, **values: Any) -> StepAttempt:
    """Return the row of a failed attempt that took a second."""
    first = {
        "key": step_key("", name, 0),
        "status": "failed",
        "error": error_text("builtins.ValueError", "no such card"),
        "started_at": run.created_at,
        "finished_at": run.created_at + SECOND,
    }
    return StepAttempt.objects.create(run=run, name=name, number=number, **first | values)


def make_wait(run: Run, name: str = "shop/order.packed", **values: Any) -> Wait:
    """Return an open wait's row."""
    first = {"kind": "event", "match_key": bytes(16), "match": "data.order_id", "created_at": clock.now()}
    return Wait.objects.create(run=run, name=name, **first | values)


def error_text(type: str, message: str, traceback: str = "") -> str:
    """Return an error as it is stored."""
    return json.dumps({"type": type, "message": message, "traceback": traceback, "cause": None, "bases": []})
