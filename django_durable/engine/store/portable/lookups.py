"""Look-ups: what one event, or one wait that looks back, reads among millions."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Collection, Mapping, Sequence
from typing import Any
from uuid import UUID

from ....managers import DatabaseNow
from ....models import Event, EventKey, Function, MatchPath, Wait
from ..page_sizes import first_page
from ..rows import EventRow, OpenWait
from ..stored_events import Place, event_row, later_than
from .queries import Queries


class Lookups(Queries):
    """Look-ups, in portable ORM."""

    def due_events(self, *, limit: int) -> list[EventRow]:
        due = Event.objects.using(self.alias).to_ingest().annotate(now=DatabaseNow())
        page, _ = first_page(due, "data", "user", page=limit)
        return [dataclasses.replace(event_row(event), ingested_at=event.now) for event in page]

    def match_paths(self, names: Collection[str]) -> list[tuple[str, str, int]]:
        paths = MatchPath.objects.using(self.alias).filter(name__in=names)
        return list(paths.values_list("name", "path", "id"))

    def foreign_functions(self, own: Collection[str]) -> list[tuple[str, str, Mapping[str, Any]]]:
        rows = Function.objects.using(self.alias).filter(in_code=True).exclude(id__in=own).order_by("id")
        return list(rows.values_list("id", "code_version", "config"))

    def store_keys(self, keys: Sequence[tuple[int, bytes, datetime.datetime, UUID]]) -> None:
        rows = [EventKey(path_id=path, key=key, ingested_at=at, event_id=event) for path, key, at, event in keys]
        EventKey.objects.using(self.alias).bulk_create(rows, batch_size=500, ignore_conflicts=True)

    def open_waits(
        self, wanted: Collection[tuple[str, bytes]], *, after: int, limit: int
    ) -> tuple[Sequence[OpenWait], bool]:
        # Also those that wait under the name of one and the key of another: the caller looks at each.
        names, keys = {name for name, _ in wanted}, {key for _, key in wanted}
        waits = Wait.objects.using(self.alias).filter(kind=Wait.Kind.EVENT, name__in=names, match_key__in=keys)
        rows = waits.filter(id__gt=after).order_by("id").select_related("run__event")
        page, more = first_page(rows, "run__input", "run__event__data", "run__event__user", page=limit)
        return [_open_wait(wait) for wait in page], more

    def stored_under(
        self, patterns: Sequence[str], path: str, keys: Sequence[bytes], *, after: Place, limit: int
    ) -> tuple[Sequence[EventRow], bool]:
        found = EventKey.objects.using(self.alias).filter(path__name__in=patterns, path__path=path, key__in=keys)
        later = found.filter(later_than(after, "event_id")).select_related("event").order_by("ingested_at", "event_id")
        page, more = first_page(later, "event__data", "event__user", page=limit)
        return [event_row(each.event) for each in page], more


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
        event=event_row(run.event) if run.event else None,
    )
