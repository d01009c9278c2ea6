"""Single statements on PostgreSQL for the scheduler."""

from __future__ import annotations

from ..portable.scheduling import DEPUTY, LEADER
from .expressions import NOW

# It reads the rows of both locks as they were before: it changes one only for the scheduler that leads or is deputy.
LOOK = f"""
WITH leader AS (
    UPDATE django_durable_lock SET owner = %(name)s, expires_at = {NOW} + %(leadership)s
    WHERE name = '{LEADER}' AND (owner = %(name)s OR expires_at <= {NOW}) RETURNING name
), deputy AS (
    UPDATE django_durable_lock SET owner = %(name)s, expires_at = {NOW} + %(deputyship)s
    WHERE name = '{DEPUTY}' AND (owner = %(name)s OR expires_at <= {NOW}) AND NOT EXISTS (SELECT FROM leader)
    RETURNING name
)
SELECT EXISTS (SELECT FROM leader), EXISTS (SELECT FROM deputy),
    (SELECT expires_at FROM django_durable_lock WHERE name = '{LEADER}'),
    (SELECT expires_at FROM django_durable_lock WHERE name = '{DEPUTY}'),
    {NOW}, due.run_at, due.branch_at, due.event_at, due.event_id
FROM (SELECT) nothing LEFT JOIN (
    SELECT
        (SELECT next_at FROM django_durable_run WHERE next_at IS NOT NULL ORDER BY next_at LIMIT 1) AS run_at,
        (
            SELECT next_at FROM django_durable_step WHERE kind = 'branch' AND next_at IS NOT NULL
            ORDER BY next_at LIMIT 1
        ) AS branch_at,
        event.ingest_at AS event_at, event.id AS event_id
    FROM leader LEFT JOIN (
        SELECT ingest_at, id FROM django_durable_event WHERE ingested_at IS NULL ORDER BY ingest_at, id LIMIT 1
    ) event ON true
) due ON true
"""

# A run that is being claimed at this moment needs no hint.
HINT_LATER = f"""
UPDATE django_durable_run run
SET next_at = {NOW} + least(greatest(%(rehint)s, {NOW} - coalesce(ready_at, {NOW})), %(most)s * %(rehint)s)
FROM (
    SELECT id, status FROM django_durable_run WHERE id = ANY(%(run_ids)s) FOR UPDATE SKIP LOCKED
) hinted
WHERE run.id = hinted.id AND hinted.status = 'queued' RETURNING run.id
"""
