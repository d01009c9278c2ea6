"""Durable functions that faults meet. Each body writes into the ledger that it began, and passes a point of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from typing import Any

from django.contrib.auth.models import Group
from django.db import connection

import django_durable as durable
from django_durable import AsyncStep, Event, FailureEvent, Step
from django_durable.core import clock, fault_points
from django_durable.core.functions.steps import current_step

from .ledger import lines, write, written

LONGEST_HOLD = 60.0  #: seconds


def act(run_id: str, name: str) -> str:
    """Do something that must not be done again once it is recorded."""
    write("bodies", run=run_id, step=name, ordinal=0, time=clock.now().timestamp())
    fault_points.point(f"in {name}")
    return name


def hold(run_id: str, name: str) -> str:
    """Do something that takes until the test says ``go``."""
    act(run_id, name)
    ends = time.monotonic() + LONGEST_HOLD
    while not written("go") and time.monotonic() < ends:
        time.sleep(0.01)
    return name


@durable.function("journey", trigger="app/journey.begun")
def journey(event: Event, step: Step) -> list[Any]:
    """Act twice, sleep, act, wait for a reply, and act."""
    run = step.run_id
    done: list[Any] = [step.run("one", act, run, "one"), step.run("two", act, run, "two")]
    step.sleep("pause", "1h")
    done.append(step.run("three", act, run, "three"))
    reply = step.wait_for_event("reply", "app/journey.replied", match="data.journey", timeout="1d")
    done.append(reply and reply.data["journey"])
    return [*done, step.run("four", act, run, "four")]


@durable.function("voyage", trigger="app/voyage.begun")
async def voyage(event: Event, step: AsyncStep) -> list[str]:
    """Act twice at the same time, sleep, and act."""
    both = await asyncio.gather(*(step.run(name, act_async, step.run_id, name) for name in ("port", "starboard")))
    await step.sleep("pause", "1h")
    return [*both, await step.run("anchor", act_async, step.run_id, "anchor")]


async def act_async(run_id: str, name: str) -> str:
    """Act, and let others go on meanwhile."""
    act(run_id, name)
    await asyncio.sleep(0.01)
    return name


@durable.function("delivery", trigger="app/delivery.asked")
def delivery(event: Event, step: Step) -> list[str]:
    """Do something that takes long, and two things after it."""
    return [step.run(name, hold if name == "long" else act, step.run_id, name) for name in ("long", "next", "last")]


@durable.function("booking", trigger="app/booking.asked")
def booking(event: Event, step: Step) -> str:
    """Write a row and its memo in one transaction."""
    return step.atomic("book", book, step.run_id)


def book(run_id: str) -> str:
    """Write the row: a second one of the same name would be an error, so each has its own."""
    act(run_id, "book")
    Group.objects.create(name=f"{run_id} {time.monotonic_ns()}")
    return "booked"


@durable.function("doomed", trigger="app/doom.called", retries=0)
def doomed(event: Event, step: Step) -> None:
    """Fail."""
    step.run("fail", fail, step.run_id)


def fail(run_id: str) -> None:
    """Raise what is not tried again."""
    act(run_id, "fail")
    raise ValueError("doomed")


@doomed.on_failure
def mourn(event: FailureEvent, step: Step) -> list[str]:
    """Do two things about it."""
    return [step.run(name, act, step.run_id, name) for name in ("mourn", "tell")]


@durable.function("venom", trigger="app/venom.taken")
def venom(event: Event, step: Step) -> None:
    """Kill each process that takes it up, as a segmentation fault or a lack of memory does."""
    step.run("swallow", die, step.run_id)


def die(run_id: str) -> None:
    """Be killed."""
    act(run_id, "swallow")
    os.kill(os.getpid(), signal.SIGKILL)


@venom.on_failure
def bury(event: FailureEvent, step: Step) -> str:
    """Act once."""
    return step.run("bury", act, step.run_id, "bury")


@durable.function("roll-call", trigger="app/roll.called")
def roll_call(event: Event, step: Step) -> bool:
    """Meet other runs in a body; tell whether the step at hand is still this run's own."""
    own = step.run("gather", gather, step.run_id, event.data["people"])
    return own == step.run_id and current_step.get() is step


def gather(run_id: str, people: int) -> str:
    """Wait until so many bodies run at the same time; write down which connection this one has."""
    act(run_id, "gather")
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        write("gathered", run=run_id, backend=cursor.fetchone()[0], thread=threading.get_ident())
    ends = time.monotonic() + LONGEST_HOLD
    while lines("gathered") < people and time.monotonic() < ends:
        time.sleep(0.01)
    return run_id
