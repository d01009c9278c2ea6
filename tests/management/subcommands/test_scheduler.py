"""``manage.py durable scheduler`` as a real process."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from django_durable.models import Function
from tests.management.processes import DurableProcess

Start = Callable[..., DurableProcess]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_schedules_until_told_to_stop(start: Start, number: int) -> None:
    scheduler = start("scheduler", "--json")

    assert scheduler.ready() == {"ready": True}
    scheduler.until(lambda: Function.objects.filter(id="site/greet").exists())
    scheduler.process.send_signal(number)

    assert scheduler.end(5) == 0


def test_it_warns_of_unapplied_migrations(start: Start, tmp_path: Path) -> None:
    scheduler = start("scheduler", "--json", database=f"sqlite:///{tmp_path}/empty.sqlite3")

    scheduler.ready()

    scheduler.until(lambda: "unapplied migration(s)" in "".join(scheduler.stderr))
