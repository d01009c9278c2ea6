"""Stored events as values: what handlers, expressions and match paths see of them."""

from __future__ import annotations

import copy
import dataclasses
import datetime
import hashlib
import json
import logging
from typing import Any
from uuid import UUID

from django.db.models import Q

from ...codecs import is_sealed, open_data, open_text
from ...core.events.events import CancelEvent, CompletionEvent, EndEvent, Event, FailureEvent
from ...core.functions import registry
from ...core.functions.definitions import FunctionDefinition
from ...core.values import encoding, errors
from ...exceptions import InvalidEvent
from ...middleware import get_hooks
from ...models import Event as StoredEvent
from ...models import Run
from .rows import Claim, EventRow, OpenWait

logger = logging.getLogger("django_durable")

FAILED = "durable/function.failed"
CANCELLED = "durable/function.cancelled"
COMPLETED = "durable/function.completed"
INVOKED = "durable/function.invoked"
LIFECYCLE = frozenset({FAILED, CANCELLED, COMPLETED, INVOKED})

Place = tuple[datetime.datetime, UUID]  #: of an event in the order of ingest: when it was ingested, and its id


def digest(*parts: str, secret: bytes = b"") -> bytes:
    """Return a hash of these texts that keeps them apart; with a *secret*, a hash that nobody else can make."""
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16, key=secret).digest()


def event_row(event: StoredEvent) -> EventRow:
    """Return the stored event as the engine's value."""
    return EventRow(**{name: getattr(event, name) for name in EventRow.__slots__})


def later_than(place: Place, id_field: str = "id") -> Q:
    """Return the condition of the events that come after that place in the order of ingest."""
    moment, event_id = place
    return Q(ingested_at__gte=moment) & (Q(ingested_at__gt=moment) | Q(**{f"{id_field}__gt": event_id}))


def event_of(row: EventRow) -> Event:
    """Return the stored event as handlers see it: a copy, because a handler may change it.

    Raises CodecError if it cannot be decoded here.
    """
    row = _opened(row)
    values: dict[str, Any] = {
        "name": row.name,
        "data": encoding.from_json(copy.deepcopy(row.data)),
        "id": str(row.id),
        "user": encoding.from_json(copy.deepcopy(row.user)),
        "ts": row.ts,
        "v": row.v or None,
        "received_at": row.received_at,
    }
    return _end_event(values, row.data) if row.name in (FAILED, CANCELLED, COMPLETED) else Event(**values)


def _opened(row: EventRow) -> EventRow:
    if not (is_sealed(row.data) or is_sealed(row.user)):
        return row
    return dataclasses.replace(row, data=open_data(row.data), user=open_data(row.user))


def _end_event(values: dict[str, Any], stored: dict[str, Any]) -> Event:
    data = values["data"]
    values |= {"run_id": data["run_id"], "original": Event(**data["event"])}
    if values["name"] == FAILED:
        return FailureEvent(**values, error=errors.decode_error(json.dumps(stored["error"])))
    if values["name"] == CANCELLED:
        return CancelEvent(**values, reason=data["reason"])
    return CompletionEvent(**values, result=get_hooks().decode(data["result"]))


def event_for(function: FunctionDefinition[Any, Any], row: EventRow) -> Event:
    """Return the stored event as the handler of *function* sees it; InvalidEvent if its data does not fit its type."""
    event = event_of(row)
    if not isinstance(event, EndEvent):
        return function.typed(event)
    ended = registry.get(event.data["function"])
    try:
        return dataclasses.replace(event, original=ended.typed(event.original)) if ended else event
    except InvalidEvent:
        return event  # Data that did not fit may be why the run failed; what handles that runs nevertheless.


def trigger_of(claim: Claim) -> EventRow:
    """Return the event that the handler of a claimed run receives: its trigger, with the run's own input as data."""
    return _trigger(claim.event, claim.input, claim.run_id, claim.created_at)


def trigger_of_run(run: Run) -> EventRow:
    """Return the event that the handler of a stored run receives."""
    return _trigger(event_row(run.event) if run.event else None, run.input, run.id, run.created_at)


def trigger_of_wait(wait: OpenWait) -> EventRow:
    """Return the event that the handler of the run of an open wait receives."""
    return _trigger(wait.event, wait.input, wait.run_id, wait.created_at)


def _trigger(event: EventRow | None, input: str | None, run_id: UUID, created_at: datetime.datetime) -> EventRow:
    data = None if input is None else json.loads(open_text(input) or "")
    if event is not None:
        return event if data is None else dataclasses.replace(event, data=data)
    return EventRow(
        id=run_id,
        name=INVOKED,
        data={} if data is None else data,
        user=None,
        ts=created_at,
        v="",
        received_at=created_at,
        ingested_at=None,
    )


def portable(row: EventRow) -> dict[str, Any]:
    """Return the event as a JSON structure that is the arguments of :class:`Event` once decoded."""
    row = _opened(row)
    return {
        "name": row.name,
        "data": row.data,
        "id": str(row.id),
        "user": row.user,
        "ts": encoding.to_json(row.ts),
        "v": row.v or None,
    }


def document(row: EventRow) -> dict[str, Any]:
    """Return the stored event as expressions and match paths see it: plain JSON. Raises CodecError, EncodingError."""
    row = _opened(row)
    return {
        "id": str(row.id),
        "name": row.name,
        "data": encoding.plain(row.data),
        "user": encoding.plain(row.user),
        "ts": row.ts.isoformat(),
        "v": row.v or None,
    }
