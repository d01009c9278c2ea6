"""Ingest: what stored events start, and which waits they resolve. One worker at a time, first in, first out."""

from __future__ import annotations

import datetime
import logging
from collections.abc import Iterator, Sequence
from typing import Any
from uuid import UUID

from ..codecs import reason
from ..conf import get_settings
from ..core import fault_points
from ..core.events import patterns_of
from ..core.expressions import compile_condition
from ..core.triggers import On
from ..exceptions import EvaluationFailed
from ..managers import DatabaseNow
from ..models import Event, MatchFailure, Run
from . import event_keys, events, functions, sizes, waits
from .event_keys import Arrival
from .functions import Startable
from .rows import Ready
from .runs import new_run, store_runs
from .store import get_store
from .transactions import alias, atomic, retried

logger = logging.getLogger("django_durable")

BATCH = 500  #: events in one transaction
BATCH_NAMES = 1_000  #: names and wildcards that they lock: PostgreSQL has room for some thousands of locks in all
FAILURES = 100  #: expressions that errored, kept of one batch
UNREADABLE_PAUSE = datetime.timedelta(minutes=1)
_TICK = datetime.timedelta(microseconds=1)


def ingest_events() -> Iterator[list[Ready]]:
    """Ingest every event that is due, unless somebody else does right now; yield what became ready, commit by commit.

    Who is refused may go: the one at work looks again after each commit, so no event is left.
    """
    is_left = True
    while is_left:
        ready = _ingest_batch()
        if ready is None:
            return
        fault_points.point("match.after_commit")
        yield ready
        is_left = get_store().has_events()


@retried
def _ingest_batch() -> list[Ready] | None:
    """Ingest some events in one commit; None if none is due, or somebody else is at it."""
    with atomic():
        if not get_store().lock_ingest():
            return None
        found = _due()
        if not found:
            return None
        unreadable = [event for event in found if not events.is_readable(event)]
        if unreadable:
            _put_off(unreadable)
        batch = _in_order([event for event in found if event not in unreadable])
        return _ingest(batch) if batch else []


def _due() -> list[Any]:
    """Return the first events that are due: as many as one transaction can hold, and lock the names of."""
    due = Event.objects.using(alias()).to_ingest()
    few = min(sizes.FEW, BATCH)
    found = list(due.annotate(now=DatabaseNow())[:few])
    return found if len(found) < few else list(due.filter(id__in=_affordable(due)).annotate(now=DatabaseNow()))


def _affordable(due: Any) -> list[UUID]:
    sized = due.annotate(size=sizes.size_of("data", "user")).values_list("id", "name", "size")
    ids: list[UUID] = []
    names: set[str] = set()
    total = 0
    for event_id, name, length in sized[:BATCH]:
        names.update(patterns_of(name))
        total += length
        if ids and (total > sizes.MOST or len(names) > BATCH_NAMES):
            break
        ids.append(event_id)
    return ids


def _put_off(unreadable: Sequence[Event]) -> None:
    """Leave events to a worker that can decode them, and let them hold up no others."""
    for event in unreadable:
        logger.error(
            "Event %s %s cannot be decoded; it is looked at again in %s", event.name, event.id, UNREADABLE_PAUSE
        )
    later = DatabaseNow(UNREADABLE_PAUSE)
    Event.objects.using(alias()).filter(id__in=[event.id for event in unreadable]).update(ingest_at=later)


def _in_order(batch: list[Any]) -> list[Event]:
    """Give the batch its moments of ingest: a microsecond apart, so that they keep the order of receipt."""
    for position, event in enumerate(batch):
        event.ingested_at = batch[0].now + position * _TICK
    return batch


def _ingest(batch: Sequence[Event]) -> list[Ready]:
    get_store().lock_names({pattern for event in batch for pattern in patterns_of(event.name)}, shared=False)
    failures: list[MatchFailure] = []
    arrivals = event_keys.arrivals(batch)
    functions.foreign(max_age=0)
    event_keys.store_keys(arrivals)
    ready = store_runs(_started(arrivals, failures))
    matches = waits.match(arrivals)
    fault_points.point("match.mid")
    if matches.resolutions:
        ready += get_store().resolve(matches.resolutions, rehint=get_settings().rehint)
    MatchFailure.objects.using(alias()).bulk_create([*failures, *matches.failures][:FAILURES])
    get_store().mark_ingested(batch)
    return ready


def _started(arrivals: Sequence[Arrival], failures: list[MatchFailure]) -> list[Run]:
    """Return the runs that these events start: at most one of each function for each event."""
    return [
        new_run(
            function,
            event_id=arrival.row.id,
            start_key=events.digest(function.id, arrival.row.id.hex),
            created_at=arrival.row.ingested_at,
        )
        for arrival in arrivals
        for function, triggers in functions.listening_to(arrival.row.name)
        if any(_holds(on, function, arrival, failures) for on in triggers)
    ]


def _holds(on: On, function: Startable, arrival: Arrival, failures: list[MatchFailure]) -> bool:
    if on.if_ is None:
        return True
    try:
        return compile_condition(on.if_, ("event",)).holds(event=arrival.document)
    except EvaluationFailed as error:
        functions.ensure([function])
        failures.append(
            MatchFailure(
                event_id=arrival.row.id,
                function_id=function.id,
                expression=error.expression,
                reason=reason(error),
                created_at=DatabaseNow(),
            )
        )
        return False
