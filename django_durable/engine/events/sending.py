"""Sending events: stored in the sender's transaction, announced when it commits."""

from __future__ import annotations

import datetime
import json
import logging
import reprlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import UUID

from django.db import connections, transaction

from ...codecs import match_secrets
from ...conf import get_settings
from ...core import clock, fault_points
from ...core.events.events import Event, check_sendable, is_storable
from ...core.ids import uuid7
from ...core.values import encoding
from ...core.values.coercion import fields_of
from ...drivers.base import BaseDriver, get_driver
from ...exceptions import InvalidEvent, OutsideTransaction
from ...managers import NOW
from ...middleware import get_hooks
from ...models import Event as StoredEvent
from ...models import EventId
from ..store.stored_events import digest
from ..store.stores import get_store
from ..store.transactions import atomic, one_statement

logger = logging.getLogger("django_durable")

BATCH = 1_000  #: events in one statement


def send(
    events: Iterable[Event], *, source: str = StoredEvent.Source.API, outside_transaction: bool = False
) -> list[str]:
    """Store *events* in the caller's transaction; return their ids, in order.

    An event whose name and id were sent before is not stored again: the first one's id is returned. Functions start
    and waits resolve once the transaction has committed; a rollback takes the events with it.

    Raises InvalidEvent or EncodingError before anything is stored, and OutsideTransaction where a transaction of
    another database is open: that could roll back, or commit, without the events.
    """
    alias = get_settings().database
    if not outside_transaction:
        refuse_other_transaction(alias)
    hooks = get_hooks()
    events = hooks.before_send([_checked(event) for event in events])
    sent = [_prepare(_checked(event), source) for event in events]
    if not sent:
        return []
    driver = get_driver()
    # One event is one statement, which is a transaction of its own.
    with atomic(savepoint=False) if len(sent) > 1 or sent[0].key else one_statement():
        fault_points.point("start.before_commit")
        first = _store(sent, alias)
        queue = driver.default_queue()
        transaction.on_commit(lambda: _tell(driver, queue), using=alias, robust=True)
    ids = [str(first[each.key.digest] if each.key else each.row.id) for each in sent]
    hooks.after_send(events, ids)
    return ids


def _tell(driver: BaseDriver, queue: str) -> None:
    fault_points.point("start.after_commit")
    driver.wake(queue, ingest=True)


@dataclass(frozen=True, slots=True)
class _Sent:
    row: StoredEvent
    key: EventId | None


def _checked(event: object) -> Event:
    if not isinstance(event, Event):
        raise InvalidEvent(f'{reprlib.repr(event)} is not an event. Write Event("app/name", {{…}})')
    return event


def _prepare(event: Event, source: str) -> _Sent:
    now, limit = clock.now(), get_settings().max_event
    ts = _moment(event, now)
    row = StoredEvent(
        id=uuid7(),
        name=check_sendable(event.name),
        data=encoding.event_data(fields_of(event.data), limit=limit),
        user=None if event.user is None else encoding.event_data(event.user, root="user", limit=limit),
        ts=ts,
        v=_text(event, "v"),
        source=source,
        received_at=NOW,
        ingest_at=ts if ts > now else NOW,
    )
    return _Sent(row, _idempotency_key(event, row))


def _moment(event: Event, now: datetime.datetime) -> datetime.datetime:
    if event.ts is None:
        return now
    if not isinstance(event.ts, datetime.datetime) or event.ts.tzinfo is None:
        raise InvalidEvent(f"{event.name}: ts is an aware datetime, not {reprlib.repr(event.ts)}")
    try:
        return event.ts.astimezone(datetime.UTC)
    except OverflowError:
        raise InvalidEvent(f"{event.name}: ts lies outside the years 1 to 9999: {event.ts!r}") from None


def _text(event: Event, name: str) -> str:
    value = getattr(event, name)
    if value is None:
        return ""
    if not is_storable(value, 100):
        raise InvalidEvent(f"{event.name}: {name} is text of 1 to 100 characters, not {reprlib.repr(value)}")
    return value


