"""Runs, steps and events in partitions by their time-ordered ids: do the engine's statements still use their indexes?

``rows()`` rows in all, a third each, in ten partitions that stand for months. See docs/internals/scaling.md.
"""

from __future__ import annotations

import datetime
import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from django.db import connection
from django.test.utils import CaptureQueriesContext

import django_durable as durable
from django_durable.engine.scheduler.scheduler import Scheduler
from django_durable.engine.store.stores import get_store
from django_durable.models import Run

from . import synthetic
from .figures import Figure, measure, rows

MONTHS = 10
BATCH = 1_000  #: rows that one statement of a retention without partitions deletes
definitions: dict[str, list[str]] = {}  #: of the indexes of each table
TABLES = {"django_durable_event": "id", "django_durable_run": "id", "django_durable_step": "run_id"}

INDEXES = "SELECT indexdef FROM pg_indexes WHERE tablename = %(table)s ORDER BY indexname"
REPLACE = """
CREATE TABLE partitioned (LIKE {table} INCLUDING DEFAULTS INCLUDING CONSTRAINTS) PARTITION BY RANGE ({column});
DROP TABLE {table} CASCADE;
ALTER TABLE partitioned RENAME TO {table};
"""
PARTITION = "CREATE TABLE {table}_{month} PARTITION OF {table} FOR VALUES FROM ({start}) TO ({end})"
DETACH = "ALTER TABLE {table} DETACH PARTITION {table}_{month}"
ATTACH = "ALTER TABLE {table} ATTACH PARTITION {table}_{month} FOR VALUES FROM ({start}) TO ({end})"
CHECKED = "ALTER TABLE {table}_{month} ADD CHECK ({column} IS NOT NULL AND {column} >= {start} AND {column} < {end})"
DROP = "DROP TABLE {table}_{month}"
DELETE = """
DELETE FROM {table}_{month} WHERE ctid = ANY (ARRAY(SELECT ctid FROM {table}_{month} LIMIT {batch}))
"""


def figures() -> Iterator[Figure]:
    """Measure claims, looks and turns, and how a month is dropped, attached and deleted by rows."""
    if connection.vendor != "postgresql":
        return
    each = rows() // len(TABLES)
    synthetic.ensure_function()
    _partition(each)
    yield Figure.of(f"{rows():,} rows in {MONTHS} partitions each: stored and indexed", "s", [_timed(_fill, each)])
    yield from _statements(each)
    yield measure("a run of 10 steps on partitioned tables, sent to done", "ms", _run_ten_steps)
    yield from _retention(each)


