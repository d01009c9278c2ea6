"""Timers that ring before the scheduler looks again."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from django.test import override_settings

import django_durable as durable
from django_durable.drivers.base import get_driver
from django_durable.drivers.inline import InlineDriver
from django_durable.engine.leases.near_timers import near_timers
from tests.engine.conftest import Engine


class KeepingDriver(InlineDriver):
    """Works inline, and keeps near timers as a worker's process does."""

    keeps_timers = True


@pytest.fixture
def keeping(engine: Engine) -> Iterator[Engine]:
    """Give an engine whose process keeps its near timers."""
    with override_settings(DURABLE={"DRIVER": f"{__name__}.KeepingDriver"}):
        assert get_driver().keeps_timers
        yield engine


def test_a_near_timer_rings_without_the_scheduler(keeping: Engine) -> None:
    @keeping.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        step.sleep("nap", "50ms")

    run = keeping.start()
    assert run.status == "waiting"

    deadline = time.monotonic() + 10
    while keeping.run().status != "completed" and time.monotonic() < deadline:
        time.sleep(0.01)
    assert keeping.run().status == "completed"


def test_a_far_timer_is_left_to_the_scheduler(keeping: Engine) -> None:
    @keeping.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        step.sleep("night", "8h")

    run = keeping.start()

    assert run.status == "waiting"
    assert run.id not in [run_id for _, run_id in near_timers()._due]
