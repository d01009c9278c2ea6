from __future__ import annotations

import datetime

import pytest
from django.utils import timezone

from django_durable.admin.shared.html import elapsed, moment_mark, relative, short, status_mark
from django_durable.core import clock


def test_a_status_is_icon_and_word() -> None:
    mark = status_mark("failed", "Failed")

    assert '<span aria-hidden="true">✖</span> Failed' in mark


def test_a_moment_is_shown_in_the_readers_zone_and_readable_by_machines() -> None:
    with timezone.override("Asia/Tokyo"):
        mark = moment_mark(datetime.datetime(2026, 1, 1, 20, 30, tzinfo=datetime.UTC))

    assert '<time datetime="2026-01-01T20:30:00+00:00"' in mark
    assert ">2026-01-02 05:30:00</time>" in mark


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0004, "0s"), (1.2345, "1s 234ms"), (61.9, "1m 1s"), (90_000, "1d 1h")],
)
def test_a_duration_is_no_finer_than_people_read(seconds: float, text: str) -> None:
    assert elapsed(datetime.timedelta(seconds=seconds)) == text


def test_past_and_future_read_differently() -> None:
    hour = datetime.timedelta(hours=1, seconds=0.5)

    assert relative(clock.now() - hour).endswith(" ago")
    assert relative(clock.now() + hour).startswith("in 1h")


def test_a_short_id_keeps_both_ends() -> None:
    assert short("019a1b2c-0000-7000-8000-0123456789ab") == "019a1b2c…6789ab"
