"""step.sleep and step.sleep_until: how long a run sleeps, and that the first pass fixes it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.utils import timezone

import django_durable as durable
from django_durable.core import clock
from django_durable.models import Event
from tests.engine.conftest import Engine, in_seconds, line_of


@pytest.mark.parametrize(
    "duration", ["24h", "1 day", "1440m", "P1D", timedelta(days=1), 86_400, 86_400.0], ids=lambda value: repr(value)
)
def test_a_sleep_lasts_as_long_as_asked_in_every_form(engine: Engine, duration: Any) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        step.sleep("nap", duration)

    run = engine.start()
    assert (run.status, run.waiting_kind, run.waiting_for) == ("waiting", "sleep", "nap")
    assert in_seconds(run.next_at) == pytest.approx(86_400, abs=5)

    assert engine.advance("23h 59m").status == "waiting"
    assert engine.advance("1m").status == "completed"


@pytest.mark.parametrize("duration", [0, "0s", -1, "-1h", timedelta(days=-9_999)])
def test_a_sleep_of_nothing_or_less_goes_on_at_once(engine: Engine, duration: Any) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        step.sleep("nap", duration)

    assert engine.start().status == "completed"
    assert engine.step("nap").status == "completed"


def test_the_end_of_a_sleep_is_fixed_when_it_is_first_reached(engine: Engine) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        step.sleep("nap", event.data["hours"].pop() * 3_600 if event.data["hours"] else "10h")

    run = engine.start({"hours": [1]})
    due = engine.step("nap").next_at
    Event.objects.update(data={"hours": [5]})

    assert engine.advance("30m").next_at == due == run.next_at
    assert engine.advance("30m").status == "completed"


def test_sleeps_after_one_another_add_up(engine: Engine) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        step.sleep("a", "1h")
        step.sleep("b", "1h")

    engine.start()

    assert engine.advance("1h").waiting_for == "b"
    assert engine.advance("1h").status == "completed"


def tomorrow_in(zone: str) -> datetime:
    return datetime.combine(clock.now().astimezone(ZoneInfo(zone)).date() + timedelta(days=2), datetime.min.time())


@pytest.mark.parametrize(
    ("when", "moment"),
    [
        (lambda: clock.now() + timedelta(hours=1), lambda: clock.now() + timedelta(hours=1)),
        (
            lambda: tomorrow_in("Asia/Tokyo"),
            lambda: tomorrow_in("Asia/Tokyo").replace(tzinfo=ZoneInfo("Asia/Tokyo")),
        ),
        (
            lambda: tomorrow_in("Asia/Tokyo").date(),
            lambda: tomorrow_in("Asia/Tokyo").replace(tzinfo=ZoneInfo("Asia/Tokyo")),
        ),
        (lambda: "2090-01-31", lambda: datetime(2090, 1, 30, 15, tzinfo=UTC)),
        (lambda: "2090-01-31T09:00+01:00", lambda: datetime(2090, 1, 31, 8, tzinfo=UTC)),
    ],
    ids=["aware", "naive", "date", "ISO date", "ISO text"],
)
def test_a_sleep_ends_at_its_moment(engine: Engine, when: Callable[[], Any], moment: Callable[[], datetime]) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        step.sleep_until("nap", when())

    with timezone.override("Asia/Tokyo"):
        expected = moment()
        run = engine.start()

    assert run.next_at is not None
    assert abs(run.next_at - expected) < timedelta(seconds=5)


@pytest.mark.parametrize(
    "when", [datetime(2000, 1, 1, tzinfo=UTC), datetime(2000, 1, 1), date(2000, 1, 1), "2000-01-01"]
)
def test_a_moment_in_the_past_goes_on_at_once(engine: Engine, when: Any) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        step.sleep_until("nap", when)

    assert engine.start().status == "completed"


def test_of_a_moment_that_moves_the_first_value_stays_and_the_line_is_logged(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        step.sleep_until("nap", clock.now() + timedelta(hours=1))  # <- here

    engine.start()
    with caplog.at_level(logging.WARNING, "django_durable"):
        run = engine.advance("1h")

    assert run.status == "completed"
    assert "the first value stays" in caplog.text
    assert line_of(fn.handler, "here") in caplog.text
