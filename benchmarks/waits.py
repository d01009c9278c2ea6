"""One event against many waits, and one wait that looks back at many events: both must cost the same at any number."""

from __future__ import annotations

import datetime
import itertools
import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from uuid import UUID

from django.db import connection
from django.test.utils import CaptureQueriesContext

from django_durable.core import clock
from django_durable.core.events.conditions import MatchRule, match_rule
from django_durable.core.ids import uuid7
from django_durable.engine.events import index
from django_durable.engine.events.index import IndexedEvent
from django_durable.engine.steps import wait_for_event
from django_durable.engine.store.rows import EventRow
from django_durable.engine.store.stores import get_store
from django_durable.engine.store.transactions import atomic
from django_durable.engine.workers import matching
from django_durable.engine.workers.ingest import ingest_events
from django_durable.managers import DatabaseNow
from django_durable.models import Event, MatchPath, Wait

from . import synthetic
from .figures import Figure, measure, rows

CALLS = 20  #: in one repeat
EARLIEST = (datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC), UUID(int=0))
#: By the name of the event: a path that is the same in both events, and equalities of a condition.
RULES = {
    "bench/match": match_rule("data.id", None),
    "bench/if": match_rule(None, "async.data.id == event.data.id && async.data.kind == 'paid'"),
}
LABELS = {"bench/match": "match=", "bench/if": "if_="}


def figures() -> Iterator[Figure]:
    """Measure at 1,000, then at ten times as many, and so on."""
    if connection.vendor != "postgresql":
        return
    synthetic.ensure_function()
    for name, rule in RULES.items():
        index.prepare_paths([name], rule.index_path)
    before, size = 0, 1_000
    while size <= rows():
        _grow(before, size)
        for name, rule in RULES.items():
            yield from _figures(name, rule, before, size)
        before, size = size, size * 10


def _grow(before: int, size: int) -> None:
    """Have *size* runs wait for an event of each name, and store as many events of each name."""
    synthetic.add_runs(before, size, "waiting", alarm="2100-01-01")
    synthetic.add_steps(before, size)
    for position, (name, rule) in enumerate(RULES.items()):
        expression = rule.condition.source if rule.condition else ""
        synthetic.add_waits(before, size, name, match=rule.match or "", expression=expression)
        first = position * rows()
        synthetic.add_events(first + before, first + size, name, [_path(name)])
    synthetic.analyze()


def _figures(name: str, rule: MatchRule, before: int, size: int) -> Iterator[Figure]:
    apart = (size - before) // 400
    numbers = itertools.cycle(range(before + 1, size + 1, apart))
    used_up = iter(range(before + 2, size + 1, apart))
    first = list(RULES).index(name) * rows()

    def match() -> None:
        number = next(numbers)
        found = matching.match([_arrival(name, number)]).resolutions
        assert [each.run_id for each in found] == [synthetic.id_of(number)]

    def look_back() -> None:
        number = first + next(numbers)
        with atomic():
            get_store().lock_names([name], shared=True)
            found = wait_for_event.find_stored(_lookback(name, rule, number))
        assert found is not None
        assert found.id == synthetic.id_of(number)

    one_of, text = f"{LABELS[name]}: one event, {size:,} waits", f"{LABELS[name]}: one wait, {size:,} stored events"
    yield measure(f"{one_of}: the database's part of matching", "ms", partial(_in_database, match))
    yield measure(f"{one_of}: matching", "ms", partial(_milliseconds, match))
    yield measure(f"{one_of}: all of its ingest, committed", "ms", partial(_ingest, name, rule, used_up))
    yield measure(f"{text}: the database's part of looking back", "ms", partial(_in_database, look_back))
    yield measure(f"{text}: looking back, with the lock of the name", "ms", partial(_milliseconds, look_back))


def _milliseconds(call: Callable[[], None]) -> float:
    started = time.perf_counter()
    for _ in range(CALLS):
        call()
    return (time.perf_counter() - started) / CALLS * 1_000


def _in_database(call: Callable[[], None]) -> float:
    """Return the time that the server needs to plan and execute what the call asks for, in ms."""
    with CaptureQueriesContext(connection) as queries:
        call()
    texts = [each["sql"].strip() for each in queries]
    statements = [sql for sql in texts if sql.startswith("SELECT") and "pg_advisory" not in sql]
    assert statements, texts
    return sum(_explained(sql) for sql in statements)


def _explained(sql: str) -> float:
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}")
        ((plan,),) = cursor.fetchall()
    found = json.loads(plan)[0] if isinstance(plan, str) else plan[0]
    return float(found["Planning Time"] + found["Execution Time"])


def _path(name: str) -> int:
    return MatchPath.objects.get(name=name).pk


def _arrival(name: str, number: int) -> IndexedEvent:
    """Return an event that the wait of that number is for; synthetic rows have keys of their own."""
    row = EventRow(
        id=uuid7(),
        name=name,
        data={"id": number, "kind": "paid"},
        user=None,
        ts=clock.now(),
        v="",
        received_at=clock.now(),
        ingested_at=None,
    )
    document = {"name": name, "data": row.data}
    return IndexedEvent(row=row, document=document, keys={(name, 0): synthetic.hash_of(number)})


def _lookback(name: str, rule: MatchRule, number: int) -> wait_for_event.Lookback:
    return wait_for_event.Lookback(
        patterns=[name],
        rule=rule,
        keys=[synthetic.hash_of(number)],
        trigger={"name": "bench/start", "data": {"id": number}},
        after=EARLIEST,
        received_since=None,
        used=frozenset(),
    )


def _ingest(name: str, rule: MatchRule, numbers: Iterator[int]) -> float:
    """Return how long the ingest of one event takes, which resolves one wait, in ms."""
    elapsed = 0.0
    for _ in range(CALLS):
        number = next(numbers)
        key = rule.key_for({"data": {"id": number}})
        waiting = Wait.objects.filter(run_id=synthetic.id_of(number), name=name)
        waiting.update(match_key=key)
        now = DatabaseNow()
        data = {"id": number, "kind": "paid"}
        Event.objects.create(name=name, data=data, ts=clock.now(), received_at=now, ingest_at=now)
        started = time.perf_counter()
        ready = list(ingest_events())
        elapsed += time.perf_counter() - started
        assert not waiting.exists(), ready
    return elapsed / CALLS * 1_000