def _statements(each: int) -> Iterator[Figure]:
    lease = datetime.timedelta(seconds=15)
    store, middle = get_store(), synthetic.id_of(each // 2)
    calls: dict[str, Callable[[], Any]] = {
        "claim of the first ready run": lambda: store.claim_ready("celery", owner="bench", lease=lease),
        "claim of a run by its id": lambda: store.claim(middle, owner="bench", lease=lease),
        "the scheduler's look for due runs": lambda: Scheduler()._alarms(),
        "the memos of a run": lambda: list(Run.objects.get(id=middle).step_set.all()),
    }
    for text, call in calls.items():
        yield measure(f"{text}: the database's part", "ms", partial(_in_database, call))


def _partition(each: int) -> None:
    """Put partitioned tables in the place of the migrated ones; they get their indexes once they are full."""
    for table, column in TABLES.items():
        definitions[table] = [row[0] for row in _select(INDEXES, table=table)]
        _execute(REPLACE.format(table=table, column=column))
        for month in range(MONTHS):
            start, end = _limits(month, each)
            _execute(PARTITION.format(table=table, month=month, start=start, end=end))
        start, _ = _limits(MONTHS, each)
        _execute(PARTITION.format(table=table, month="now", start=start, end="MAXVALUE"))


def _limits(month: int, each: int) -> tuple[str, str]:
    """Return where the ids of a month begin and end, as literals."""
    moments = [1_700_000_000_000 + number * each // MONTHS for number in (month, month + 1)]
    start, end = (f"'{moment:012x}'" for moment in moments)
    return start[:-1] + "0" * 20 + "'", end[:-1] + "0" * 20 + "'"


def _fill(each: int) -> None:
    synthetic.add_events(0, each - 1, "bench/past")
    synthetic.add_runs(0, each - 1 - 2_000, "completed")
    synthetic.add_runs(each - 1 - 2_000, each - 1 - 1_000, "waiting", alarm="2100-01-01")
    synthetic.add_runs(each - 1 - 1_000, each - 1, "queued", alarm="2100-01-01")
    synthetic.add_steps(0, each - 1, "completed")
    for table, column in TABLES.items():
        for definition in definitions[table]:
            # A unique index of a partitioned table must hold the column that decides the partition.
            has_column = f"({column}" in definition
            _execute(definition if has_column else definition.replace("UNIQUE ", ""))
    synthetic.analyze()


def _in_database(call: Callable[[], Any]) -> float:
    """Return what the server needs to plan and execute the statement, in ms; refuse one that reads a whole table."""
    with CaptureQueriesContext(connection) as queries:
        call()
    assert len(queries)
    elapsed = 0.0
    for sql in [each["sql"] for each in queries]:
        ((plan,),) = _select(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}")
        found = json.loads(plan)[0] if isinstance(plan, str) else plan[0]
        _refuse_scans(found["Plan"])
        elapsed += found["Planning Time"] + found["Execution Time"]
    return elapsed


def _refuse_scans(node: dict[str, Any]) -> None:
    if node["Node Type"] == "Seq Scan" and node["Plan Rows"] > BATCH:
        raise SystemExit(f"scripts/bench: a statement reads all of {node['Relation Name']}")
    for inner in node.get("Plans", ()):
        _refuse_scans(inner)


def _run_ten_steps() -> float:
    started = time.perf_counter()
    event_id = durable.send_event("bench/partitioned")
    elapsed = time.perf_counter() - started
    assert Run.objects.get(event_id=event_id).status == "completed"
    return elapsed * 1_000


@durable.function("partitioned", trigger="bench/partitioned")
def _ten_steps(event: durable.Event, step: durable.Step) -> None:
    for number in range(10):
        step.run(f"step-{number}", int)


def _retention(each: int) -> Iterator[Figure]:
    """Take the first month out at once, and the second by rows; put the third back."""
    text = f"of a month of {each // MONTHS:,} runs, their steps and events"
    children_first = list(reversed(TABLES.items()))

    def each_table(template: str, month: int) -> None:
        start, end = _limits(month, each)
        for table, column in children_first:
            _execute(template.format(table=table, column=column, month=month, start=start, end=end))

    yield Figure.of(f"detaching {text}", "s", [_timed(each_table, DETACH, 0)])
    yield Figure.of(f"dropping {text}", "s", [_timed(each_table, DROP, 0)])
    yield Figure.of(f"deleting by {BATCH:,} rows, without the vacuum, {text}", "s", [_timed(_delete, children_first)])
    each_table(DETACH, 2)
    yield Figure.of(f"attaching, the rows being read, {text}", "s", [_timed(each_table, ATTACH, 2)])
    each_table(DETACH, 2)
    each_table(CHECKED, 2)
    yield Figure.of(f"attaching, under a check that holds already, {text}", "s", [_timed(each_table, ATTACH, 2)])


def _delete(tables: list[tuple[str, str]]) -> None:
    for table, _ in tables:
        with connection.cursor() as cursor:
            cursor.execute(DELETE.format(table=table, month=1, batch=BATCH))
            while cursor.rowcount:
                cursor.execute(DELETE.format(table=table, month=1, batch=BATCH))


def _timed(call: Callable[..., None], *args: Any) -> float:
    started = time.perf_counter()
    call(*args)
    return time.perf_counter() - started


def _select(sql: str, **values: Any) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(sql, values or None)
        return list(cursor.fetchall())


def _execute(sql: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql)
