"""Sending events: in whose transaction, how often, and what they start."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.db import connection, transaction
from django.test import override_settings

import django_durable as durable
from django_durable.core import clock
from django_durable.drivers.base import BaseDriver
from django_durable.engine.store import stored_events
from django_durable.models import Event, EventId, MatchFailure, Run
from tests.engine.conftest import Engine, in_seconds


def listener(slug: str, trigger: Any) -> None:
    """Register a function that returns the name of its event."""

    @durable.function(slug, trigger=trigger)
    def fn(event: durable.Event, step: durable.Step) -> str:
        return event.name


def started() -> list[tuple[str, str]]:
    """Return which functions ran, with the names of their events."""
    return [(run.function_id.removeprefix("project/"), run.output.strip('"')) for run in Run.objects.order_by("id")]


# What is stored


def test_an_event_is_stored_as_it_was_sent(engine: Engine) -> None:
    ts = datetime(2020, 1, 1, tzinfo=UTC)
    id = durable.send_event("app/a", {"n": Decimal(1)}, user={"id": 7}, ts=ts, v="2")

    event = Event.objects.get()
    assert (str(event.id), event.name, event.user, event.ts, event.v) == (id, "app/a", {"id": 7}, ts, "2")
    assert event.source == "api"
    assert abs(in_seconds(event.received_at)) < 5
    assert stored_events.event_of(stored_events.event_row(event)).data == {"n": Decimal(1)}


def test_an_event_needs_no_more_than_a_name(engine: Engine) -> None:
    durable.send_event("app/a")

    event = Event.objects.get()
    assert (event.data, event.user, event.v) == ({}, None, "")
    assert abs(in_seconds(event.ts)) < 5


def test_events_come_back_with_their_ids_in_order(engine: Engine) -> None:
    ids = durable.send_events(durable.Event(f"app/{number}") for number in range(3))

    assert [Event.objects.get(id=id).name for id in ids] == ["app/0", "app/1", "app/2"]
    assert durable.send_events([]) == []


def test_an_event_object_holds_everything(engine: Engine) -> None:
    durable.send_event(durable.Event("app/a", {"n": 1}, id="once", v="2"))

    assert Event.objects.values_list("name", "v").get() == ("app/a", "2")
    with pytest.raises(durable.InvalidEvent, match="give these to Event"):
        durable.send_event(durable.Event("app/a"), {"n": 1})


def test_5000_events_are_sent_in_statements_of_many(engine: Engine, django_assert_max_num_queries: Any) -> None:
    with (
        override_settings(DURABLE={"DRIVER": f"{__name__}.Silent"}),
        django_assert_max_num_queries(100),
    ):
        ids = durable.send_events([durable.Event("app/a", {"n": n}, id=f"n-{n}") for n in range(5_000)])

    assert len(set(ids)) == Event.objects.count() == EventId.objects.count() == 5_000
    assert [data["n"] for data in Event.objects.order_by("id").values_list("data", flat=True)] == list(range(5_000))


class Silent(BaseDriver):
    """A driver whose hints are all lost."""

    def wake(self, queue: str, run_ids: Any = (), *, ingest: bool = False) -> None:
        """Do nothing."""


def test_many_events_start_a_run_each_in_their_order(engine: Engine) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> Any:
        return event.data["n"]

    durable.send_events(durable.Event("test/start", {"n": n}) for n in range(600))

    assert [run.output for run in Run.objects.order_by("id")] == [str(n) for n in range(600)]


# The caller's transaction


def test_an_event_goes_with_the_callers_rollback(engine: Engine) -> None:
    listener("fn", "app/a")

    with transaction.atomic():
        durable.send_event("app/a", id="once")
        transaction.set_rollback(True)

    assert not Event.objects.exists()
    assert not Run.objects.exists()
    durable.send_event("app/a", id="once")
    assert started() == [("fn", "app/a")]


def test_an_event_starts_nothing_before_the_callers_commit(engine: Engine) -> None:
    listener("fn", "app/a")

    with transaction.atomic():
        durable.send_event("app/a")
        assert not Run.objects.exists()

    assert started() == [("fn", "app/a")]


def test_a_savepoint_takes_its_events_with_it(engine: Engine) -> None:
    listener("fn", "app/*")

    with transaction.atomic():
        durable.send_event("app/kept")
        with transaction.atomic():
            durable.send_event("app/lost")
            transaction.set_rollback(True)

    assert started() == [("fn", "app/kept")]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: durable.send_event("durable/mine"),
        lambda: durable.send_events([durable.Event("app/a"), durable.Event("app/b", {"f": in_seconds})]),
    ],
    ids=["name", "data"],
)
def test_an_event_that_cannot_be_sent_leaves_the_callers_transaction_usable(
    engine: Engine, wrong: Callable[[], object]
) -> None:
    with transaction.atomic():
        with pytest.raises(durable.DurableError):
            wrong()
        durable.send_event("app/c")

    assert [event.name for event in Event.objects.all()] == ["app/c"]


def test_a_lost_hint_loses_no_event(engine: Engine) -> None:
    listener("fn", "app/a")

    with override_settings(DURABLE={"DRIVER": f"{__name__}.Silent"}):
        durable.send_event("app/a")
    assert not Run.objects.exists()

    engine.settle()
    assert started() == [("fn", "app/a")]


# Idempotency


def test_the_same_name_and_id_are_one_event(engine: Engine) -> None:
    listener("fn", "app/*")

    ids = [
        durable.send_event(name, id=id) for name, id in [("app/a", "1"), ("app/a", "1"), ("app/b", "1"), ("app/a", "2")]
    ]

    assert ids[0] == ids[1]
    assert len(set(ids)) == 3
    assert started() == [("fn", "app/a"), ("fn", "app/b"), ("fn", "app/a")]


def test_an_id_counts_once_within_one_call_too(engine: Engine) -> None:
    ids = durable.send_events([durable.Event("app/a", {"n": n}, id="1") for n in range(3)])

    assert len(set(ids)) == 1
    assert Event.objects.get().data == {"n": 0}


def test_ids_are_compared_exactly(engine: Engine) -> None:
    durable.send_events([durable.Event("app/a", id=id) for id in ("a", "A", "ä", "a ", "x" * 1_000)])

    assert Event.objects.count() == 5


def test_a_repeated_id_does_not_break_the_callers_transaction(engine: Engine) -> None:
    first = durable.send_event("app/a", id="1")

    with transaction.atomic():
        assert durable.send_event("app/a", id="1") == first
        durable.send_event("app/b")

    assert Event.objects.count() == 2


@pytest.mark.parametrize(
    ("first", "second", "logged"),
    [
        ({"data": {"n": 1}}, {"data": {"n": 2}}, True),
        ({"user": {"id": 1}}, {"user": {"id": 2}}, True),
        ({"data": {"a": 1, "b": 2}}, {"data": {"b": 2, "a": 1}}, False),
        ({"v": "1"}, {"v": "2"}, False),
    ],
)
def test_another_payload_under_the_same_id_is_logged(
    engine: Engine, caplog: pytest.LogCaptureFixture, first: dict[str, Any], second: dict[str, Any], logged: bool
) -> None:
    durable.send_event("app/a", id="order-7", **first)
    with caplog.at_level(logging.WARNING, "django_durable"):
        durable.send_event("app/a", id="order-7", **second)

    assert ("Event app/a came again with id 'order-7' and another payload" in caplog.text) is logged
    assert Event.objects.count() == 1


def test_senders_of_one_id_at_the_same_time_send_one_event(engine: Engine, on_postgresql: None) -> None:
    listener("fn", "app/a")
    barrier, ids = threading.Barrier(4), []

    def send() -> None:
        try:
            with transaction.atomic():
                barrier.wait(10)
                ids.append(durable.send_event("app/a", id="once"))
        finally:
            connection.close()

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    engine.settle()

    assert (len(ids), len(set(ids)), Event.objects.count()) == (4, 1, 1)
    assert started() == [("fn", "app/a")]


# When


@pytest.mark.parametrize("seconds", [-86_400, 0])
def test_an_event_of_the_past_or_present_starts_at_once(engine: Engine, seconds: int) -> None:
    listener("fn", "app/a")

    durable.send_event("app/a", ts=clock.now() + timedelta(seconds=seconds))

    assert started() == [("fn", "app/a")]


def test_an_event_of_the_future_starts_then(engine: Engine) -> None:
    listener("fn", "app/a")

    durable.send_event("app/a", ts=clock.now() + timedelta(hours=1))
    clock.move(timedelta(minutes=59))
    engine.settle()
    assert not Run.objects.exists()

    clock.move(timedelta(minutes=1))
    engine.settle()
    assert started() == [("fn", "app/a")]


# Triggers


@pytest.mark.parametrize(
    ("trigger", "name", "starts"),
    [
        ("app/user.created", "app/user.created", True),
        ("app/user.created", "app/user.created2", False),
        ("app/user.created", "app/User.created", False),
        ("app/*", "app/user.created", True),
        ("app/*", "app/", True),
        ("app/*", "app2/user", False),
        ("app/user.*", "app/user.created", True),
        ("app/user.*", "app/user", False),
        ("app/user.*", "app/users.created", False),
        (["app/a", "app/b"], "app/b", True),
        (["app/a", "app/b"], "app/c", False),
        ([], "app/a", False),
        (None, "app/a", False),
    ],
)
def test_functions_listen_to_names_and_wildcards(engine: Engine, trigger: Any, name: str, starts: bool) -> None:
    listener("fn", trigger)

    durable.send_event(name)

    assert started() == ([("fn", name)] if starts else [])


def test_a_function_starts_once_however_many_of_its_triggers_fit(engine: Engine) -> None:
    listener("fn", ["app/a", "app/*", durable.On("app/a", if_="true")])

    durable.send_event("app/a")

    assert started() == [("fn", "app/a")]


def test_all_functions_that_listen_start(engine: Engine) -> None:
    listener("one", "app/a")
    listener("two", "app/*")

    durable.send_event("app/a")

    assert sorted(started()) == [("one", "app/a"), ("two", "app/a")]


@pytest.mark.parametrize(
    ("if_", "starts"),
    [
        ("event.data.total > 100", True),
        ("event.data.total > 200", False),
        ("event.name == 'app/paid' && event.user.id == 7", True),
        ("event.data.tags.exists(tag, tag == 'vip')", True),
    ],
)
def test_a_condition_decides(engine: Engine, if_: str, starts: bool) -> None:
    listener("fn", durable.On("app/paid", if_=if_))

    durable.send_event("app/paid", {"total": 120, "tags": ["vip"]}, user={"id": 7})

    assert bool(started()) is starts
    assert not MatchFailure.objects.exists()


def test_a_condition_that_errors_starts_nothing_and_harms_no_other_function(engine: Engine) -> None:
    listener("strict", durable.On("app/paid", if_="event.data.missing > 100"))
    listener("other", "app/paid")

    id = durable.send_event("app/paid", {"total": 120})

    assert started() == [("other", "app/paid")]
    failure = MatchFailure.objects.get()
    assert (str(failure.event_id), failure.function_id) == (id, "project/strict")
    assert failure.expression == "event.data.missing > 100"
    assert "missing" in failure.reason


def test_a_condition_that_errors_leaves_the_other_triggers_of_its_function(engine: Engine) -> None:
    listener("fn", [durable.On("app/paid", if_="event.data.missing > 100"), "app/*"])

    durable.send_event("app/paid")

    assert started() == [("fn", "app/paid")]


# Other databases


def test_an_event_beside_a_transaction_of_another_database_is_refused(engine: Engine, other_database: str) -> None:
    with (
        transaction.atomic(using=other_database),
        pytest.raises(durable.OutsideTransaction, match="open on database 'other', but events live in 'default'"),
    ):
        durable.send_event("app/a")

    assert not Event.objects.exists()


def test_an_event_beside_another_transaction_can_be_asked_for(engine: Engine, other_database: str) -> None:
    with transaction.atomic(using=other_database):
        durable.send_event("app/a", outside_transaction=True)

    assert Event.objects.count() == 1


def test_transactions_of_both_databases_are_fine(engine: Engine, other_database: str) -> None:
    with transaction.atomic(using=other_database), transaction.atomic():
        durable.send_event("app/a")

    assert Event.objects.count() == 1


# From async code


def test_events_are_sent_from_async_code(engine: Engine) -> None:
    listener("fn", "app/*")

    first = async_to_sync(durable.asend_event)("app/a", {"n": 1}, id="1", user={"id": 7}, v="2")
    again = async_to_sync(durable.asend_event)("app/a", {"n": 1}, id="1", user={"id": 7}, v="2")
    ids = async_to_sync(durable.asend_events)(durable.Event(name) for name in ("app/b", "app/c"))

    assert first == again
    assert len(ids) == 2
    assert [name for _, name in started()] == ["app/a", "app/b", "app/c"]
