"""Sleeps: every form, what is past, and moments that move."""

from __future__ import annotations

import datetime
import logging
from typing import Any

import pytest

import django_durable as durable
from django_durable.core import clock
from tests.scenarios.conftest import Play

DAY = datetime.timedelta(days=1)


@pytest.mark.parametrize(
    "duration",
    ["24h", "1 day", "23h60m", "P1D", DAY, 86_400],
    ids=["h", "day", "h and m", "ISO", "timedelta", "number"],
)
def test_a_sleep_lasts_as_long_as_it_says(play: Play, duration: Any) -> None:
    async def handler(event: durable.Event, step: durable.Step) -> None:
        await step.sleep("nap", duration)

    play.start(handler)
    assert play.advance("23h59m").status == "waiting"

    assert play.advance("1m").status == "completed"


@pytest.mark.parametrize("duration", [0, "0s", -5, datetime.timedelta(-1)], ids=str)
def test_a_sleep_of_nothing_or_less_goes_on_at_once(play: Play, duration: Any) -> None:
    async def handler(event: durable.Event, step: durable.Step) -> None:
        await step.sleep("nap", duration)

    play.start(handler)

    assert play.status == "completed"


def test_the_wake_time_is_fixed_when_the_sleep_is_first_reached(play: Play) -> None:
    async def before(event: durable.Event, step: durable.Step) -> None:
        await step.sleep("nap", "2h")

    async def after(event: durable.Event, step: durable.Step) -> None:
        await step.sleep("nap", "100h")

    play.start(before)
    play.advance("1h")
    play.deploy(after)

    assert play.advance("1h").status == "completed"


def test_a_sleep_of_more_than_ten_years_is_refused(play: Play) -> None:
    async def handler(event: durable.Event, step: durable.Step) -> None:
        await step.sleep("nap", "11 years")

    play.start(handler)

    assert play.failure.type == "django_durable.exceptions.InvalidStep"


FORMS = {
    "aware datetime": lambda when: when,
    "naive datetime": lambda when: when.replace(tzinfo=None),
    "ISO text": lambda when: when.isoformat(),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_sleep_until_a_moment_ends_then(play: Play, form: Any) -> None:
    when = form(clock.now() + DAY)

    async def handler(event: durable.Event, step: durable.Step) -> None:
        await step.sleep_until("nap", when)

    play.start(handler)
    assert play.advance("23h59m").status == "waiting"

    assert play.advance("1m").status == "completed"


def test_a_sleep_until_a_date_ends_when_it_begins(play: Play) -> None:
    tomorrow = (clock.now() + DAY).date()

    async def handler(event: durable.Event, step: durable.Step) -> None:
        await step.sleep_until("nap", tomorrow)

    play.start(handler)

    assert play.status == "waiting"
    assert play.step("nap").next_at == datetime.datetime(
        tomorrow.year, tomorrow.month, tomorrow.day, tzinfo=datetime.UTC
    )
    assert play.advance(DAY).status == "completed"


def test_a_sleep_until_a_past_moment_goes_on_at_once(play: Play) -> None:
    async def handler(event: durable.Event, step: durable.Step) -> None:
        await step.sleep_until("nap", "2020-01-01")

    play.start(handler)

    assert play.status == "completed"


def test_of_a_moment_that_moves_the_first_value_stays_and_the_others_are_told(
    play: Play, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(event: durable.Event, step: durable.Step) -> None:
        await step.sleep_until("nap", clock.now() + DAY)

    play.start(handler)
    with caplog.at_level(logging.WARNING, "django_durable"):
        play.advance(DAY)

    assert play.status == "completed"
    assert "the first value stays" in caplog.text
    assert "test_time.py" in caplog.text


def test_sleeps_in_a_row_add_up(play: Play) -> None:
    async def handler(event: durable.Event, step: durable.Step) -> None:
        for _ in range(3):
            await step.sleep("nap", "1h")

    play.start(handler)
    for _ in range(2):
        assert play.advance("1h").status == "waiting"

    assert play.advance("1h").status == "completed"
