"""python -m benchmarks.overload: a flood of events of one name, and what it does to the work beside it.

One process is the flooded queue's worker: it ingests, runs what that starts, and ingests again, as its messages would
make it. Another one, meanwhile, starts runs in a queue of its own, works on them, and sends events of another name.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any
from uuid import UUID

from django_durable.drivers.base import BaseDriver
from tests.postgresql import postgresql

SENT_AT_ONCE = 5_000
PAUSE = 0.1  #: seconds between two probes


class Silent(BaseDriver):
    """Loses every hint: the processes here look by themselves."""

    def wake(self, queue: str, run_ids: Sequence[UUID] = (), *, ingest: bool = False) -> None:
        """Lose it."""


def main() -> None:
    """Flood a private PostgreSQL with default durability, or the database that is named, and print the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overload", description=__doc__)
    parser.add_argument("--events", type=int, default=100_000, help="how many (100,000)")
    count = parser.parse_args().events
    with ExitStack() as servers:
        url = os.environ.get("DURABLE_BENCH_DATABASE_URL") or servers.enter_context(postgresql(fsync="on"))
        os.environ |= {"DURABLE_BENCH_DATABASE_URL": url, "DJANGO_SETTINGS_MODULE": "benchmarks.settings"}
        print(json.dumps(_flood(count), indent=2))


def _prepare() -> None:
    import django
    from django.test import override_settings

    django.setup()
    override_settings(DURABLE={"DRIVER": "benchmarks.overload.Silent"}).enable()
    from django_durable import function

    function("flooded", trigger="bench/flood", queue="flooded")(lambda event, step: None)
    function("beside", trigger="bench/beside", queue="beside")(lambda event, step: step.run("step", int))


def _flood(count: int) -> dict[str, Any]:
    _prepare()
    _migrate()
    spawn = multiprocessing.get_context("spawn")
    idle = _probe(lambda: False, times=20)
    began = time.perf_counter()
    _send(count)
    sent = time.perf_counter() - began
    theirs, ours = spawn.Pipe()
    worker = spawn.Process(target=_work, args=(theirs,))
    worker.start()
    ours.recv()
    began = time.perf_counter()
    beside = _probe(lambda: not ours.poll())
    seconds = time.perf_counter() - began
    at_work = ours.recv()
    worker.join()
    return {
        "events": count,
        "sent, s": round(sent, 1),
        "ingested, s": round(seconds, 1),
        "runs ended meanwhile": at_work["ended"],
        "memory of the worker before, MiB": at_work["before"],
        "memory of the worker at most, MiB": at_work["most"],
        "beside it, idle, ms": idle,
        "beside it, flooded, ms": beside,
    }


def _migrate() -> None:
    from django.core.management import call_command

    from benchmarks.__main__ import _make_database

    _make_database()
    call_command("migrate", verbosity=0)


def _send(count: int) -> None:
    import django_durable as durable

    for start in range(0, count, SENT_AT_ONCE):
        size = min(SENT_AT_ONCE, count - start)
        durable.send_events(durable.Event("bench/flood", {"n": start + number}) for number in range(size))


def _work(pipe: Any) -> None:
    """Be the worker of the flooded queue until every event is ingested."""
    _prepare()
    from django_durable.engine.workers.work import work
    from django_durable.models import Event, Run

    before = _most_memory()
    pipe.send("ready")
    while Event.objects.filter(name="bench/flood", ingested_at=None).exists():
        work("flooded", ingest=True)
    ended = Run.objects.filter(queue="flooded", status="completed").count()
    pipe.send({"before": before, "most": _most_memory(), "ended": ended})


def _most_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def _probe(go_on: Callable[[], bool], times: int = 0) -> dict[str, Any]:
    """Do other work again and again; return how long a run takes from its start to its end, and an event to send."""
    import django_durable as durable
    from django_durable.core.functions import registry
    from django_durable.engine.workers.work import work

    function = registry.get("project/beside")
    assert function is not None
    runs, sends = [], []
    while len(runs) < times or go_on():
        runs.append(_milliseconds(lambda: (function.start(), work("beside"))))
        sends.append(_milliseconds(lambda: durable.send_event("bench/nobody")))
        time.sleep(PAUSE)
    return {"a run": _spread(runs), "an event sent": _spread(sends)}


def _milliseconds(do: Callable[[], object]) -> float:
    began = time.perf_counter()
    do()
    return (time.perf_counter() - began) * 1_000


def _spread(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    parts = {"median": 0.5, "p95": 0.95, "p99": 0.99}
    spread = {name: round(ordered[int(part * len(ordered))], 1) for name, part in parts.items()}
    return {**spread, "most": round(ordered[-1], 1), "times": len(ordered)}


if __name__ == "__main__":
    main()
