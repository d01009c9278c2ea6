"""Ingest: what events start, in which order, and that none is left."""

from __future__ import annotations

import dataclasses
import datetime
import tracemalloc
from collections.abc import Iterator

import pytest
from django.db import connection, reset_queries, transaction
from django.test import override_settings
from django.test.utils import CaptureQueriesContext

import django_durable as durable
from django_durable.core import clock
from django_durable.core.functions import registry
from django_durable.core.ids import uuid7
from django_durable.engine.runs import catalog
from django_durable.engine.store import page_sizes, stored_events
from django_durable.engine.store.rows import NextClaim
from django_durable.engine.store.stores import get_store
from django_durable.engine.workers import ingest
from django_durable.engine.workers.ingest import Ingested, ingest_events
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

    assert [len(batch.ready) for batch in batches] == [3, 3, 2]
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
    catalog.sync()

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


def next_claim(queue: str | None = None) -> NextClaim:
    """Return a worker that goes on with what the last events made ready."""
    return NextClaim("me", datetime.timedelta(seconds=15), queue)


def ingested_for(worker: NextClaim) -> list[Ingested]:
    """Ingest for a worker that goes on."""
    return list(ingest_events(lambda: worker))


def test_a_run_that_the_last_events_start_is_claimed_in_their_commit(no_worker: Engine) -> None:
    no_worker.function()(ignore)
    durable.send_events(durable.Event("test/start", {"n": number}) for number in range(3))

    [ingested] = ingested_for(next_claim())

    first, *others = Run.objects.order_by("id")
    assert (first.status, first.fence, first.owner, first.ready_at) == ("running", 1, "me", None)
    assert {(run.status, run.fence, run.owner) for run in others} == {("queued", 0, "")}
    assert ingested.lease is not None
    assert ingested.lease.claim == dataclasses.replace(
        get_store().claim_ready(None, owner="me", lease=datetime.timedelta(seconds=15)),  # type: ignore[type-var]
        run_id=first.id,
        created_at=first.created_at,
        event=stored_events.event_row(first.event),  # type: ignore[arg-type]
        now=ingested.lease.claim.now,
    )
    assert abs(ingested.lease.claim.now - clock.now()) < datetime.timedelta(seconds=1)
    assert not Event.objects.filter(ingested_at=None).exists()


def test_a_run_that_the_last_events_wake_is_claimed_in_their_commit(engine: Engine) -> None:
    engine.function()(lambda event, step: step.wait_for_event("reply", "test/reply", timeout="1d"))
    run = engine.start()
    with override_settings(DURABLE={"DRIVER": "tests.engine.conftest.DeafDriver"}):
        durable.send_event("test/reply")

        [ingested] = ingested_for(next_claim())

    assert ingested.lease is not None
    assert (ingested.lease.claim.run_id, ingested.lease.claim.fence) == (run.id, run.fence + 1)
    assert engine.run().owner == "me"


def test_a_run_of_another_queue_is_left_to_its_workers(no_worker: Engine) -> None:
    no_worker.function(queue="other")(ignore)
    durable.send_event("test/start")

    [ingested] = ingested_for(next_claim("default"))

    assert (ingested.lease, [each.queue for each in ingested.ready]) == (None, ["other"])
    assert Run.objects.get().status == "queued"


def test_an_event_that_started_its_run_before_gives_no_claim(no_worker: Engine) -> None:
    no_worker.function()(ignore)
    durable.send_event("test/start")
    [before] = ingested_for(next_claim())
    Event.objects.update(ingested_at=None)

    [again] = ingested_for(next_claim())

    assert before.lease is not None
    assert again.lease is None
    assert (Run.objects.get().id, Run.objects.get().fence) == (before.lease.claim.run_id, 1)


def test_of_many_events_no_run_is_claimed_before_all_are_ingested(
    no_worker: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest, "BATCH", 3)
    no_worker.function()(ignore)
    durable.send_events(durable.Event("test/start", {"n": number}) for number in range(8))

    assert [batch.lease is not None for batch in ingested_for(next_claim())] == [False, False, True]


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


def cost_of_a_batch(batches: Iterator[Ingested]) -> tuple[int, int]:
    """Ingest a batch; return how many statements it took, and how much memory the process had at most."""
    tracemalloc.start()
    try:
        with CaptureQueriesContext(connection) as captured:
            assert len(next(batches).ready) == ingest.BATCH
        return len(captured), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        reset_queries()


def test_large_events_are_ingested_in_batches_that_fit_into_memory(
    no_worker: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_sizes, "MOST", 10_000)
    ids = durable.send_events(durable.Event("test/start", {"text": "x" * 2_400}) for _ in range(20))
    ids += durable.send_events([durable.Event("test/start", user={"text": "x" * 2_400})] * 6)
    ids += durable.send_events([durable.Event("test/start", {"text": "x" * 20_000})] * 9)

    batches = [len(batch) for batch in ingested_by_batch()]

    # Those that are larger than all that fits come one by one, but for a few that are left at the end.
    assert (batches[:7], sum(batches[7:])) == ([4] * 6 + [2], 9)
    assert set(batches[7:]) <= {1, 7}
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
