"""The index of events: the key of each event under every path that waits compare.

A wait on a path asks for one key, so that one event finds its waits, and one wait its events, among millions.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.db.models import Q

from ...codecs import match_secrets
from ...core.events.events import patterns_of
from ...core.events.match_keys import UNINDEXED, index_key
from ...managers import DatabaseNow
from ...models import Event, MatchPath
from ..store import stored_events
from ..store.page_sizes import first_page
from ..store.rows import EventRow
from ..store.stores import get_store
from ..store.transactions import alias, atomic

PAGE = 500  #: events that get their keys at once
MOST_BACKFILLED = 10_000  #: match paths that a process remembers: code may wait for names that data chose

_Path = tuple[str, int]  #: a match path and the id of its row

_backfilled: set[tuple[str, str, str]] = set()  #: (alias, name, path) of match paths that every stored event has


def prepare_paths(patterns: Iterable[str], path: str) -> None:
    """Make sure that every stored event of these names has its key for *path*. Commits on its own.

    From the moment that the path is committed, under the exclusive lock of its name, ingest writes the keys of new
    events; those stored before get theirs in pages. A crash leaves the path without ``backfilled_at``, and the next
    wait goes on.
    """
    for pattern in patterns:
        if path and (alias(), pattern, path) not in _backfilled:
            row = MatchPath.objects.using(alias()).filter(name=pattern, path=path).first()
            if row is None or row.backfilled_at is None:
                _backfill(row or _announced_path(pattern, path))
            if len(_backfilled) >= MOST_BACKFILLED:
                _backfilled.clear()
            _backfilled.add((alias(), pattern, path))


def _announced_path(pattern: str, path: str) -> MatchPath:
    with atomic():
        get_store().lock_names([pattern], shared=False)
        row, _ = MatchPath.objects.using(alias()).get_or_create(name=pattern, path=path)
    return row


def _backfill(row: MatchPath) -> None:
    after = (datetime.datetime.min.replace(tzinfo=datetime.UTC), UUID(int=0))
    while True:
        rows = named([row.name]).filter(stored_events.later_than(after)).order_by("ingested_at", "id")
        page, more = first_page(rows, "data", "user", page=PAGE)
        paths = {row.name: [(row.path, row.pk)]}
        found = [stored_events.event_row(event) for event in page]
        store_keys([_arrival(event, stored_events.document(event), paths) for event in found])
        if not more:
            break
        after = (page[-1].ingested_at, page[-1].id)
    MatchPath.objects.using(alias()).filter(pk=row.pk).update(backfilled_at=DatabaseNow())


def forget() -> None:
    """Forget which paths this process has seen."""
    _backfilled.clear()


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexedEvent:
    """An event that is being ingested, with its keys for the match paths of its name."""

    row: EventRow
    document: dict[str, Any]  #: the event as expressions see it
    keys: dict[tuple[str, int], bytes]  #: by name or wildcard, and path
    former: set[tuple[str, bytes]] = field(default_factory=set)  #: keys by other secrets, which older waits may have

    @property
    def wanted(self) -> set[tuple[str, bytes]]:
        """The names or wildcards, and keys, that waits for it may have."""
        keyed = {(name, key) for (name, _), key in self.keys.items()}
        return keyed | self.former | {(name, UNINDEXED) for name in patterns_of(self.row.name)}


def arrivals(batch: Sequence[tuple[EventRow, dict[str, Any]]]) -> list[IndexedEvent]:
    """Return the events of a batch, which come with their documents, with their keys."""
    paths: dict[str, list[_Path]] = {}
    for name, path, path_id in get_store().match_paths({name for row, _ in batch for name in patterns_of(row.name)}):
        paths.setdefault(name, []).append((path, path_id))
    return [_arrival(row, document, paths) for row, document in batch]


def _arrival(row: EventRow, document: dict[str, Any], paths: Mapping[str, Iterable[_Path]]) -> IndexedEvent:
    secret, *others = match_secrets()
    indexed = [(name, *path) for name in patterns_of(row.name) for path in paths.get(name, ())]
    keys = {
        (name, path_id): key
        for name, path, path_id in indexed
        if (key := index_key(path, document, secret)) is not None
    }
    former = {
        (name, key)
        for name, path, _ in indexed
        for other in others
        if (key := index_key(path, document, other)) is not None
    }
    return IndexedEvent(row=row, document=document, keys=keys, former=former)


def store_keys(arrived: Iterable[IndexedEvent]) -> None:
    """Store the keys of events; keys that exist are left."""
    keys = [
        (path_id, key, arrival.row.ingested_at, arrival.row.id)
        for arrival in arrived
        if arrival.row.ingested_at is not None
        for (_, path_id), key in arrival.keys.items()
    ]
    if keys:
        get_store().store_keys(keys)


def named(patterns: Iterable[str]) -> Any:
    """Return the ingested events of these names and wildcards."""
    condition = Q()
    for pattern in patterns:
        condition |= Q(name__startswith=pattern[:-1]) if pattern.endswith("*") else Q(name=pattern)
    return Event.objects.using(alias()).filter(condition, ingested_at__isnull=False)
