"""Look-ups: waits and events are found under their keys, page by page, on each implementation."""

from __future__ import annotations

import datetime
from typing import Any
from uuid import UUID

import pytest

from django_durable.core import clock
from django_durable.core.ids import uuid7
from django_durable.engine.store import page_sizes
from django_durable.engine.store.contract import Store
from django_durable.models import Event, EventKey, MatchPath, Run, Wait

from ..conftest import key, make_run

EARLIEST = (datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC), UUID(int=0))
pytestmark = pytest.mark.django_db


def make_wait(run: Run, match_key: bytes, **values: Any) -> Wait:
    """Store an open wait of the run under that key."""
    row = {"kind": "event", "name": "shop/paid", "created_at": clock.now(), **values}
    return Wait.objects.create(run=run, key=key("open"), match_key=match_key, **row)


def store_event(number: int, name: str = "shop/paid") -> Event:
    """Store an ingested event; a higher number came later."""
    moment = clock.now() + datetime.timedelta(seconds=number)
    values = {"ts": moment, "received_at": moment, "ingest_at": moment, "ingested_at": moment}
    return Event.objects.create(id=uuid7(), name=name, data={"number": number}, user={"id": 7}, **values)


def make_path(name: str = "shop/paid") -> MatchPath:
    """Store a match path of that name."""
    return MatchPath.objects.get_or_create(name=name, path="data.id")[0]


def give_key(event: Event, match_key: bytes) -> None:
    """Store the key that the event has for its name's path."""
    EventKey.objects.create(path=make_path(event.name), key=match_key, ingested_at=event.ingested_at, event_id=event.id)


def test_a_wait_is_found_with_all_that_makes_its_runs_trigger(store: Store) -> None:
    event = store_event(1, "shop/ordered")
    run = make_run("waiting", event=event, input='{"id": 3}')
    wait = make_wait(run, b"k" * 16, match="data.id", expression="true", since=clock.now(), expires_at=clock.now())
    ((found,), more) = store.open_waits({("shop/paid", b"k" * 16)}, after=0, limit=10)
    assert not more
    columns = ("id", "run_id", "key", "name", "match_key", "match", "expression", "since", "expires_at")
    assert [getattr(found, name) for name in columns] == [getattr(wait, name) for name in columns]
    assert (found.input, found.created_at) == ('{"id": 3}', run.created_at)
    assert found.event is not None
    assert (found.event.id, found.event.data, found.event.user) == (event.id, {"number": 1}, {"id": 7})


def test_a_run_without_a_trigger_event_has_none(store: Store) -> None:
    make_wait(make_run("waiting"), b"k" * 16)
    ((found,), more) = store.open_waits({("shop/paid", b"k" * 16)}, after=0, limit=10)
    assert (found.event, more) == (None, False)


def test_only_waits_for_events_under_the_name_and_the_key_are_found(store: Store) -> None:
    run = make_run("waiting")
    wanted = make_wait(run, b"k" * 16)
    make_wait(run, b"l" * 16)
    make_wait(run, b"k" * 16, name="shop/sent")
    make_wait(run, b"k" * 16, kind="signal")
    assert [wait.id for wait in store.open_waits({("shop/paid", b"k" * 16)}, after=0, limit=10)[0]] == [wanted.id]


def test_waits_come_page_by_page_in_the_order_of_their_ids(store: Store) -> None:
    run = make_run("waiting")
    ids = [make_wait(run, b"k" * 16).id for _ in range(3)]
    wanted = {("shop/paid", b"k" * 16)}
    first, more = store.open_waits(wanted, after=0, limit=2)
    assert ([wait.id for wait in first], more) == (ids[:2], True)
    second, more = store.open_waits(wanted, after=first[-1].id, limit=2)
    assert ([wait.id for wait in second], more) == (ids[2:], False)


def test_a_page_of_waits_holds_no_more_than_fits_into_memory_and_at_least_one(store: Store) -> None:
    large = '{"text": "' + "x" * (page_sizes.MOST // 10) + '"}'
    wanted, after, pages = {("shop/paid", b"k" * 16)}, 0, []
    for number in range(15):
        run = make_run("waiting", event=store_event(number), input=large)
        make_wait(run, b"k" * 16)

    more = True
    while more:
        page, more = store.open_waits(wanted, after=after, limit=100)
        pages.append(len(page))
        after = page[-1].id

    assert sum(pages) == 15
    assert max(pages) in (8, 9, 10)


def test_stored_events_come_page_by_page_in_the_order_of_their_ingest(store: Store) -> None:
    later, earlier, latest = store_event(2), store_event(1), store_event(3)
    for event in (later, earlier, latest):
        give_key(event, b"k" * 16)
    first, more = store.stored_under(["shop/paid"], "data.id", [b"k" * 16], after=EARLIEST, limit=2)
    assert ([row.id for row in first], more) == ([earlier.id, later.id], True)
    assert first[1].ingested_at is not None
    place = (first[1].ingested_at, first[1].id)
    second, more = store.stored_under(["shop/paid"], "data.id", [b"k" * 16], after=place, limit=2)
    assert ([(row.id, row.data) for row in second], more) == ([(latest.id, {"number": 3})], False)


def test_stored_events_are_those_of_the_names_the_path_and_any_of_the_keys(store: Store) -> None:
    by_key = {letter: store_event(number) for number, letter in enumerate("abc")}
    for letter, event in by_key.items():
        give_key(event, letter.encode() * 16)
    give_key(store_event(4, "shop/sent"), b"a" * 16)
    found, _ = store.stored_under(["shop/paid", "shop/*"], "data.id", [b"a" * 16, b"b" * 16], after=EARLIEST, limit=9)
    assert [row.id for row in found] == [by_key["a"].id, by_key["b"].id]
    assert store.stored_under(["shop/paid"], "data.other", [b"a" * 16], after=EARLIEST, limit=9) == ([], False)


def test_an_event_is_to_be_ingested_from_its_moment_on_until_it_is(store: Store) -> None:
    event = store_event(-1)
    assert not store.has_events()

    Event.objects.filter(id=event.id).update(ingested_at=None, ingest_at=clock.now() + datetime.timedelta(hours=1))
    assert not store.has_events()

    Event.objects.filter(id=event.id).update(ingest_at=clock.now() - datetime.timedelta(hours=1))
    assert store.has_events()
