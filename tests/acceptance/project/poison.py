"""Functions that kill the process that they run in, and such as happen to be beside them."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import django_durable as durable
from django_durable import AsyncStep, Event, Step

from .ledger import lines, write


async def kill(run_id: str, neighbours: int) -> None:
    """Kill this process, when all neighbours are there or have been."""
    write("bodies", run=run_id, step="kill")
    while lines("neighbours") < neighbours:
        await asyncio.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)


async def look_on(run_id: str, number: int) -> int:
    """Be there for a while."""
    write("neighbours", run=run_id)
    await asyncio.sleep(0.5)
    return number


def report(event: durable.FailureEvent, step: Step) -> None:
    """Note that the run failed."""
    step.run("report", write, "reports", run=event.run_id, error=event.error.message)


@durable.function("poison", trigger="app/poison.served", on_failure=report)
async def poison(event: Event, step: AsyncStep) -> None:
    """Do something harmless, then kill the worker."""
    await step.run("harmless", int)
    await step.run("kill", kill, step.run_id, event.data["neighbours"])


@durable.function("neighbour", trigger="app/neighbour.came")
async def neighbour(event: Event, step: AsyncStep) -> Any:
    """Have a body in the same event loop."""
    return await step.run("look-on", look_on, step.run_id, event.data["number"])
