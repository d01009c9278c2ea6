"""What the views of a site would do, and what its admin would show: the functions that a test may call."""

from __future__ import annotations

import datetime
import json
import os
from typing import Any
from uuid import UUID

from django.core import management
from django.core.checks import run_checks
from django.db import connection, transaction
from django.utils import timezone

import django_durable as durable
from django_durable.drivers.base import get_driver
from django_durable.engine.store.transactions import atomic
from django_durable.models import Lock, Run, RunStatus, Step, StepStatus, Wait

EMAIL = "ann@example.com"


def migrate() -> None:
    """Make the tables."""
    management.call_command("migrate", verbosity=0)


def sign_up(user: int) -> str:
    """Send the event of a new user in a transaction, as a view with ATOMIC_REQUESTS does; return its id."""
    with transaction.atomic():
        return durable.send_event("app/user.created", {"user": {"id": user}}, user={"email": EMAIL})


def write_post(user: int) -> str:
    """Send the event of a new post."""
    return durable.send_event("app/post.created", {"user": {"id": user}, "title": "First lines"})


def receive_batch(items: int, seconds: float = 0) -> str:
    """Start a run of many steps."""
    return durable.send_event("app/batch.received", {"items": items, "seconds": seconds})


def serve_poison(neighbours: int) -> list[str]:
    """Start a run that kills its worker, and others; return their events' ids, its own first."""
    others = [durable.Event("app/neighbour.came", {"number": number}) for number in range(neighbours)]
    return durable.send_events([durable.Event("app/poison.served", {"neighbours": neighbours}), *others])


def call_meeting(people: int) -> str:
    """Start a run whose branches wait for one another."""
    return durable.send_event("app/meeting.called", {"people": people})


def receive_order(order: int) -> str:
    """Start a run that looks things up for the order."""
    return durable.send_event("app/order.received", {"order": order})


def pay(order: int) -> str:
    """Send the event that the order is waiting for."""
    return durable.send_event("app/order.paid", {"order": order})


def hint(*run_ids: str, ingest: bool = True) -> None:
    """Wake the workers as the engine does, with or without a reason."""
    driver = get_driver()
    driver.wake(driver.default_queue(), [UUID(run_id) for run_id in run_ids], ingest=ingest)


def sign_up_in_a_fork(user: int) -> int:
    """Send an event from a process that is forked now, and ends as a script does; return its exit status."""
    connection.close()
    child = os.fork()
    if not child:
        sign_up(user)
        raise SystemExit
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def let_time_out(event_id: str) -> None:
    """Make it now when the waiting run of that event times out: its rows are a day older."""
    due = timezone.now() - datetime.timedelta(milliseconds=1)
    with atomic():  # which writes first: on SQLite a transaction that reads first may fail as locked
        run = Run.objects.select_for_update().get(event_id=event_id, status=RunStatus.WAITING)
        Step.objects.filter(run=run, status=StepStatus.WAITING).update(next_at=due)
        Wait.objects.filter(run=run).update(expires_at=due)
        Run.objects.filter(id=run.id).update(next_at=due)


def run_of(event_id: str) -> dict[str, Any] | None:
    """Return the run that the event started, if it did."""
    run = Run.objects.filter(event_id=event_id).first()
    return run and {
        "id": str(run.id),
        "status": run.status,
        "output": run.output and json.loads(run.output),
        "error": run.error,
        "waiting_kind": run.waiting_kind,
        "crashes": run.crashes,
        "owner": run.owner,
        "fence": run.fence,
        "failed_attempts": run.attempts.count(),
    }


def count(status: str) -> int:
    """Return how many runs have that status."""
    return Run.objects.filter(status=status).count()


def schedulers() -> list[int | None]:
    """Return the process ids of the scheduler that leads and of its deputy; None where there is none."""
    names = ("scheduler", "scheduler deputy")
    owners = [Lock.objects.filter(name=name).values_list("owner", flat=True).first() for name in names]
    return [int(owner.split(":")[1]) if owner else None for owner in owners]


def memos_of(run_id: str) -> list[list[Any]]:
    """Return what is recorded of the run's steps, in order."""
    steps = Step.objects.filter(run_id=run_id, status__in=(StepStatus.COMPLETED, StepStatus.FAILED)).order_by("seq")
    names = ("seq", "name", "ordinal", "kind", "status", "output", "error", "attempt", "event__name")
    return [list(values) for values in steps.values_list(*names)]


def problems() -> list[list[str]]:
    """Return what the system checks say: id, problem and hint."""
    return [[str(each.id), each.msg, each.hint or ""] for each in run_checks()]
