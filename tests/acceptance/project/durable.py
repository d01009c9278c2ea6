"""The durable functions. Each body writes into the ledger that it ran, before it returns."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import Any

import django_durable as durable
from django_durable import AsyncStep, Event, Step

from . import faults, journeys, poison  # noqa: F401  # register their functions
from .ledger import lines, write, written


def send_email(run_id: str, email: str, *, template: str) -> dict[str, str]:
    """Stand for an e-mail that leaves the machine."""
    write("bodies", run=run_id, step=f"send-{template}-email", statement=faults.statements())
    return {"to": email, "template": template}


@durable.function("activation-email", trigger="app/user.created")
def activation_email(event: Event, step: Step) -> dict[str, Any]:
    """Welcome a new user, and remind them if they write no post within a day."""
    email = event.user["email"] if event.user else ""
    sent = [step.run("send-welcome-email", send_email, step.run_id, email, template="welcome")]
    post = step.wait_for_event("wait-for-post-creation", event="app/post.created", match="data.user.id", timeout="24h")
    if post is None:
        sent.append(step.run("send-reminder-email", send_email, step.run_id, email, template="reminder"))
    return {"sent": sent}


def work_on(run_id: str, number: int, seconds: float) -> bool:
    """Take some time; tell whether the test has seen enough."""
    write("bodies", run=run_id, step=number, time=time.time())
    time.sleep(seconds)
    return written("enough")


@durable.function("many-steps", trigger="app/batch.received")
def many_steps(event: Event, step: Step) -> int:
    """Do a number of steps that take some seconds each; return how many."""
    for number in range(event.data["items"]):
        if step.run("item", work_on, step.run_id, number, event.data["seconds"]):
            return number + 1
    return int(event.data["items"])


def meet(run_id: str, number: int, others: int) -> int:
    """Wait until so many bodies run at the same time; return how many were seen."""
    write("bodies", run=run_id, step=number)
    ends = time.monotonic() + 20
    while lines("bodies", run=run_id) < others and time.monotonic() < ends:
        time.sleep(0.01)
    return lines("bodies", run=run_id)


@durable.function("meeting", trigger="app/meeting.called")
def meeting(event: Event, step: Step) -> list[int]:
    """Bring branches together, each in a process of its own; and nothing else could."""
    count = event.data["people"]
    return step.map("meet", partial(meet, step.run_id, others=count), range(count))


async def look_up(run_id: str, name: str, *, hold: bool = False) -> str:
    """Ask another service; one of them does not answer before the test has seen enough."""
    write("bodies", run=run_id, step=name)
    while hold and not written("enough"):
        await asyncio.sleep(0.01)
    return name


@durable.function("prepare-order", trigger="app/order.received")
async def prepare_order(event: Event, step: AsyncStep) -> dict[str, Any]:
    """Look things up at the same time, pause, and wait for the payment."""
    found = await asyncio.gather(
        step.run("address", look_up, step.run_id, "address", hold=True),
        step.run("stock", look_up, step.run_id, "stock"),
        step.run("price", look_up, step.run_id, "price"),
    )
    await step.sleep("pause", "100ms")
    paid = await step.wait_for_event("paid", "app/order.paid", match="data.order", timeout="1d")
    return {"found": found, "paid": paid is not None}
