"""The flows of the peer benchmark as durable functions: trivial steps, so that the engine's own cost shows."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import django_durable as durable
from django_durable import AsyncStep, Event, Step

GATE, BODIES = (Path(os.environ["BENCH_TMP"], name) for name in ("gate", "bodies.txt"))
TIMEOUT = "1h"


def nothing(number: int) -> int:
    """Do what a step of the benchmark does."""
    return number


def note(run: int, step: str) -> None:
    """Write down that a body runs."""
    with BODIES.open("a") as file:
        file.write(f"{run} {step}\n")


@durable.function("steps", trigger="bench/steps")
def steps(event: Event, step: Step) -> int:
    count: int = event.data["argument"]
    for number in range(count):
        step.run(f"step-{number}", nothing, number)
    return count


@durable.function("wait", trigger="bench/wait")
def wait(event: Event, step: Step) -> None:
    step.run("before", nothing, 1)
    step.wait_for_event("go", "bench/go", match="data.argument", timeout=TIMEOUT)
    step.run("after", nothing, 1)


@durable.function("wait-all", trigger="bench/wait_all")
def wait_all(event: Event, step: Step) -> None:
    step.run("before", nothing, 1)
    step.wait_for_event("go", "bench/go-all", timeout=TIMEOUT)
    step.run("after", nothing, 1)


async def _stand_at_gate(run: int) -> None:
    note(run, "second")
    while not GATE.exists():
        await asyncio.sleep(1)


async def _note(run: int, step: str) -> None:
    note(run, step)


@durable.function("gated", trigger="bench/gated")
async def gated(event: Event, step: AsyncStep) -> int:
    run: int = event.data["argument"]
    await step.run("first", _note, run, "first")
    await step.run("second", _stand_at_gate, run)
    await step.run("third", _note, run, "third")
    return run


def _block_at_gate(run: int) -> None:
    note(run, "second")
    while not GATE.exists():
        time.sleep(1)


@durable.function("gated-sync", trigger="bench/gated_sync")
def gated_sync(event: Event, step: Step) -> int:
    run: int = event.data["argument"]
    step.run("first", note, run, "first")
    step.run("second", _block_at_gate, run)
    step.run("third", note, run, "third")
    return run
