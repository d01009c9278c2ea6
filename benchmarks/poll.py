"""What it costs to find nothing to do, beside a million runs that have ended and a million that wait."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

from .figures import Figure, rows

TIMES = 300
FIRST = 1_000  #: rows of each kind of the small table


def figures() -> Iterator[Figure]:
    """Measure a scheduler's look, a worker's claim and its question for ready runs, beside few rows and many."""
    from django.db import connection

    from . import synthetic

    synthetic.ensure_function()
    ended = waiting = 0
    for size in sorted({FIRST, rows()}):
        synthetic.add_runs(ended + waiting, size + waiting, "completed")
        ended = size
        synthetic.add_runs(ended + waiting, ended + size, "waiting", alarm="2126-01-01")
        waiting = size
        with connection.cursor() as cursor:
            cursor.execute("VACUUM ANALYZE")
        for name, call in _calls():
            _check_plan(name, call)
            yield _measured(f"{name}, {size:,} ended and {size:,} waiting", call)


def _calls() -> list[tuple[str, Callable[[], Any]]]:
    from django_durable.core.durations import parse_duration
    from django_durable.engine.scheduler.scheduler import Scheduler
    from django_durable.engine.store.stores import get_store

    store, scheduler = get_store(), Scheduler()
    return [
        ("the scheduler looks", scheduler.look),
        ("a worker claims", lambda: store.claim_ready("celery", owner="me", lease=parse_duration("15s"))),
        ("a worker asks for more", lambda: store.has_ready("celery")),
    ]


def _measured(workload: str, call: Callable[[], Any]) -> Figure:
    def once() -> float:
        began = time.perf_counter()
        call()
        return (time.perf_counter() - began) * 1_000

    for _ in range(10):
        once()
    values = [once() for _ in range(TIMES)]
    return Figure(workload, "ms", statistics.median(values), min(values), sorted(values)[int(TIMES * 0.99)])


def _check_plan(name: str, call: Callable[[], Any]) -> None:
    """Stop the measurement if a statement reads the whole table of runs."""
    from django.db import connection

    seen: list[tuple[str, Any]] = []

    def note(execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
        seen.append((sql, params))
        return execute(sql, params, many, context)

    with connection.execute_wrapper(note):
        call()
    with connection.cursor() as cursor:
        for sql, params in seen:
            cursor.execute(f"EXPLAIN {sql}", params)
            plan = "\n".join(row[0] for row in cursor.fetchall())
            if "Seq Scan on django_durable_run" in plan:
                raise SystemExit(f"{name} reads a whole table:\n{plan}")


if __name__ == "__main__":
    from .alone import main

    main(figures, __doc__)