def _idempotency_key(event: Event, row: StoredEvent) -> EventId | None:
    if event.id is None:
        return None
    if not is_storable(event.id, 1_000):
        raise InvalidEvent(f"{event.name}: id is text of 1 to 1,000 characters, not {reprlib.repr(event.id)}")
    payload = _payload_digest(row, match_secrets()[0])
    return EventId(digest=digest(event.name, event.id), name=event.name, key=event.id, payload=payload, event=row)


def _payload_digest(row: StoredEvent, secret: bytes) -> bytes:
    return digest(json.dumps([row.data, row.user], sort_keys=True), secret=secret)


def refuse_other_transaction(alias: str) -> None:
    """Raise OutsideTransaction where rows stored now could outlive an open transaction of another database."""
    for other in connections.all(initialized_only=True):
        # A test case's own transaction is open on every database and says nothing about the caller.
        opened = [block for block in other.atomic_blocks if not getattr(block, "_from_testcase", False)]
        if other.alias != alias and opened and not connections[alias].in_atomic_block:
            raise OutsideTransaction(alias, other.alias)


def _store(sent: Sequence[_Sent], alias: str) -> dict[bytes, UUID]:
    """Insert the new events; return the id of the first event of every key."""
    keys = [each.key for each in sent if each.key]
    first = _stored_keys(keys, alias) if keys else {}
    new: dict[bytes, EventId] = {}
    for key in keys:
        if key.digest not in first:
            new.setdefault(key.digest, key)
    fresh = [each.row for each in sent if each.key is None or new.get(each.key.digest) is each.key]
    if len(fresh) == 1:
        get_store().insert(fresh[0])
    else:
        StoredEvent.objects.using(alias).bulk_create(fresh, batch_size=BATCH)
    if new:
        first |= _claim_keys(new, alias)
    if len(new) < len(keys):
        _warn_of_other_payloads(keys, new, alias)
    return first


def _stored_keys(keys: Iterable[EventId], alias: str) -> dict[bytes, UUID]:
    digests = sorted({bytes(key.digest) for key in keys})
    stored = EventId.objects.using(alias).filter(digest__in=digests) if digests else EventId.objects.none()
    return {bytes(digest): event_id for digest, event_id in stored.values_list("digest", "event_id")}


def _claim_keys(new: dict[bytes, EventId], alias: str) -> dict[bytes, UUID]:
    # Sorted, so that two senders of one set of keys wait for each other in one order.
    EventId.objects.using(alias).bulk_create([new[each] for each in sorted(new)], ignore_conflicts=True)
    first = _stored_keys(new.values(), alias)
    # Another sender's key was committed between the look and the insert: its event counts.
    lost = [key.event_id for each, key in new.items() if first.get(each, key.event_id) != key.event_id]
    if lost:
        StoredEvent.objects.using(alias).filter(id__in=lost).delete()
    return first


def _warn_of_other_payloads(keys: Iterable[EventId], new: dict[bytes, EventId], alias: str) -> None:
    repeated = {key.digest: key for key in keys if new.get(key.digest) is not key}
    for first in EventId.objects.using(alias).filter(digest__in=list(repeated)):
        row = repeated[first.digest].event
        if first.payload not in {_payload_digest(row, secret) for secret in match_secrets()}:
            logger.warning("Event %s came again with id %r and another payload; the first stays", first.name, first.key)


def store_own(name: str, data: dict[str, Any], *, to_ingest: bool = False, **values: Any) -> StoredEvent:
    """Store an event of the engine itself; without *to_ingest*, its effects are part of this commit."""
    event = StoredEvent(
        id=uuid7(),
        name=name,
        data=_searchable(data),
        ts=clock.now(),
        received_at=NOW,
        ingest_at=NOW,
        **{"source": StoredEvent.Source.INTERNAL, "ingested_at": None if to_ingest else NOW, **values},
    )
    get_store().insert(event)
    if to_ingest:
        driver = get_driver()
        wake = partial(driver.wake, driver.default_queue(), ingest=True)
        transaction.on_commit(wake, using=get_settings().database, robust=True)
    return event


def _searchable(data: Any) -> Any:
    """Return the JSON structure with U+FFFD for NUL and lone surrogates, which a search index cannot hold."""
    if isinstance(data, str):
        return data.replace("\0", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(data, dict):
        return {_searchable(key): _searchable(value) for key, value in data.items()}
    return [_searchable(item) for item in data] if isinstance(data, list) else data
