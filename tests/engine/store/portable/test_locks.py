"""Locks until a transaction ends, in each store; what they protect stands in tests/behaviours/test_races.py."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from django.db import connection

from django_durable.engine.store.contract import Store
from django_durable.engine.store.transactions import atomic
from tests.behaviours.racing import PATIENCE, Track, somebody_waits_for_a_lock, wait_until


@pytest.fixture
def track(transactional_db: None, on_postgresql: None) -> Iterator[Track]:
    """Give two threads to race on."""
    track = Track(2)
    try:
        yield track
    finally:
        track.close()


def somebody_waits() -> bool:
    """Tell whether a transaction waits for a lock of a name."""
    return any(somebody_waits_for_a_lock(kind) for kind in ("advisory", "transactionid", "tuple"))


def test_a_name_that_is_locked_keeps_others_waiting_until_the_transaction_ends(store: Store, track: Track) -> None:
    order, is_locked = [], threading.Event()

    def first() -> None:
        with atomic():
            store.lock_names(["a/c", "a/b"], shared=False)
            is_locked.set()
            wait_until(somebody_waits)
            order.append("first")

    def second() -> None:
        assert is_locked.wait(PATIENCE)
        with atomic():
            store.lock_names(["a/b", "a/d"], shared=False)
            order.append("second")

    track.race(first, second)

    assert order == ["first", "second"]


def test_other_names_keep_nobody_waiting(store: Store, track: Track) -> None:
    both_hold = threading.Barrier(2, timeout=PATIENCE)

    def lock(name: str) -> None:
        with atomic():
            store.lock_names([name], shared=False)
            both_hold.wait()

    track.race(lambda: lock("a/b"), lambda: lock("a/c"))


def test_only_one_ingests_at_a_time(store: Store, track: Track) -> None:
    ingesting, counts = set[int](), []

    def ingest() -> None:
        with atomic():
            if store.lock_ingest():
                ingesting.add(threading.get_ident())
                connection.cursor().execute("SELECT 1")
                counts.append(len(ingesting))
                ingesting.discard(threading.get_ident())

    for _ in range(20):
        track.race(ingest, ingest)

    assert counts
    assert set(counts) == {1}


def test_whoever_is_alone_gets_what_it_asks_for(store: Store) -> None:
    with atomic():
        store.lock_names(["a/b", "a/b", "a/*"], shared=True)
        assert store.lock_ingest()
