"""Single statements on PostgreSQL for runs: one statement, one round trip, one commit each.

Every write of a turn is a common table expression whose first part updates the run's row under its fence: the lock and
the check are one, so that a stale owner writes nothing, also while a takeover is being committed.
"""

from __future__ import annotations

import functools

from ..rows import STOPPING
from . import branch_sql
from .expressions import EVENT, LIVE, MEMO, NOW, RUN, SETTLED, columns
from .insert_sql import ATTEMPT, WAIT, step_part

# Claims

_QUEUED = f"status = 'queued' AND held_by IS NULL AND ready_at <= {NOW}"
_CLAIMED = f"""
    SELECT id, status FROM django_durable_run WHERE {{where}} LIMIT 1 FOR UPDATE SKIP LOCKED
), claimed AS (
    UPDATE django_durable_run run SET
        status = 'running', fence = run.fence + 1, owner = %(owner)s, ready_at = NULL,
        next_at = {NOW} + %(lease)s, started_at = coalesce(run.started_at, {NOW}),
        crashes = run.crashes + (candidate.status = 'running' AND run.owner NOT LIKE '%%{STOPPING}')::int,
        waiting_kind = '', waiting_for = ''
    FROM candidate WHERE run.id = candidate.id
    RETURNING {columns((*RUN, "event_id"), "run")}
)"""
_CLAIM_VALUES = f"{columns(RUN, 'claimed')}, {NOW}, {columns(EVENT, 'event')}"
_CLAIM = f"""
WITH candidate AS ({_CLAIMED}
SELECT {_CLAIM_VALUES} FROM claimed LEFT JOIN django_durable_event event ON event.id = claimed.event_id
"""
CLAIM = _CLAIM.format(where=f"id = %(id)s AND ({_QUEUED} OR status = 'running' AND next_at <= {NOW})")
HAS_EVENTS = f"EXISTS (SELECT FROM django_durable_event WHERE ingested_at IS NULL AND ingest_at <= {NOW})"


def _queued(*, in_queue: bool) -> str:
    return f"{_QUEUED} AND queue = %(queue)s" if in_queue else _QUEUED


@functools.cache
def claim_ready(*, in_queue: bool, of_functions: bool) -> str:
    """Return the statement that claims the first ready run."""
    functions = " AND function_id = ANY(%(functions)s)" if of_functions else ""
    return _CLAIM.format(where=f"{_queued(in_queue=in_queue)}{functions} ORDER BY ready_at, id")


@functools.cache
def has_ready(*, in_queue: bool) -> str:
    """Return the expression that tells whether a run is ready."""
    return f"EXISTS (SELECT FROM django_durable_run WHERE {_queued(in_queue=in_queue)})"


RENEW = f"""
UPDATE django_durable_run run SET next_at = {NOW} + %(lease)s
FROM (
    SELECT id, fence, status FROM django_durable_run WHERE id = ANY(%(run_ids)s) FOR UPDATE SKIP LOCKED
) held JOIN unnest(%(run_ids)s::uuid[], %(fences)s::bigint[]) AS mine (id, fence)
    ON held.id = mine.id AND held.fence = mine.fence
WHERE run.id = held.id AND held.status = 'running' RETURNING run.id
"""

# Memos

MEMOS = f"""
SELECT {columns(MEMO, "step")}, {columns(EVENT, "event")}
FROM django_durable_step step LEFT JOIN django_durable_event event ON event.id = step.event_id
WHERE step.run_id = %(run_id)s AND step.branch = '' AND (%(after)s::int IS NULL OR step.seq > %(after)s)
"""

# Writes of a turn

_HELD = "id = %(run_id)s AND fence = %(fence)s AND status = 'running'"
_RECORDING = f"""
WITH run AS (
    UPDATE django_durable_run SET steps = steps + 1, attempt = 0, crashes = 0,
        next_at = CASE WHEN next_at < {NOW} + %(lease)s / 2 THEN {NOW} + %(lease)s ELSE next_at END
    WHERE {_HELD} RETURNING id, steps AS seq
)"""
_PARKING = f"""
WITH run AS (
    UPDATE django_durable_run SET
        status = CASE WHEN wakes = %(wakes)s THEN 'waiting' ELSE 'queued' END,
        next_at = CASE WHEN wakes = %(wakes)s THEN %(next_at)s::timestamptz ELSE {NOW} + %(rehint)s END,
        ready_at = CASE WHEN wakes = %(wakes)s THEN NULL ELSE {NOW} END,
        waiting_kind = %(kind)s, waiting_for = %(text)s, attempt = %(attempt)s, crashes = 0, owner = ''
    WHERE {_HELD} RETURNING id, status, NULL::int AS seq
)"""
RELEASE = f"""
UPDATE django_durable_run SET
    status = 'queued', ready_at = {NOW} + %(after)s, next_at = {NOW} + %(after)s + %(rehint)s, owner = ''
WHERE {_HELD} RETURNING id
"""
_ENDING = f"""
WITH run AS (
    UPDATE django_durable_run SET
        status = %(status)s, output = %(output)s, error = %(error)s, fence = fence + 1, next_at = NULL,
        ready_at = NULL, held_by = NULL, finished_at = {NOW}, waiting_kind = '', waiting_for = '', owner = ''
    WHERE {_HELD} RETURNING id
), waits AS (
    DELETE FROM django_durable_wait wait USING run WHERE wait.run_id = run.id
)"""
END = f"{_ENDING} SELECT id FROM run"
_END_AND_CLAIM = f"""{_ENDING}, candidate AS ({_CLAIMED}
SELECT {_CLAIM_VALUES}
FROM run LEFT JOIN claimed ON true LEFT JOIN django_durable_event event ON event.id = claimed.event_id
"""
# Two workers that end runs at the same time each go on with another run.
_NEXT = f"{_QUEUED} AND EXISTS (SELECT FROM run)"


