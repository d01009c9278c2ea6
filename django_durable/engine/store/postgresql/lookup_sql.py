"""Single statements on PostgreSQL for what one event, or one wait that looks back, reads among millions."""

from __future__ import annotations

from .expressions import EVENT, NOW, columns

_EVENT = columns(EVENT, "event")

MEASURES = 3  #: columns that the statement for a page adds: how many rows it had, the position, and the size up to it


def _fitting(page: str, size: str, order: str) -> str:
    """Return the statement for a page whose payloads fit into memory, with how many rows the page had before."""
    return f"""
SELECT * FROM (
    SELECT page.*, count(*) OVER () AS found, row_number() OVER (ORDER BY {order}) AS position,
        sum({size}) OVER (ORDER BY {order}) AS total
    FROM ({page}) page
) measured WHERE total <= %(most)s OR position = 1 ORDER BY {order}
"""


OPEN_WAITS = _fitting(
    f"""
    SELECT wait.id AS wait_id, wait.run_id, wait.key, wait.name AS wait_name, wait.match_key, wait.match,
        wait.expression, wait.since, wait.expires_at, run.input, run.created_at, {_EVENT}
    FROM unnest((SELECT %(names)s::text[]), (SELECT %(keys)s::bytea[])) AS wanted (name, key)
    JOIN django_durable_wait wait ON wait.name = wanted.name AND wait.match_key = wanted.key
    JOIN django_durable_run run ON run.id = wait.run_id
    LEFT JOIN django_durable_event event ON event.id = run.event_id
    WHERE wait.kind = 'event' AND wait.id > %(after)s
    ORDER BY wait.id LIMIT %(limit)s
    """,
    size='coalesce(length(input), 0) + coalesce(length(data::text), 0) + coalesce(length("user"::text), 0)',
    order="wait_id",
)
STORED_UNDER = _fitting(
    f"""
    SELECT {_EVENT}
    FROM django_durable_matchpath path
    JOIN django_durable_eventkey entry ON entry.path_id = path.id
    JOIN django_durable_event event ON event.id = entry.event_id
    WHERE path.name = ANY(%(patterns)s) AND path.path = %(path)s AND entry.key = ANY(%(keys)s)
        AND (entry.ingested_at, entry.event_id) > (%(moment)s::timestamptz, %(event_id)s::uuid)
    ORDER BY entry.ingested_at, entry.event_id LIMIT %(limit)s
    """,
    size='length(data::text) + coalesce(length("user"::text), 0)',
    order="ingested_at, id",
)
DUE_EVENTS = _fitting(
    f"""
    SELECT {_EVENT}, {NOW} AS now, ingest_at FROM django_durable_event event
    WHERE ingested_at IS NULL AND ingest_at <= {NOW} ORDER BY ingest_at, id LIMIT %(limit)s
    """,
    size='length(data::text) + coalesce(length("user"::text), 0)',
    order="ingest_at, id",
)
MATCH_PATHS = "SELECT name, path, id FROM django_durable_matchpath WHERE name = ANY(%(names)s)"
FOREIGN_FUNCTIONS = """
SELECT id, code_version, config FROM django_durable_function WHERE in_code AND id <> ALL(%(own)s) ORDER BY id
"""
STORE_KEYS = """
INSERT INTO django_durable_eventkey (path_id, key, ingested_at, event_id)
SELECT * FROM unnest(
    (SELECT %(path_ids)s::bigint[]), (SELECT %(hashes)s::bytea[]), (SELECT %(moments)s::timestamptz[]),
    (SELECT %(event_ids)s::uuid[])
)
ON CONFLICT DO NOTHING RETURNING path_id
"""
