"""Stored events as values; how they are sent and stored is tested in tests/engine/events/test_sending.py."""

from __future__ import annotations

import dataclasses
import datetime
from typing import Any
from uuid import UUID

import pytest

import django_durable as durable
from django_durable.core import clock
from django_durable.core.ids import uuid7
from django_durable.core.values import encoding
from django_durable.engine.store import stored_events
from django_durable.engine.store.rows import Claim, EventRow
from django_durable.models import Event, Run
from tests.engine.conftest import Engine

from .conftest import claim_of, make_run


def row(**values: Any) -> EventRow:
    """Return an event as it is stored."""
    now = clock.now()
    given = {"id": uuid7(), "name": "shop/paid", "data": {"items": [1]}, "user": None, "v": "", "ingested_at": now}
    return EventRow(**{**given, "ts": now, "received_at": now, **values})


def test_a_hash_keeps_its_parts_apart() -> None:
    assert stored_events.digest("a", "bc") != stored_events.digest("ab", "c")


def test_a_hash_with_a_secret_is_not_the_one_without() -> None:
    assert stored_events.digest("a", secret=b"s") != stored_events.digest("a")


def test_each_handler_gets_a_copy_of_the_data() -> None:
    stored = row()
    stored_events.event_of(stored).data["items"].append(2)
    assert stored_events.event_of(stored).data == {"items": [1]}


def test_a_version_that_was_not_given_is_none() -> None:
    assert (stored_events.event_of(row()).v, stored_events.event_of(row(v="2")).v) == (None, "2")


def test_conditions_see_plain_json() -> None:
    seen = stored_events.document(row(data={"at": {"$": "datetime", "v": "2026-01-01T00:00:00+00:00"}}))
    assert seen["data"] == {"at": "2026-01-01T00:00:00+00:00"}


def test_an_event_that_is_carried_along_is_the_same_event_once_decoded() -> None:
    stored = row(v="3", user={"id": 7})

    carried = encoding.from_json(stored_events.portable(stored))

    event = stored_events.event_of(stored)
    assert carried == {name: getattr(event, name) for name in ("name", "data", "id", "user", "ts", "v")}


@pytest.mark.django_db
def test_a_run_is_triggered_by_its_event() -> None:
    stored = row()
    assert stored_events.trigger_of(held(event=stored)) == stored


@pytest.mark.django_db
def test_a_runs_own_input_stands_in_place_of_its_events_data() -> None:
    stored = row()
    trigger = stored_events.trigger_of(held(event=stored, input='{"items":[9]}'))
    assert trigger == dataclasses.replace(stored, data={"items": [9]})


@pytest.mark.django_db
def test_an_invoked_run_is_triggered_by_an_event_with_its_own_id() -> None:
    claim = held(input='{"n":1}')
    trigger = stored_events.trigger_of(claim)
    assert (trigger.id, trigger.name, trigger.data) == (claim.run_id, stored_events.INVOKED, {"n": 1})


def held(**values: Any) -> Claim:
    """Return the claim of a run, with these values."""
    return claim_of(make_run("live"), **values)


def test_the_event_of_an_end_is_read_with_the_event_that_started_the_run(engine: Engine) -> None:
    @engine.function("fails", retries=0)
    def fails(event: durable.Event, step: durable.Step) -> None:
        raise ValueError("no")

    @engine.function("watches", trigger=stored_events.FAILED)
    def watches(event: durable.Event, step: durable.Step) -> None:
        pass

    durable.send_event("test/start", {"n": 1})
    run = Run.objects.get(function=fails.id)
    stored = Event.objects.get(name=stored_events.FAILED)

    event = stored_events.event_of(stored_events.event_row(stored))

    assert isinstance(event, durable.FailureEvent)
    assert (event.run_id, event.original.data, event.error.message) == (str(run.id), {"n": 1}, "no")


@pytest.mark.django_db
def test_events_come_later_than_a_place_by_their_moment_then_by_their_id() -> None:
    now = clock.now()
    ids = [UUID(int=number) for number in range(1, 5)]
    moments = [now, now, now, now + datetime.timedelta(microseconds=1)]
    for id, moment in zip(ids, moments, strict=True):
        Event.objects.create(id=id, name="a/b", data={}, ts=now, received_at=now, ingest_at=now, ingested_at=moment)

    later = Event.objects.filter(stored_events.later_than((now, ids[1])))

    assert list(later.order_by("id").values_list("id", flat=True)) == ids[2:]
    assert not Run.objects.exists()
