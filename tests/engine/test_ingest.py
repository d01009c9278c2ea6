"""Ingest: what events start, in which order, and that none is left."""

from __future__ import annotations

import datetime
import tracemalloc
from collections.abc import Iterator

import pytest
from django.db import connection, reset_queries, transaction
from django.test import override_settings
from django.test.utils import CaptureQueriesContext

import django_durable as durable
from django_durable.core import clock, registry
from django_durable.core.ids import uuid7
from django_durable.engine import functions, ingest, sizes
from django_durable.engine.ingest import ingest_events
from django_durable.engine.rows import Ready
from django_durable.models import Event, MatchFailure, Run
from tests.engine.conftest import Engine, failing

FLOOD = 20_000


@pytest.fixture
def no_worker(engine: Engine) -> Iterator[Engine]:
    """Give an engine where every hint is lost."""
    with override_settings(DURABLE={"DRIVER": "tests.engine.conftest.DeafDriver"}):
        yield engine


def ignore(event: durable.Event, step: durable.Step) -> None:
    """Do nothing."""


def stored(name: str, at: datetime.datetime, **values: object) -> Event:
    """Store an event received at that moment, whose hint was lost."""
    return Event.objects.create(id=uuid7(), name=name, ts=at, received_at=at, **{"ingest_at": at, **values})


def test_an_event_starts_every_function_that_listens_to_its_name(engine: Engine) -> None:
    engine.function("exact", trigger="shop/order.paid")(ignore)
    engine.function("wildcard", trigger="shop/order.*")(ignore)
    engine.function("wider", trigger="shop/*")(ignore)
    engine.function("several", trigger=["shop/order.paid", "shop/*"])(ignore)
    engine.function("other", trigger="shop/order.lost")(ignore)

    durable.send_event("shop/order.paid")

    started = sorted(Run.objects.values_list("function__slug", flat=True))
    assert started == ["exact", "several", "wider", "wildcard"]


def test_a_condition_of_a_trigger_decides(engine: Engine) -> None:
    engine.function(trigger=durable.On("test/start", if_="event.data.n > 1"))(ignore)

    durable.send_events(durable.Event("test/start", {"n": number}) for number in range(4))

    assert sorted(run.event.data["n"] for run in Run.objects.select_related("event")) == [2, 3]


def test_a_condition_of_a_trigger_that_errors_starts_nothing_and_is_told(engine: Engine) -> None:
    fn = engine.function(trigger=durable.On("test/start", if_="event.data.n > 1"))(ignore)

    durable.send_event("test/start", {})

    assert not Run.objects.exists()
    failure = MatchFailure.objects.get()
    assert (failure.function_id, failure.run_id, failure.expression) == (fn.id, None, "event.data.n > 1")


def test_an_event_is_ingested_once(engine: Engine) -> None:
    engine.function()(ignore)
    engine.start()

    Event.objects.update(ingested_at=None)
    engine.settle()

    assert Run.objects.count() == 1


def test_events_are_ingested_in_the_order_of_receipt(no_worker: Engine) -> None:
    now = clock.now()
    events = [stored("test/start", now - datetime.timedelta(seconds=seconds)) for seconds in (1, 5, 3)]

    list(ingest_events())

    ingested = list(Event.objects.order_by("ingested_at").values_list("id", flat=True))
    assert ingested == [events[1].id, events[2].id, events[0].id]


def test_more_events_than_a_batch_are_ingested_in_order(no_worker: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "BATCH", 3)
    no_worker.function()(ignore)
    ids = durable.send_events(durable.Event("test/start", {"n": number}) for number in range(8))

    batches = list(ingest_events())

    assert [len(batch) for batch in batches] == [3, 3, 2]
    assert [str(id) for id in Event.objects.order_by("ingested_at").values_list("id", flat=True)] == ids
    assert Run.objects.count() == 8


def test_runs_of_a_batch_are_taken_in_the_order_of_their_events(engine: Engine) -> None:
    taken = []

    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        taken.append(event.data["n"])

    durable.send_events(durable.Event("test/start", {"n": number}) for number in range(20))

    assert taken == list(range(20))


def test_a_future_event_waits_until_its_moment(engine: Engine) -> None:
    engine.function()(ignore)
    durable.send_event("test/start", ts=clock.now() + datetime.timedelta(hours=1))
    assert not Run.objects.exists()

    clock.move(datetime.timedelta(minutes=59))
    engine.settle()
    assert not Run.objects.exists()

    assert engine.advance("1m").status == "completed"


def test_an_event_of_a_transaction_that_rolled_back_starts_nothing(engine: Engine) -> None:
    engine.function()(ignore)

    with transaction.atomic():
        durable.send_event("test/start")
        transaction.set_rollback(True)

    engine.settle()
    assert not Event.objects.exists()


