"""Ingest: stored events start runs and resolve waits. One worker at a time does it, first in, first out."""

from __future__ import annotations

import dataclasses
import datetime
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ...codecs import reason
from ...conf import get_settings
from ...core import fault_points
from ...core.events.conditions import compile_condition
from ...core.events.events import patterns_of
from ...core.functions.triggers import On
from ...exceptions import DurableError, EvaluationFailed
from ...managers import DatabaseNow
from ...models import Event, MatchFailure, Run
from ..events import index
from ..events.index import IndexedEvent
from ..leases.leases import Lease, leased, no_next_claim
from ..runs import catalog
from ..runs.catalog import AnyFunction
from ..runs.starting import new_run, take_one
from ..store import page_sizes, stored_events
from ..store.rows import Claim, EventRow, NextClaim, ReadyRun
from ..store.stores import get_store
from ..store.transactions import alias, atomic, retried
from .matching import match

logger = logging.getLogger("django_durable")

BATCH = 500  #: events in one transaction
BATCH_NAMES = 1_000  #: names and wildcards that they lock: PostgreSQL has room for some thousands of locks in all
FAILURES = 100  #: match failures kept of one batch
UNREADABLE_PAUSE = datetime.timedelta(minutes=1)
_TICK = datetime.timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Ingested:
    """The result of a batch: the runs that became ready and, if the worker claimed one of them, its lease."""

    ready: Sequence[ReadyRun]
    lease: Lease | None = None


def ingest_events(follow: Callable[[], NextClaim | None] = no_next_claim) -> Iterator[Ingested]:
    """Ingest every event that is due, unless another worker does so now; yield the result of each commit.

    A worker that is refused may go: the one at work looks again after each commit, so no event is left. Where *follow*
    gives a next claim, the commit of the last few events claims a run that they made ready. Ingest stops there, and the
    worker looks for further events after that run.
    """
    is_left = True
    while is_left:
        ingested = _ingest_batch(follow)
        if ingested is None:
            return
        fault_points.point("match.after_commit")
        yield ingested
        is_left = ingested.lease is None and get_store().has_events()


@retried
def _ingest_batch(follow: Callable[[], NextClaim | None]) -> Ingested | None:
    """Ingest some events in one commit; None if none is due, or another worker is at it."""
    since = time.monotonic()
    with atomic():
        if not get_store().lock_ingest():
            return None
        found = _affordable(get_store().due_events(limit=BATCH))
        if not found:
            return None
        batch = _in_order(_readable(found))
        next_claim = follow() if len(found) < min(page_sizes.FEW, BATCH) else None
        ready, claim = _ingest(batch, next_claim) if batch else ([], None)
    return Ingested(ready, leased(claim, since) if claim else None)


def _affordable(due: list[EventRow]) -> list[EventRow]:
    """Return the first of these events whose names a transaction can lock."""
    names: set[str] = set()
    for count, row in enumerate(due):
        names.update(patterns_of(row.name))
        if count and len(names) > BATCH_NAMES:
            return due[:count]
    return due


def _readable(found: Sequence[EventRow]) -> list[tuple[EventRow, dict[str, Any]]]:
    """Return the events that can be decoded here, with their documents; leave the others to another worker.

    A worker may lack the key, or something other than the engine wrote the row. Such events hold up no others.
    """
    readable, unreadable = [], []
    for row in found:
        try:
            readable.append((row, stored_events.document(row)))
        except DurableError:
            unreadable.append(row)
    for row in unreadable:
        logger.error("Event %s %s cannot be decoded; it is looked at again in %s", row.name, row.id, UNREADABLE_PAUSE)
    if unreadable:
        later = DatabaseNow(UNREADABLE_PAUSE)
        Event.objects.using(alias()).filter(id__in=[row.id for row in unreadable]).update(ingest_at=later)
    return readable


def _in_order(batch: Sequence[tuple[EventRow, dict[str, Any]]]) -> list[tuple[EventRow, dict[str, Any]]]:
    """Give the batch its moments of ingest: a microsecond apart, so that they keep the order of receipt."""
    return [
        (dataclasses.replace(row, ingested_at=row.ingested_at and row.ingested_at + position * _TICK), document)
        for position, (row, document) in enumerate(batch)
    ]


def _ingest(
    batch: Sequence[tuple[EventRow, dict[str, Any]]], next_claim: NextClaim | None
) -> tuple[list[ReadyRun], Claim | None]:
    """Start runs and resolve waits; return the runs that became ready, and the claim on one for *next_claim*."""
    store, rows = get_store(), [row for row, _ in batch]
    store.lock_names({pattern for row in rows for pattern in patterns_of(row.name)}, shared=False)
    failures: list[MatchFailure] = []
    arrivals = index.arrivals(batch)
    catalog.foreign(max_age=0)
    index.store_keys(arrivals)
    runs = _started(arrivals, failures)
    matches = match(arrivals)
    fault_points.point("match.mid")
    taken = take_one(runs, next_claim) if next_claim else None
    catalog.ensure_rows_for(runs)
    new = store.store_ingested(rows, runs)
    ready = [ReadyRun(run.id, run.queue) for run in runs]
    if matches.resolutions:
        ready += store.resolve(matches.resolutions, rehint=get_settings().rehint)
    MatchFailure.objects.using(alias()).bulk_create([*failures, *matches.failures][:FAILURES])
    if taken is not None and taken.id in new:
        return ready, Claim.of(taken, new[taken.id], next(row for row in rows if row.id == taken.event_id))
    return ready, _claim(ready, next_claim) if next_claim else None


def _claim(ready: Sequence[ReadyRun], next_claim: NextClaim) -> Claim | None:
    """Claim the first run that the worker would find by itself."""
    run_id = next((each.run_id for each in ready if not each.needs_message(next_claim.queue)), None)
    return get_store().claim(run_id, owner=next_claim.owner, lease=next_claim.lease) if run_id else None


def _started(arrivals: Sequence[IndexedEvent], failures: list[MatchFailure]) -> list[Run]:
    """Return the runs that these events start: at most one of each function for each event."""
    return [
        new_run(
            function,
            event_id=arrival.row.id,
            start_key=stored_events.digest(function.id, arrival.row.id.hex),
            created_at=arrival.row.ingested_at,
        )
        for arrival in arrivals
        for function, triggers in catalog.listening_to(arrival.row.name)
        if any(_holds(on, function, arrival, failures) for on in triggers)
    ]


def _holds(on: On, function: AnyFunction, arrival: IndexedEvent, failures: list[MatchFailure]) -> bool:
    if on.if_ is None:
        return True
    try:
        return compile_condition(on.if_, ("event",)).holds(event=arrival.document)
    except EvaluationFailed as error:
        catalog.ensure([function])
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
