"""Querysets to read with, and the database's time in queries."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from typing import Any

import pytest

from django_durable.core import clock
from django_durable.managers import DatabaseNow
from django_durable.models import Event, Function, Run, Step
from tests.models.rows import make_event, make_function, make_run, make_step

pytestmark = pytest.mark.django_db

SECOND = datetime.timedelta(seconds=1)
HOUR = datetime.timedelta(hours=1)


@pytest.fixture(autouse=True)
def _present() -> Iterator[None]:
    """Bring the clock back to the present."""
    yield
    clock.move(-clock.shifted_by)


def database_time(*later: datetime.timedelta) -> Any:
    """Return what the database takes for the time."""
    return Function.objects.annotate(now=DatabaseNow(*later)).values_list("now", flat=True).get()


@pytest.mark.parametrize("moved", [datetime.timedelta(), HOUR, -HOUR])
def test_the_databases_time_moves_with_the_clock(moved: datetime.timedelta) -> None:
    make_function()
    clock.move(moved)

    assert abs(database_time() - clock.now()) < 5 * SECOND


def test_a_moment_may_be_asked_for_that_is_later_or_earlier_than_now() -> None:
    make_function()

    assert HOUR - 5 * SECOND < database_time(HOUR) - clock.now() < HOUR + 5 * SECOND
    assert HOUR - 5 * SECOND < clock.now() - database_time(-HOUR) < HOUR + 5 * SECOND


def test_the_databases_time_passes_within_a_transaction() -> None:
    make_function()
    first = database_time()
    while (second := database_time()) == first:
        pass

    assert second > first


def test_events_are_ingested_in_the_order_in_which_they_are_due() -> None:
    now = clock.now()
    late, early = make_event(ingest_at=now - SECOND), make_event(ingest_at=now - HOUR)
    make_event(ingest_at=now - HOUR, ingested_at=now)
    future = make_event(ingest_at=now + HOUR)

    assert list(Event.objects.to_ingest()) == [early, late]
    clock.move(2 * HOUR)
    assert list(Event.objects.to_ingest()) == [early, late, future]


def test_events_that_are_due_at_one_moment_are_ingested_in_the_order_of_their_ids() -> None:
    moment = clock.now() - SECOND
    events = [make_event(ingest_at=moment) for _ in range(3)]

    assert list(Event.objects.to_ingest()) == events


def test_runs_are_due_whose_alarm_has_rung_the_oldest_first() -> None:
    now = clock.now()
    late, early = make_run(next_at=now - SECOND), make_run(next_at=now - HOUR)
    make_run(next_at=now + HOUR)
    make_run(status="waiting")

    assert list(Run.objects.due()) == [early, late]


def test_steps_come_in_the_order_in_which_they_were_reached() -> None:
    run, now = make_run(), clock.now()
    second = make_step(run, key=b"2" * 16, planned_at=now, seq=2, status="completed", finished_at=now)
    first = make_step(run, key=b"1" * 16, planned_at=now, seq=1, status="completed", finished_at=now)
    before = make_step(run, key=b"0" * 16, planned_at=now - HOUR)

    assert list(Step.objects.in_order()) == [before, first, second]
