"""What one event, or one wait that looks back, reads among millions: waits and events under their keys."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Collection, Mapping, Sequence
from typing import Any
from uuid import UUID

from django.db.models import Q

from ....managers import DatabaseNow
from ....models import Event, EventKey, Function, MatchPath, Wait
from .. import stored_events
from ..page_sizes import first_page
from ..rows import EventRow, OpenWait

NOW = "(statement_timestamp() + %(shift)s)"
EVENT = "id, name, data, user, ts, v, received_at, ingested_at"
_EVENT = ", ".join(f'event."{name}"' for name in EVENT.split(", "))


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
MEASURES = 3  #: columns that such a statement adds to those of the page


def later_than(after: tuple[datetime.datetime, UUID], id_field: str = "id") -> Q:
    """Return the condition of what comes after that place in the order of ingest."""
    moment, event_id = after
    return Q(ingested_at__gte=moment) & (Q(ingested_at__gt=moment) | Q(**{f"{id_field}__gt": event_id}))


class Lookups:
    """These reads, in portable ORM."""

    alias: str

    def due_events(self, *, limit: int) -> list[EventRow]:
        """Return the first events that are due and fit into memory; they are ingested now, by the database's time."""
        due = Event.objects.using(self.alias).to_ingest().annotate(now=DatabaseNow())
        page, _ = first_page(due, "data", "user", page=limit)
        return [dataclasses.replace(stored_events.event_row(event), ingested_at=event.now) for event in page]

    def match_paths(self, names: Collection[str]) -> list[tuple[str, str, int]]:
        """Return the name, the path and the id of each match path of these names and wildcards."""
        paths = MatchPath.objects.using(self.alias).filter(name__in=names)
        return list(paths.values_list("name", "path", "id"))

    def foreign_functions(self, own: Collection[str]) -> list[tuple[str, str, Mapping[str, Any]]]:
        """Return the id, the version and the configuration of each function that only others' code has."""
        rows = Function.objects.using(self.alias).filter(in_code=True).exclude(id__in=own).order_by("id")
        return list(rows.values_list("id", "code_version", "config"))

    def store_keys(self, keys: Sequence[tuple[int, bytes, datetime.datetime, UUID]]) -> None:
        """Store keys of events: match path, key, moment of the ingest and event; those that exist are left."""
        rows = [EventKey(path_id=path, key=key, ingested_at=at, event_id=event) for path, key, at, event in keys]
        EventKey.objects.using(self.alias).bulk_create(rows, batch_size=500, ignore_conflicts=True)

    def open_waits(
        self, wanted: Collection[tuple[str, bytes]], *, after: int, limit: int
    ) -> tuple[Sequence[OpenWait], bool]:
        """Return a page of open waits for events, in the order of their ids, from *after* on; and whether more come.

        All that wait under one of these names and keys, here also under the name of one and the key of another.
        """
        names, keys = {name for name, _ in wanted}, {key for _, key in wanted}
        waits = Wait.objects.using(self.alias).filter(kind=Wait.Kind.EVENT, name__in=names, match_key__in=keys)
        rows = waits.filter(id__gt=after).order_by("id").select_related("run__event")
        page, more = first_page(rows, "run__input", "run__event__data", "run__event__user", page=limit)
        return [_open_wait(wait) for wait in page], more

    def stored_under(
        self,
        patterns: Sequence[str],
        path: str,
        keys: Sequence[bytes],
        *,
        after: tuple[datetime.datetime, UUID],
        limit: int,
    ) -> tuple[Sequence[EventRow], bool]:
        """Return a page of ingested events by keys for a match path, in the order of ingest; and whether more come."""
        found = EventKey.objects.using(self.alias).filter(path__name__in=patterns, path__path=path, key__in=keys)
        later = found.filter(later_than(after, "event_id")).select_related("event").order_by("ingested_at", "event_id")
        page, more = first_page(later, "event__data", "event__user", page=limit)
        return [stored_events.event_row(each.event) for each in page], more


def _open_wait(wait: Any) -> OpenWait:
    run = wait.run
    return OpenWait(
        id=wait.id,
        run_id=wait.run_id,
        key=wait.key,
        name=wait.name,
        match_key=wait.match_key,
        match=wait.match,
        expression=wait.expression,
        since=wait.since,
        expires_at=wait.expires_at,
        input=run.input,
        created_at=run.created_at,
        event=stored_events.event_row(run.event) if run.event else None,
    )
