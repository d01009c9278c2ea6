"""What a cluster of four workers costs that has nothing to do: statements at the database, and processor time."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

from .figures import Figure
from .processes import cpu_seconds, redis, workers

WORKERS = 4
SETTLED = 15  #: seconds until workers have started and roles are taken
WINDOWS, WINDOW = 3, 20  #: how often, and for how many seconds, is measured


def figures() -> Iterator[Figure]:
    """Measure four idle workers; then, for comparison, as many that leave the scheduler to another process."""
    with redis() as broker:
        statements, with_scheduler = _measured(broker, {})
        _, without = _measured(broker, {"SCHEDULER": "command"})
    yield Figure.of(f"{WORKERS} idle workers: statements", "1/s", statements)
    yield Figure.of(f"{WORKERS} idle workers: processor time", "% core", with_scheduler)
    yield Figure.of(f"{WORKERS} idle workers without a scheduler: processor time", "% core", without)


def _measured(broker: str, durable: dict[str, str]) -> tuple[list[float], list[float]]:
    """Return the statements of each second, and the share of a core, in each window."""
    environment = {"DURABLE_BENCH_BROKER_URL": broker, "DURABLE_BENCH_DURABLE": json.dumps(durable)}
    statements, shares = [], []
    with workers(WORKERS, "--pool=solo", "--without-gossip", "--without-mingle", **environment) as pids:
        time.sleep(SETTLED)
        for _ in range(WINDOWS):
            before, cpu = _transactions(), cpu_seconds(pids)
            time.sleep(WINDOW)
            # Each statement is a transaction of its own; one is that of this measurement.
            statements.append((_transactions() - before - 1) / WINDOW)
            shares.append(100 * (cpu_seconds(pids) - cpu) / WINDOW)
    return statements, shares


def _transactions() -> int:
    """Return how many transactions the database has seen; its processes report theirs when they end."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()")
        row = cursor.fetchone()
    assert row is not None
    return int(row[0])


if __name__ == "__main__":
    from .alone import main

    main(figures, __doc__)
