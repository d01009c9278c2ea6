"""Changes from outside, on each implementation."""

from __future__ import annotations

import datetime

import pytest

from django_durable.core import clock
from django_durable.core.replay.operations import StepStatus
from django_durable.engine.store.contract import Store
from django_durable.engine.store.rows import (
    ReadyRun,
    Resolution,
)
from django_durable.engine.store.stored_events import event_row
from django_durable.managers import DatabaseNow
from django_durable.models import Event, Run, Step

from ..conftest import (
    REHINT,
    STATES,
    UNENDED,
    columns,
    key,
    make_event,
    make_function,
    make_run,
    make_step,
)


def test_several_steps_of_a_run_are_numbered_in_the_order_given_and_wake_it_once(store: Store) -> None:
    run, other = make_run("waiting"), make_run("waiting")
    make_step(run, "second")
    given = [(run, "second"), (other, "open"), (run, "open")]

    ready = store.resolve([Resolution(run_id=each.id, key=key(name)) for each, name in given], rehint=REHINT)

    row = columns(run)
    assert (row["memos"], row["steps"], row["wakes"]) == ([("open", "completed", 7), ("second", "completed", 6)], 7, 4)
    assert columns(other)["memos"] == [("open", "completed", 6)]
    assert sorted(each.run_id for each in ready) == sorted([run.id, other.id])


def test_a_settled_step_stays_as_it_is_and_wakes_nobody(store: Store) -> None:
    run = make_run("waiting")
    event = make_event()
    store.resolve([Resolution(run_id=run.id, key=key("open"), event_id=event.id, output="1")], rehint=REHINT)
    before = columns(run)

    again = Resolution(run_id=run.id, key=key("open"), status=StepStatus.FAILED, error="{}")

    assert store.resolve([again], rehint=REHINT) == []
    assert columns(run) == before
    step = Step.objects.get(run=run, name="open")
    assert (step.output, step.error, step.event_id, step.finished_at is None) == ("1", None, event.id, False)


def test_only_runs_that_became_ready_are_named(store: Store) -> None:
    waiting, others = make_run("waiting", queue="slow"), [make_run("queued"), make_run("live"), make_run("failed")]
    runs = [waiting, *others]

    ready = store.resolve([Resolution(run_id=run.id, key=key("open")) for run in runs], rehint=REHINT)

    assert ready == [ReadyRun(waiting.id, "slow")]


def test_waking_names_only_runs_that_became_ready(store: Store) -> None:
    waiting, others = make_run("waiting", queue="slow"), [make_run("queued"), make_run("live"), make_run("failed")]

    ready = store.wake([waiting.id, waiting.id, *(run.id for run in others)], rehint=REHINT)

    assert ready == [ReadyRun(waiting.id, "slow")]
    assert columns(waiting)["wakes"] == 4


def test_runs_that_ended_are_not_given_to_who_locks_them(store: Store) -> None:
    runs = {state: make_run(state) for state in STATES}

    locked = store.lock([run.id for run in runs.values()])

    assert set(locked) == {run.id for state, run in runs.items() if state in UNENDED}


def test_the_moments_of_ingest_are_stored_to_the_microsecond(store: Store) -> None:
    at = clock.now().replace(microsecond=123457)
    batch = [make_event(), make_event()]
    for position, event in enumerate(batch):
        event.ingested_at = at + datetime.timedelta(microseconds=position)

    store.store_ingested([event_row(event) for event in batch], [])

    assert [Event.objects.get(id=event.id).ingested_at for event in batch] == [event.ingested_at for event in batch]


@pytest.mark.parametrize("count", [1, 3])
def test_runs_that_events_start_are_stored_where_nothing_started_them_yet(store: Store, count: int) -> None:
    event = make_event()
    old = new_run_of(event, 0)
    store.insert(old)
    runs = [new_run_of(event, number) for number in range(count)]

    new = store.store_ingested([event_row(event)], runs)

    assert set(new) == {run.id for run in runs[1:]}
    assert all(abs(now - clock.now()) < datetime.timedelta(seconds=1) for now in new.values())
    assert set(Run.objects.values_list("id", flat=True)) == {old.id, *new}


def new_run_of(event: Event, number: int) -> Run:
    """Return a run that is not stored, with the start key of that number."""
    moments = {"created_at": DatabaseNow(), "ready_at": DatabaseNow(), "next_at": DatabaseNow(REHINT)}
    return Run(function=make_function(), queue="default", event=event, start_key=bytes([number] * 16), **moments)


def test_a_row_is_inserted_as_the_orm_would(store: Store) -> None:
    event = Event(name="a/b", data={"a": [1, None]}, user={"id": 7}, ts=clock.now(), v="1", received_at=DatabaseNow())
    event.ingest_at = DatabaseNow(REHINT)

    store.insert(event)

    stored = Event.objects.get()
    assert (stored.id, stored.name, stored.data, stored.user, stored.v) == (
        event.id,
        "a/b",
        event.data,
        event.user,
        "1",
    )
    assert abs(stored.ingest_at - stored.received_at - REHINT) < datetime.timedelta(seconds=1)
    assert (stored.ts, stored.source, stored.ingested_at) == (event.ts, "api", None)
