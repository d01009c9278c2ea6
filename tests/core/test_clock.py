from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from django_durable.core import clock


@pytest.fixture(autouse=True)
def _clock_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "_ahead", timedelta())
    monkeypatch.setattr(clock, "shifted_by", timedelta())


def seconds_ahead() -> float:
    return (clock.now() - datetime.now(UTC)).total_seconds()


def test_now_is_aware_and_in_utc() -> None:
    assert clock.now().tzinfo is UTC


def test_now_is_the_hosts_time_until_something_else_is_known() -> None:
    assert seconds_ahead() == pytest.approx(0, abs=1)


def test_moving_time_moves_now_and_adds_up() -> None:
    clock.move(timedelta(hours=24))
    clock.move(timedelta(hours=-1))

    assert clock.shifted_by == timedelta(hours=23)
    assert seconds_ahead() == pytest.approx(23 * 3600, abs=1)


def test_now_follows_the_databases_clock() -> None:
    clock.follow(datetime.now(UTC) + timedelta(minutes=5))

    assert seconds_ahead() == pytest.approx(300, abs=1)


def test_the_last_word_of_the_database_counts() -> None:
    clock.follow(datetime.now(UTC) + timedelta(minutes=5))
    clock.follow(datetime.now(UTC) - timedelta(minutes=1))

    assert seconds_ahead() == pytest.approx(-60, abs=1)


def test_the_databases_clock_may_speak_in_any_zone() -> None:
    clock.follow(datetime.now(timezone(timedelta(hours=2))))

    assert seconds_ahead() == pytest.approx(0, abs=1)


def test_moved_time_comes_on_top_of_the_databases_clock() -> None:
    clock.move(timedelta(hours=1))
    clock.follow(datetime.now(UTC) + timedelta(minutes=5))

    assert seconds_ahead() == pytest.approx(3900, abs=1)
