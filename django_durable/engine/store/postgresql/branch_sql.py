"""Single statements on PostgreSQL for branches, each of which locks the row of the run first.

After it has waited for that lock, a statement reads the newest version of the rows that it changes, not that of its
snapshot: so the counts of a group are right, and no branch is let in twice.
"""

from __future__ import annotations

import functools

from .expressions import LIVE, NOW
from .insert_sql import ATTEMPT

LOCKED = f"""
WITH locked AS (
    SELECT id, steps, status, queue FROM django_durable_run
    WHERE id = %(run_id)s AND status IN {LIVE} FOR UPDATE
)"""

_HELD = """
step.run_id = locked.id AND step.key = %(key)s AND step.fence = %(fence)s AND step.status = 'running'
"""

RECORDING = f"""{LOCKED}, branch AS (
    UPDATE django_durable_step step SET attempt = 0, crashes = 0,
        next_at = CASE WHEN next_at < {NOW} + %(lease)s / 2 THEN {NOW} + %(lease)s ELSE next_at END
    FROM locked WHERE {_HELD} RETURNING step.run_id
), run AS (
    UPDATE django_durable_run SET steps = locked.steps + 1
    FROM locked, branch WHERE django_durable_run.id = branch.run_id
    RETURNING django_durable_run.id, django_durable_run.steps AS seq
)"""

PARKING = f"""{LOCKED}, run AS (
    UPDATE django_durable_step step SET
        status = 'waiting', next_at = %(next_at)s::timestamptz, attempt = %(attempt)s, crashes = 0, owner = ''
    FROM locked WHERE {_HELD}
    RETURNING step.run_id AS id, NULL::int AS seq, 'waiting' AS status
)"""

# Under a limit, the end of a branch lets in the first one that is held back. The worker goes on with a branch that may
# already start, or else with that one.
_END = f"""{LOCKED}, run AS (
    UPDATE django_durable_step step SET
        status = %(status)s, output = %(output)s, error = %(error)s, input = %(input)s, attempt = %(attempt)s,
        seq = locked.steps + 1, finished_at = {NOW}, next_at = NULL, crashes = 0, owner = ''
    FROM locked WHERE {_HELD}
    RETURNING step.run_id AS id, step.parent_key
), around AS (
    UPDATE django_durable_step step SET
        open = step.open - 1,
        status = CASE WHEN step.open = 1 THEN 'completed' ELSE step.status END,
        seq = CASE WHEN step.open = 1 THEN locked.steps + 2 ELSE step.seq END,
        finished_at = CASE WHEN step.open = 1 THEN {NOW} ELSE step.finished_at END
    FROM run, locked WHERE step.run_id = run.id AND step.key = run.parent_key
    RETURNING step.parent_key, step.open = 0 AS decided
), ready AS (
    SELECT step.key FROM django_durable_step step, run
    WHERE step.run_id = run.id AND step.parent_key = run.parent_key AND step.status = 'planned'
        AND step.next_at IS NOT NULL
    ORDER BY step.ordinal, step.planned_at LIMIT 1 FOR UPDATE OF step
), held AS (
    SELECT step.key FROM django_durable_step step, run
    WHERE step.run_id = run.id AND step.parent_key = run.parent_key AND step.status = 'planned'
        AND step.next_at IS NULL AND %(limited)s
    ORDER BY step.ordinal LIMIT 1 FOR UPDATE OF step
), next AS (
    SELECT key FROM ready WHERE %(follows)s
    UNION ALL
    SELECT key FROM held WHERE %(follows)s AND NOT EXISTS (SELECT FROM ready)
), claimed AS (
    UPDATE django_durable_step step SET
        status = 'running', fence = step.fence + 1, owner = %(owner)s, next_at = {NOW} + %(lease)s,
        started_at = coalesce(step.started_at, {NOW})
    FROM next, run WHERE step.run_id = run.id AND step.key = next.key
    RETURNING step.key, step.path, step.fence, step.attempt, step.crashes
), admitted AS (
    UPDATE django_durable_step step SET next_at = {NOW} + %(rehint)s
    FROM held, run
    WHERE step.run_id = run.id AND step.key = held.key AND NOT EXISTS (SELECT FROM next WHERE next.key = held.key)
), outer_branch AS (
    UPDATE django_durable_step step SET status = 'planned', next_at = {NOW} + %(rehint)s
    FROM around, run
    WHERE around.decided AND step.run_id = run.id AND step.key = around.parent_key AND step.status = 'waiting'
    RETURNING step.key
), counted AS (
    UPDATE django_durable_run changed SET
        steps = locked.steps + 1 + around.decided::int,
        attempt = CASE WHEN woken.itself THEN 0 ELSE attempt END,
        wakes = CASE WHEN woken.itself THEN wakes + 1 ELSE wakes END,
        ready_at = CASE WHEN woken.itself AND locked.status = 'waiting' THEN {NOW} ELSE ready_at END,
        next_at = CASE WHEN woken.itself AND locked.status = 'waiting' THEN {NOW} + %(rehint)s ELSE next_at END,
        status = CASE WHEN woken.itself AND locked.status = 'waiting' THEN 'queued' ELSE changed.status END
    FROM locked, around, LATERAL (SELECT around.decided AND around.parent_key IS NULL AS itself) woken
    WHERE changed.id = locked.id
    RETURNING changed.queue, woken.itself AND locked.status = 'waiting' AS is_ready
)
SELECT counted.queue, counted.is_ready, EXISTS (SELECT FROM outer_branch), claimed.*
FROM counted LEFT JOIN claimed ON true
"""


@functools.cache
def end(*, failed: bool) -> str:
    """Return the statement that ends a branch, and keeps an attempt that *failed*."""
    return _END.replace("), around AS (", f"), kept AS ({ATTEMPT}), around AS (") if failed else _END
