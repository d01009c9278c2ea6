"""What a test of faults may ask a site for: what views do, the scheduler's looks one by one, and moved time."""

from __future__ import annotations

import datetime
import socket
from typing import Any

from django.contrib.auth.models import Group
from django.db import connection, transaction
from django.db.models import F, Q

import django_durable as durable
from django_durable.drivers.base import get_driver
from django_durable.engine.runs import catalog
from django_durable.engine.scheduler.scheduler import Scheduler
from django_durable.engine.store import transactions
from django_durable.managers import DatabaseNow
from django_durable.models import Event, Lock, Run, RunStatus, Step, StepKind, StepStatus, Wait
from tests.faults import invariants

from . import celery_app
from .ledger import read
from .site import hint, memos_of, migrate, run_of

__all__ = ["hint", "memos_of", "migrate", "run_of"]

_scheduler = Scheduler()


def send(name: str, data: dict[str, Any]) -> str:
    """Send an event in a transaction, as a view with ATOMIC_REQUESTS does; return its id."""
    with transaction.atomic():
        return durable.send_event(name, data)


def send_pairs(pairs: list[tuple[str, dict[str, Any]]]) -> list[str]:
    """Send events in one transaction."""
    return durable.send_events([durable.Event(name, data) for name, data in pairs])


def flush() -> None:
    """Let the hints of this process leave."""
    get_driver().flush()


def sweep() -> float:
    """Let the scheduler of this process look once; return when it wants to look again."""
    return _scheduler.look()


def let_pass(seconds: float) -> None:
    """Let time pass for all but what is held: everything due at some moment is due that much sooner."""
    by = datetime.timedelta(seconds=seconds)
    idle = Q(run_id__in=Run.objects.exclude(status=RunStatus.RUNNING).values("id"))
    with transactions.atomic():
        Step.objects.filter(idle).exclude(status=StepStatus.RUNNING).update(next_at=F("next_at") - by)
        Wait.objects.filter(idle).update(expires_at=F("expires_at") - by)
        runs = Run.objects.exclude(status=RunStatus.RUNNING)
        runs.update(next_at=F("next_at") - by, ready_at=F("ready_at") - by)
        Lock.objects.update(expires_at=F("expires_at") - by)
        Event.objects.filter(ingested_at=None).update(ingest_at=F("ingest_at") - by)


def let_leases_end() -> None:
    """Let the leases of all that is held be over, as they are some time after its workers died."""
    over = DatabaseNow(-datetime.timedelta(milliseconds=1))
    Run.objects.filter(status=RunStatus.RUNNING).update(next_at=over)
    Step.objects.filter(kind=StepKind.BRANCH, status=StepStatus.RUNNING).update(next_at=over)


def counts() -> dict[str, int]:
    """Return how many events, runs and bookings there are."""
    return {"events": Event.objects.count(), "runs": Run.objects.count(), "bookings": Group.objects.count()}


def runs(function: str) -> list[dict[str, Any]]:
    """Return the runs of that function, the oldest first."""
    events = Run.objects.filter(function_id=function).order_by("id").values_list("event_id", flat=True)
    return [run for event in events if (run := run_of(event))]


def run_of_id(run_id: str) -> dict[str, Any] | None:
    """Return that run."""
    return run_of(Run.objects.values_list("event_id", flat=True).get(id=run_id))


def know_functions() -> None:
    """Register the functions of this process's code, as a scheduler does when it starts."""
    catalog.sync()


def leader() -> str:
    """Return who leads the schedulers; nothing if nobody ever did."""
    return Lock.objects.filter(name="scheduler").values_list("owner", flat=True).first() or ""


def make_deaf(worker: str) -> list[Any]:
    """Have that worker consume nothing any more; return what it answers."""
    name = f"{worker}@{socket.gethostname()}"
    answers: list[Any] = celery_app.control.cancel_consumer(
        celery_app.conf.task_default_queue, destination=[name], reply=True, timeout=10
    )
    return answers


def attempts(run_id: str) -> list[list[Any]]:
    """Return the run's attempts that became no memo."""
    return [list(each) for each in Run.objects.get(id=run_id).attempts.order_by("id").values_list("name", "status")]


def backend() -> int:
    """Return which connection of the database this process has."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        return int(cursor.fetchone()[0])


def settled() -> dict[str, Any]:
    """Return what may not change any more."""
    return invariants.settled()


def violations(
    before: dict[str, Any] | None = None, outputs: dict[str, Any] | None = None, most_connections: int | None = None
) -> list[str]:
    """Return which invariants do not hold."""
    return invariants.violations(read("bodies"), outputs=outputs, before=before, most_connections=most_connections)