def test_an_event_that_nobody_listens_to_is_ingested_all_the_same(engine: Engine) -> None:
    durable.send_event("test/nobody")

    assert Event.objects.get().ingested_at is not None


def test_a_function_that_left_the_code_is_not_started(engine: Engine) -> None:
    engine.function()(ignore)
    engine.start()
    registry._functions.clear()
    functions.sync()

    durable.send_event("test/start")

    assert Run.objects.count() == 1


def test_a_batch_that_fails_is_rolled_back_and_ingested_by_the_next_try(engine: Engine) -> None:
    engine.function(trigger="test/*")(ignore)

    with connection.execute_wrapper(failing("django_durable_wait")):
        durable.send_event("test/start")
    assert Event.objects.get().ingested_at is None
    assert not Run.objects.exists()

    engine.settle()

    assert engine.run().status == "completed"


def test_a_deeply_nested_event_stops_nobody(engine: Engine) -> None:
    engine.function(trigger=durable.On("test/start", if_="event.data.a.a != 1"))(ignore)
    deep: dict[str, object] = {}
    for _ in range(25 if connection.vendor == "mysql" else 190):
        deep = {"a": deep}

    durable.send_event("test/start", deep)

    assert not Event.objects.filter(ingested_at=None).exists()


@pytest.mark.slow
@pytest.mark.timeout(1_800)
def test_a_flood_of_events_is_taken_in_batches_that_grow_in_nothing(no_worker: Engine) -> None:
    no_worker.function()(ignore)
    for start in range(0, FLOOD, 5_000):
        durable.send_events(durable.Event("test/start", {"n": start + number}) for number in range(5_000))
    batches = ingest_events()
    next(batches)  # What is made once is no part of a batch.

    few = [cost_of_a_batch(batches) for _ in range(3)]
    middle = FLOOD // ingest.BATCH - 1 - 2 * len(few)
    assert sum(1 for _ in zip(range(middle), batches, strict=False)) == middle
    many = [cost_of_a_batch(batches) for _ in range(3)]

    assert next(batches, None) is None
    assert Run.objects.count() == FLOOD
    assert {statements for statements, _ in few} == {statements for statements, _ in many}
    # Were the events that are left, or were taken, read with each batch, this would be many times as much.
    assert max(memory for _, memory in many) < 1.2 * max(memory for _, memory in few)


def cost_of_a_batch(batches: Iterator[list[Ready]]) -> tuple[int, int]:
    """Ingest a batch; return how many statements it took, and how much memory the process had at most."""
    tracemalloc.start()
    try:
        with CaptureQueriesContext(connection) as captured:
            assert len(next(batches)) == ingest.BATCH
        return len(captured), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        reset_queries()


def test_large_events_are_ingested_in_batches_that_fit_into_memory(
    no_worker: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sizes, "MOST", 10_000)
    ids = durable.send_events(durable.Event("test/start", {"text": "x" * 2_400}) for _ in range(20))
    ids += durable.send_events([durable.Event("test/start", user={"text": "x" * 2_400})] * 6)
    ids += durable.send_events([durable.Event("test/start", {"text": "x" * 20_000})] * 9)

    batches = [len(batch) for batch in ingested_by_batch()]

    assert batches == [4] * 6 + [2] + [1] * 2 + [7]
    assert [str(id) for id in Event.objects.order_by("ingested_at").values_list("id", flat=True)] == ids


def ingested_by_batch() -> Iterator[list[Event]]:
    """Ingest; yield the events of each commit."""
    known: set[object] = set()
    for _ in ingest_events():
        events = list(Event.objects.exclude(ingested_at=None).exclude(id__in=known))
        known |= {event.id for event in events}
        yield events


def test_events_that_a_thousand_wildcards_could_match_are_ingested_all_the_same(no_worker: Engine) -> None:
    names = ["/".join([f"{number:03}", *"abcdefghij" * 12]) for number in range(200)]
    durable.send_events(durable.Event(name) for name in names)

    batches = [len(batch) for batch in ingested_by_batch()]

    assert sum(batches) == 200
    assert max(batches) <= ingest.BATCH_NAMES // 120


@pytest.mark.parametrize("data", [{"$": "dict", "v": 5}, {"a": {"$": ["codec"]}}, {"$": "timedelta", "v": "x"}])
def test_an_event_that_nobody_could_have_sent_is_put_off_and_holds_up_no_other(
    engine: Engine, data: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    engine.function()(ignore)
    broken = stored("test/start", clock.now(), data=data)

    run = engine.start()

    assert run.status == "completed"
    assert Event.objects.get(ingested_at=None) == broken
    assert f"Event test/start {broken.id} cannot be decoded" in caplog.text
