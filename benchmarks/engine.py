"""How fast one process advances runs whose steps do nothing, so that only the engine's cost shows."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import django_durable as durable
from django_durable.models import Run

from .figures import Figure, measure


def figures() -> Iterator[Figure]:
    """Measure runs from sending their events until the last one is completed."""
    _register()
    for steps in (1, 10, 100, 1_000):
        yield measure(f"one run of {steps:,} steps, sent to done", "s", partial(_seconds, "steps", steps))
    yield measure("300 runs of 3 steps, sent to done", "steps/s", lambda: 900 / _seconds("steps", 3, runs=300))
    yield measure("async: gather of 1,000 steps", "s", partial(_seconds, "gather", 1_000))
    yield measure("async: gather of 1,000 async steps", "s", partial(_seconds, "gather-async", 1_000))
    yield measure("async: 1,000 runs of 1 step that takes 1 s", "s", partial(_seconds, "slow", 1, runs=1_000))
    for width in (100, 1_000):
        yield measure(f"step.map over {width:,} items", "s", partial(_seconds, "map", width))


def _register() -> None:
    async def nothing() -> None:
        """Take no time."""

    async def slow() -> None:
        await asyncio.sleep(1)

    @durable.function("steps", trigger="bench/steps")
    def steps(event: durable.Event, step: durable.Step) -> None:
        for number in range(event.data["count"]):
            step.run(f"step-{number}", int)

    @durable.function("map", trigger="bench/map")
    def mapped(event: durable.Event, step: durable.Step) -> None:
        step.map("item", int, range(event.data["count"]))

    @durable.function("gather", trigger="bench/gather")
    async def gather(event: durable.Event, step: Any) -> None:
        await asyncio.gather(*[step.run(f"step-{number}", int) for number in range(event.data["count"])])

    @durable.function("gather-async", trigger="bench/gather-async")
    async def gather_async(event: durable.Event, step: Any) -> None:
        await asyncio.gather(*[step.run(f"step-{number}", nothing) for number in range(event.data["count"])])

    @durable.function("slow", trigger="bench/slow")
    async def one_slow_step(event: durable.Event, step: Any) -> None:
        await step.run("slow", slow)


def _seconds(workload: str, count: int, runs: int = 1) -> float:
    completed = Run.objects.filter(status="completed", function_id=f"project/{workload}")
    before = completed.count()
    started = time.perf_counter()
    durable.send_events(durable.Event(f"bench/{workload}", {"count": count}) for _ in range(runs))
    elapsed = time.perf_counter() - started
    done = completed.count() - before
    if done != runs:
        raise SystemExit(f"scripts/bench: {runs - done} of {runs} runs of {workload} did not complete")
    return elapsed
