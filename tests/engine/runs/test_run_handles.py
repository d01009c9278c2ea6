"""Runs that code starts, and their handles, on the engine."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.db import transaction
from django.test import override_settings

import django_durable as durable
from django_durable.core.functions.functions import DurableFunction
from django_durable.engine.workers.work import work
from django_durable.models import Event, Run
from tests.behaviours.racing import Track
from tests.engine.conftest import Engine, RecordingDriver


@dataclass
class Receipt:
    """What an order ends with."""

    order_id: int
    price: Decimal


@pytest.fixture
def order(engine: Engine) -> DurableFunction[Receipt]:
    """Register a function that nothing triggers and that returns a receipt."""

    @durable.function("order", retries=0)
    def order(event: durable.Event, step: durable.Step) -> Receipt:
        price = step.run("price", Decimal, "9.90")
        return Receipt(event.data["order_id"], price)

    return order


@pytest.fixture
def nap(engine: Engine) -> DurableFunction[str]:
    """Register a function that sleeps for a day."""

    @durable.function("nap")
    def nap(event: durable.Event, step: durable.Step) -> str:
        step.sleep("nap", "1d")
        return "awake"

    return nap


# Starting


def test_a_run_is_started_and_its_result_comes_back_with_its_type(order: DurableFunction[Receipt]) -> None:
    run = order.start({"order_id": 7})

    assert run.result(timeout="5s") == Receipt(7, Decimal("9.90"))
    assert (run.id, run.status) == (str(Run.objects.get().id), "completed")


def test_a_started_run_has_an_event_of_its_own_and_stores_none(engine: Engine) -> None:
    seen: list[durable.Event] = []
    fn = durable.function("fn")(lambda event, step: seen.append(event))

    run = fn.start()

    assert [(event.name, event.id, event.data) for event in seen] == [("durable/function.invoked", run.id, {})]
    assert not Event.objects.exists()


def test_a_start_rolls_back_with_its_transaction(order: DurableFunction[Receipt]) -> None:
    with transaction.atomic():
        run = order.start({"order_id": 7})
        assert run.status == "queued"
        transaction.set_rollback(True)

    with pytest.raises(durable.RunNotFound):
        run.refresh()


def test_a_start_is_announced_when_it_is_committed(order: DurableFunction[Receipt], recorder: RecordingDriver) -> None:
    with transaction.atomic():
        run = order.start({"order_id": 7})
        assert recorder.taken() == []

    assert [[str(run_id) for run_id in run_ids] for _, run_ids, _ in recorder.taken()] == [[run.id]]


def test_an_id_starts_one_run_of_each_function(engine: Engine, nap: DurableFunction[str]) -> None:
    other = durable.function("other")(lambda event, step: None)

    first, second, third = nap.start({"n": 1}, id="x"), nap.start({"n": 2}, id="x"), nap.start(id="y")

    assert (first.id == second.id, first.id == third.id, first.id == other.start(id="x").id) == (True, False, False)
    assert Run.objects.filter(function="project/nap").count() == 2


def test_an_id_of_an_ended_run_returns_its_result(order: DurableFunction[Receipt]) -> None:
    order.start({"order_id": 7}, id="x")

    assert order.start({"order_id": 8}, id="x").result().order_id == 7


@pytest.mark.parametrize("id", ["", 7, "a\0b", "x" * 1001])
def test_an_id_that_is_no_text_is_refused(order: DurableFunction[Receipt], id: Any) -> None:
    with pytest.raises(durable.InvalidEvent, match="project/order: the id of a start is text"):
        order.start(id=id)
    assert not Run.objects.exists()


def test_data_that_cannot_be_stored_is_refused(order: DurableFunction[Receipt]) -> None:
    with pytest.raises(durable.EncodingError, match=r'data\["f"\]'):
        order.start({"f": open})
    assert not Run.objects.exists()


def test_a_start_beside_a_transaction_of_another_database_is_refused_unless_asked_for(
    nap: DurableFunction[str], other_database: str
) -> None:
    with transaction.atomic(using=other_database):
        with pytest.raises(durable.OutsideTransaction):
            nap.start()
        nap.start(outside_transaction=True)

    assert Run.objects.count() == 1


@pytest.mark.needs("postgresql")
def test_one_run_is_started_by_two_at_once(nap: DurableFunction[str]) -> None:
    with override_settings(DURABLE={"DRIVER": "tests.engine.conftest.DeafDriver"}):
        track = Track()
        for number in range(50):
            start = partial(nap.start, id=f"order-{number}")
            assert len({run.id for run in track.race(start, start, start)}) == 1
        track.close()

    assert Run.objects.count() == 50


# Handles


def test_a_handle_is_found_by_its_id(order: DurableFunction[Receipt]) -> None:
    started = order.start({"order_id": 7})

    assert durable.get_run(started.id).result() == Receipt(7, Decimal("9.90"))


def test_a_result_that_does_not_come_in_time_is_no_end(nap: DurableFunction[str], engine: Engine) -> None:
    run = nap.start()

    with pytest.raises(durable.ResultTimeout, match="it is waiting"):
        run.result(timeout=0)

    engine.advance("1d")
    assert run.result(timeout=0) == "awake"


def test_a_result_is_not_waited_for_in_the_transaction_that_starts_its_run(order: DurableFunction[Receipt]) -> None:
    with transaction.atomic(), pytest.raises(durable.ResultInTransaction):
        order.start({"order_id": 7}).result(timeout="1m")


def test_a_failed_run_raises_the_error_of_its_handler(order: DurableFunction[Receipt]) -> None:
    run = order.start({})

    with pytest.raises(durable.RunFailed) as failed:
        run.result()

    assert (failed.value.type, failed.value.message) == ("builtins.KeyError", "'order_id'")
    assert "in order" in failed.value.traceback


def test_a_handle_cancels_its_run(nap: DurableFunction[str]) -> None:
    run = nap.start()

    assert run.cancel("not wanted") is True
    assert run.cancel() is False
    with pytest.raises(durable.RunCancelled, match="not wanted"):
        run.result()


def test_a_handle_replays_its_run(order: DurableFunction[Receipt]) -> None:
    run = order.start({"order_id": 7})

    new = run.replay(data={"order_id": 8})

    assert (new.result().order_id, Run.objects.get(id=new.id).replay_of_id == Run.objects.get(id=run.id).id) == (
        8,
        True,
    )


def test_async_code_starts_waits_cancels_and_replays(
    order: DurableFunction[Receipt], nap: DurableFunction[str]
) -> None:
    async def use() -> list[Any]:
        run = await order.astart({"order_id": 7})
        again = await run.areplay(data={"order_id": 8})
        sleeper = await nap.astart()
        status = sleeper.status
        cancelled = await sleeper.acancel()
        return [
            (await run.aresult("5s")).order_id,
            (await again.aresult()).order_id,
            status,
            cancelled,
            (await sleeper.arefresh()).status,
        ]

    assert async_to_sync(use)() == [7, 8, "waiting", True, "cancelled"]


def test_what_a_handle_waits_for_may_be_done_by_another_worker(
    order: DurableFunction[Receipt], recorder: RecordingDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = order.start({"order_id": 7})
    monkeypatch.setattr("django_durable.core.functions.run_handles.time.sleep", lambda seconds: work(None))

    assert run.result("1m").order_id == 7
