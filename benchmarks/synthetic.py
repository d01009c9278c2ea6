"""Synthetic rows by the million, made by the database itself in seconds: waiting runs, their waits, stored events."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from django.db import connection

from django_durable.managers import DatabaseNow
from django_durable.models import Function

FUNCTION = "project/synthetic"
#: Ids that sort by time as UUIDv7 do: a millisecond for each number.
ID = "(lpad(to_hex(1700000000000 + n), 12, '0') || '70008' || substr(md5(n::text), 1, 15))::uuid"
HASH = "decode(md5(n::text), 'hex')"
MOMENT = "timestamptz '2026-01-01' + n * interval '1 microsecond'"
NUMBERS = "generate_series(%(start)s::bigint + 1, %(end)s::bigint) n"

_RUNS = f"""
INSERT INTO django_durable_run (
    id, function_id, input, status, waiting_kind, waiting_for, summary, attempt, steps, priority, queue, code_version,
    depth, created_at, started_at, finished_at, fence, next_at, ready_at, wakes, crashes, owner
)
SELECT {ID}, %(function)s, format('{{"id": %%s}}', n), %(status)s, '', '', '', 0, 1, 0, 'celery', '', 0, now(), now(),
    CASE WHEN %(status)s = 'completed' THEN now() END, 1, %(alarm)s::timestamptz,
    CASE WHEN %(status)s = 'queued' THEN now() END, 0, 0, ''
FROM {NUMBERS}
"""
_WAITS = f"""
INSERT INTO django_durable_wait (
    run_id, key, kind, name, match_key, match, expression, since, expires_at, created_at
)
SELECT {ID}, {HASH}, 'event', %(name)s, {HASH}, %(match)s, %(expression)s, NULL, now() + interval '30 days', now()
FROM {NUMBERS}
"""
_EVENTS = f"""
INSERT INTO django_durable_event (id, name, data, ts, v, source, received_at, ingest_at, ingested_at)
SELECT {ID}, %(name)s, jsonb_build_object('id', n, 'kind', 'paid'), now(), '', 'api', now(), now(), {MOMENT}
FROM {NUMBERS}
"""
_STEPS = f"""
INSERT INTO django_durable_step (
    run_id, key, branch, name, ordinal, kind, status, input, attempt, path, fence, owner, crashes, planned_at,
    seq, finished_at
)
SELECT {ID}, {HASH}, '', 'wait', 0, 'wait', %(status)s, '', 0, '', 0, '', 0, now(),
    CASE WHEN %(status)s = 'completed' THEN 1 END, CASE WHEN %(status)s = 'completed' THEN now() END
FROM {NUMBERS}
"""
_EVENT_KEYS = f"""
INSERT INTO django_durable_eventkey (path_id, key, ingested_at, event_id)
SELECT %(path)s, {HASH}, {MOMENT}, {ID} FROM {NUMBERS}
"""


def ensure_function() -> None:
    """Store the function that synthetic runs are of."""
    values = {"slug": FUNCTION.partition("/")[2], "first_seen": DatabaseNow(), "last_seen": DatabaseNow()}
    Function.objects.get_or_create(id=FUNCTION, defaults=values)


def id_of(number: int) -> UUID:
    """Return the id of the run, or of the event, of that number."""
    digest = hashlib.md5(str(number).encode()).hexdigest()
    return UUID(f"{1_700_000_000_000 + number:012x}70008{digest[:15]}")


def hash_of(number: int) -> bytes:
    """Return the key of the wait, of the step and of the event of that number."""
    return hashlib.md5(str(number).encode()).digest()


def add_runs(start: int, end: int, status: str, *, alarm: str | None = None) -> None:
    """Store the runs of the numbers after *start* up to *end*, each with its number as input."""
    _execute(_RUNS, start=start, end=end, function=FUNCTION, status=status, alarm=alarm)


def add_waits(start: int, end: int, name: str, *, match: str = "", expression: str = "") -> None:
    """Store a wait of each of these runs, with keys that nothing else has."""
    _execute(_WAITS, start=start, end=end, name=name, match=match, expression=expression)


def add_steps(start: int, end: int, status: str = "waiting") -> None:
    """Store the step of each of these runs."""
    _execute(_STEPS, start=start, end=end, status=status)


def add_events(start: int, end: int, name: str, paths: Sequence[int] = ()) -> None:
    """Store ingested events of these numbers, with a key for each of the match paths."""
    _execute(_EVENTS, start=start, end=end, name=name)
    for path in paths:
        _execute(_EVENT_KEYS, start=start, end=end, path=path)


def analyze() -> None:
    """Let the database look at what it has, as it does by itself after a while."""
    _execute("VACUUM ANALYZE")


def _execute(sql: str, **values: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql, values or None)
