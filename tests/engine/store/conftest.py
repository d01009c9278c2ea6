"""Both stores, and runs in every state that a row can have."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from django.db import connection

from django_durable.core import clock
from django_durable.core.ids import uuid7
from django_durable.core.replay.operations import StepKind, StepStatus, step_key
from django_durable.engine.store.contract import Store
from django_durable.engine.store.portable.store import PortableStore
from django_durable.engine.store.rows import AttemptRow, Claim, Parking, StepRow, WaitRow
from django_durable.models import Event, Function, Run, Step, StepAttempt, Wait

LEASE = datetime.timedelta(seconds=100)
REHINT = datetime.timedelta(seconds=1000)
COLUMNS = ("status", "fence", "next_at", "ready_at", "held_by", "wakes", "crashes", "owner", "attempt", "steps")
COLUMNS += ("waiting_kind", "waiting_for", "started_at", "finished_at", "output", "error")

#: Moments are seconds from now.
STATES: dict[str, dict[str, Any]] = {
    "queued": {"status": "queued", "ready_at": -100, "next_at": -50},
    "held": {"status": "queued", "ready_at": -100, "next_at": -50, "held_by": "limit"},
    "not ready yet": {"status": "queued", "ready_at": 500, "next_at": 600},
    "live": {"status": "running", "next_at": 500, "owner": "worker"},
    "dead": {"status": "running", "next_at": -50, "owner": "worker"},
    "waiting": {"status": "waiting", "next_at": 500, "waiting_kind": "event", "waiting_for": "a reply"},
    "completed": {"status": "completed", "finished_at": -50, "output": "1"},
    "failed": {"status": "failed", "finished_at": -50, "error": "{}"},
    "cancelled": {"status": "cancelled", "finished_at": -50, "error": "{}"},
    "skipped": {"status": "skipped", "finished_at": -50},
}

RUNNING = {"live", "dead"}
QUEUED = {"queued", "held", "not ready yet"}
UNENDED = RUNNING | QUEUED | {"waiting"}
OPEN = ("open", "waiting", None)  #: the step that every run waits for, as :func:`columns` shows it


@pytest.fixture(params=["portable", "postgresql"] if connection.vendor == "postgresql" else ["portable"])
def store(request: pytest.FixtureRequest, db: None) -> Store:
    """Give each implementation that this database has."""
    if request.param == "portable":
        return PortableStore("default")
    from django_durable.engine.store.postgresql.store import PostgreSQLStore

    return PostgreSQLStore("default")


def in_seconds(seconds: float | None) -> datetime.datetime | None:
    """Return the moment so many seconds from now."""
    return None if seconds is None else clock.now() + datetime.timedelta(seconds=seconds)


def make_function() -> Function:
    """Store the function of all runs, if it is not."""
    moments = {"first_seen": clock.now(), "last_seen": clock.now()}
    return Function.objects.get_or_create(id="tests/fn", defaults={"slug": "fn", **moments})[0]


def make_run(state: str = "queued", **values: Any) -> Run:
    """Store a run in that state; one that has not ended waits for an event."""
    row = {"fence": 7, "wakes": 3, "crashes": 2, "attempt": 1, "steps": 5, "started_at": -200, "created_at": -300}
    row |= {"queue": "default", **STATES[state], **values}
    row |= {name: in_seconds(value) for name, value in row.items() if name.endswith("_at")}
    run = Run.objects.create(function=make_function(), **row)
    make_step(run, "open")
    if run.finished_at is None:
        Wait.objects.create(
            run=run, key=key("open"), kind="event", name="a/b", match_key=bytes(16), created_at=clock.now()
        )
    return run


def make_step(run: Run, name: str, **values: Any) -> Step:
    """Store a step of the run that waits."""
    row = {"ordinal": 0, "kind": "wait", "status": "waiting", "planned_at": clock.now(), **values}
    return Step.objects.create(run=run, key=key(name), name=name, **row)


def key(name: str) -> bytes:
    """Return the key of the step's first use."""
    return step_key("", name, 0)


def step_row(name: str, status: StepStatus = StepStatus.COMPLETED, **values: Any) -> StepRow:
    """Return a step to write."""
    row: dict[str, Any] = {"kind": StepKind.RUN, "ordinal": 0, "planned_at": clock.now(), **values}
    if status in (StepStatus.COMPLETED, StepStatus.FAILED):
        row.setdefault("finished_at", clock.now())
    return StepRow(key=key(name), name=name, status=status, **row)


def failed_attempt(**values: Any) -> AttemptRow:
    """Return an attempt that failed."""
    row: dict[str, Any] = {"key": key("s"), "name": "s", "number": 1, "status": "failed", "error": "{}", **values}
    return AttemptRow(started_at=clock.now(), finished_at=clock.now(), **row)


def parking(**values: Any) -> Parking:
    """Return how a run parks for an event, after an attempt that failed."""
    wait = WaitRow(key=key("w"), kind="event", name="a/c", match_key=bytes(16), created_at=clock.now())
    step = step_row("w", StepStatus.WAITING, kind=StepKind.WAIT)
    row: dict[str, Any] = {
        "kind": "event",
        "text": "a/c",
        "attempt": 4,
        "steps": [step],
        "waits": [wait],
        "failed": failed_attempt(),
    }
    return Parking(**{"next_at": in_seconds(700), **row, **values})


def make_event() -> Event:
    """Store an event that waits for ingest."""
    values = {"ts": clock.now(), "received_at": clock.now(), "ingest_at": clock.now()}
    return Event.objects.create(id=uuid7(), name="a/b", data={"a": [1, None]}, user={"id": 7}, **values)


VERSIONS = ("code_version", "last_code_version")


def claim_of(run: Run, **values: Any) -> Claim:
    """Return the claim that holds the run, with other *values* if it is stale."""
    names = ("function_id", "owner", "fence", "wakes", "attempt", "steps", "crashes", "depth", "queue", "input")
    row = {
        name: getattr(run, name)
        for name in (*names, "parent_id", "parent_key", "created_at", "looks_back_to", *VERSIONS)
    }
    return Claim(**row | {"run_id": run.id, "now": clock.now(), "event": None} | values)


def columns(run: Run) -> dict[str, Any]:
    """Return the run as stored, with its steps, waits and attempts; moments as seconds from now, to the nearest 10."""
    run.refresh_from_db()
    row = {name: _rounded(getattr(run, name)) for name in COLUMNS}
    steps = Step.objects.filter(run=run).order_by("name")
    return row | {
        "memos": [(step.name, step.status, step.seq) for step in steps],
        "waits": Wait.objects.filter(run=run).count(),
        "attempts": StepAttempt.objects.filter(run=run).count(),
    }


def _rounded(value: object) -> object:
    if not isinstance(value, datetime.datetime):
        return value
    return round((value - clock.now()).total_seconds() / 10) * 10