@functools.lru_cache
def record(filled: tuple[str, ...], *, in_branch: bool, failed: bool) -> str:
    """Return the statement that records a step with these columns, and an attempt of it that *failed* before."""
    recording = branch_sql.RECORDING if in_branch else _RECORDING
    attempt = f", attempt AS ({ATTEMPT})" if failed else ""
    return f"{recording}{attempt}{step_part(filled)}"


@functools.lru_cache
def park(filled: tuple[str, ...], *, in_branch: bool, waits: bool, failed: bool) -> str:
    """Return the statement that parks, with a step of these columns, a wait and an attempt if there are such."""
    parking = branch_sql.PARKING if in_branch else _PARKING
    step = f", step AS ({step_part(filled)})" if filled else ""
    wait = f", wait AS ({WAIT})" if waits else ""
    attempt = f", attempt AS ({ATTEMPT})" if failed else ""
    return f"{parking}{step}{wait}{attempt} SELECT status FROM run"


@functools.cache
def end_and_claim(*, this_run: bool, in_queue: bool) -> str:
    """Return the statement that ends a run and claims *this_run*, or else the first ready one, in its place."""
    if this_run:
        return _END_AND_CLAIM.format(where=f"{_NEXT} AND id = %(next_id)s")
    queue = " AND queue = %(queue)s" if in_queue else ""
    return _END_AND_CLAIM.format(where=f"{_NEXT}{queue} ORDER BY ready_at, id")


# Changes from outside

# A run counts each of the resolutions that concern it, in the order of the arrays. Runs and waits are looked up one by
# one: with old statistics, a plan may scan all that wait. Arrays stand in queries of their own: otherwise the server
# makes a plan for the length of each, which takes longer than to execute it.
RESOLVE = f"""
WITH given AS (
    SELECT * FROM unnest(
        (SELECT %(run_id)s::uuid[]), (SELECT %(key)s::bytea[]), (SELECT %(status)s::text[]),
        (SELECT %(output)s::text[]), (SELECT %(error)s::text[]), (SELECT %(event_id)s::uuid[])
    ) WITH ORDINALITY AS given (run_id, key, status, output, error, event_id, position)
), locked AS (
    SELECT id, steps, status FROM django_durable_run WHERE id = ANY(ARRAY(SELECT run_id FROM given))
    ORDER BY id FOR UPDATE
), numbered AS (
    SELECT given.*, locked.steps + row_number() OVER (PARTITION BY run_id ORDER BY position) AS seq
    FROM given JOIN locked ON locked.id = given.run_id AND locked.status IN {LIVE}
), settled AS (
    UPDATE django_durable_step step SET
        status = numbered.status, output = numbered.output, error = numbered.error, event_id = numbered.event_id,
        seq = numbered.seq, finished_at = {NOW}
    FROM numbered
    WHERE step.run_id = numbered.run_id AND step.key = numbered.key AND step.status NOT IN {SETTLED}
    RETURNING step.run_id, numbered.seq, step.parent_key
), waits AS (
    DELETE FROM django_durable_wait WHERE ctid = ANY(ARRAY(
        SELECT wait.ctid FROM given, LATERAL (
            SELECT ctid FROM django_durable_wait WHERE run_id = given.run_id AND key = given.key OFFSET 0
        ) wait
    ))
), branches AS (
    UPDATE django_durable_step branch SET status = 'planned', next_at = {NOW} + %(rehint)s
    FROM settled
    WHERE branch.run_id = settled.run_id AND branch.key = settled.parent_key AND branch.status = 'waiting'
    RETURNING branch.run_id
), woken AS (
    SELECT locked.id, locked.status, max(seq) AS steps, bool_or(settled.parent_key IS NULL) AS itself,
        bool_or(settled.parent_key IS NULL) AND locked.status = 'waiting' AS from_waiting
    FROM settled JOIN locked ON locked.id = settled.run_id GROUP BY locked.id, locked.status
)
UPDATE django_durable_run run SET
    steps = woken.steps,
    attempt = CASE WHEN woken.itself THEN 0 ELSE attempt END,
    wakes = CASE WHEN woken.itself THEN wakes + 1 ELSE wakes END,
    ready_at = CASE WHEN woken.from_waiting THEN {NOW} ELSE ready_at END,
    next_at = CASE WHEN woken.from_waiting THEN {NOW} + %(rehint)s ELSE next_at END,
    status = CASE WHEN woken.from_waiting THEN 'queued' ELSE run.status END
FROM woken
WHERE run.id = woken.id
RETURNING run.id, run.queue, EXISTS (SELECT FROM branches WHERE branches.run_id = run.id), woken.from_waiting
"""
