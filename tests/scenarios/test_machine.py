"""Random programs come to what plain Python says, however their turns are cut and their hints are lost or doubled."""

from __future__ import annotations

import datetime
import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection
from django.test import override_settings
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import django_durable as durable
from django_durable.core import clock
from django_durable.core.functions import registry
from django_durable.core.values import encoding
from django_durable.drivers.base import get_driver
from django_durable.engine.scheduler.scheduler import Scheduler
from django_durable.engine.workers.work import work
from django_durable.models import ENDED, Lock, Run, Step, Wait
from tests.databases import empty
from tests.engine.conftest import Engine, RecordingDriver
from tests.scenarios.programs import PROGRAMS, RETRIES, Lines, World, expected, play_async, play_plain, waits

MOST_ROUNDS = 600
CUTS = [{}, {"CHECKPOINT": False}, {"TURN_BUDGET": "1ms"}]
LIMITS = {
    "deadline": None,
    "derandomize": True,
    "database": None,
    "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
}


class Weather:
    """Carries hints badly: in any order, some never, some twice; the scheduler finds what they were for."""

    def __init__(self, driver: RecordingDriver, chance: random.Random) -> None:
        self._driver = driver
        self._chance = chance

    def blow(self) -> bool:
        """Lose, double or deliver one of the hints; return whether there was one."""
        hints = self._driver.hints
        if not hints:
            return False
        fate = self._chance.random()
        hint = hints[self._chance.randrange(len(hints))]
        if fate > 0.15:
            hints.remove(hint)
        if fate > 0.3:
            queue, run_ids, ingest = hint
            work(queue, run_ids, ingest=ingest, should_stop=self._should_stop())
        return True

    def _should_stop(self) -> Any:
        """Return a worker's order to stop: never, or at any step."""
        if self._chance.random() < 0.7:
            return lambda: False
        return lambda: self._chance.random() < 0.3


def reach_the_end(weather: Weather, answers: dict[str, str]) -> Run:
    """Work, look and move time until the run has ended; answer waits that are to be answered in time."""
    for _ in range(MOST_ROUNDS):
        run = Run.objects.order_by("id").first()
        if run is not None and run.status in ENDED:
            return run
        if weather.blow():
            continue
        answer_waits(answers)
        # Another scheduler leads each time; the one before is gone.
        Lock.objects.filter(name="scheduler").delete()
        Scheduler().look()
        if not get_hints():
            move_to_the_next_alarm()
    raise AssertionError(f"the run still waits after {MOST_ROUNDS} rounds, for {run and run.waiting_for!r}")


def get_hints() -> list[Any]:
    """Return the hints that are under way."""
    driver = get_driver()
    assert isinstance(driver, RecordingDriver)
    return driver.hints


def answer_waits(answers: dict[str, str]) -> None:
    """Send the events of the open waits that are to be answered while they wait."""
    for name in Wait.objects.values_list("name", flat=True):
        place = name.removeprefix("test/")
        if answers.get(place) == "in time":
            answers[place] = "sent"
            durable.send_event(name, {"place": place})


def move_to_the_next_alarm() -> None:
    """Move time to the moment at which the next run or branch is due."""
    runs = Run.objects.filter(next_at__isnull=False).order_by("next_at").values_list("next_at", flat=True)
    branches = Step.objects.filter(kind="branch", next_at__isnull=False).order_by("next_at")
    moments = [*runs[:1], *branches.values_list("next_at", flat=True)[:1]]
    if moments:
        clock.move(max(min(moments) - clock.now(), datetime.timedelta()))


@pytest.fixture
def driver(engine: Engine) -> Iterator[RecordingDriver]:
    """Keep hints for the test to deliver."""
    with override_settings(DURABLE={"DRIVER": "tests.engine.conftest.RecordingDriver"}):
        recorder = get_driver()
        assert isinstance(recorder, RecordingDriver)
        yield recorder


def play(program: Lines, *, asynchronous: bool, cut: dict[str, Any], chance: random.Random) -> tuple[object, Any]:
    """Play a program in bad weather; return its result, and how often each body ran."""
    world, answers = World(Counter()), waits(program)

    def plain(event: durable.Event, step: durable.Step) -> Any:
        return play_plain(world, step, program)

    async def handler(event: durable.Event, step: durable.Step) -> Any:
        return await play_async(world, step, program)

    registry._functions.clear()
    durable.function("child")(lambda event, step: world.child(event, step))
    options: dict[str, Any] = {"trigger": "test/start", "retries": RETRIES, "backoff": "1m"}
    durable.function("fn", **options)(handler if asynchronous else plain)
    with override_settings(DURABLE={"DRIVER": "tests.engine.conftest.RecordingDriver", **cut}):
        durable.send_event("test/start")
        for place in [place for place, comes in answers.items() if comes == "early"]:
            durable.send_event(f"test/{place}", {"place": place})
        driver = get_driver()
        assert isinstance(driver, RecordingDriver)
        run = reach_the_end(Weather(driver, chance), answers)
    result = encoding.decode(run.output or "null") if run.status == "completed" else run.status
    return result, world.bodies


def check(program: Lines, asynchronous: bool, cut: dict[str, Any], chance: random.Random) -> None:
    """Play a program and hold it to what must come of it."""
    try:
        assert play(program, asynchronous=asynchronous, cut=cut, chance=chance) == expected(program)
        assert not Wait.objects.filter(run__status__in=ENDED).exists()
        assert not Step.objects.filter(kind="branch", run__status__in=ENDED, next_at__isnull=False).exists()
    finally:
        empty(connection)
        clock.move(-clock.shifted_by)


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
@settings(max_examples=25, **LIMITS)
@given(program=PROGRAMS, cut=st.sampled_from(CUTS), seed=st.integers(0, 2**32))
def test_a_program_comes_to_what_plain_code_says(
    driver: RecordingDriver, asynchronous: bool, program: Lines, cut: dict[str, Any], seed: int
) -> None:
    check(program, asynchronous, cut, random.Random(seed))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
@settings(max_examples=500, **LIMITS)
@given(program=PROGRAMS, cut=st.sampled_from(CUTS), seed=st.integers(0, 2**32))
def test_many_programs_come_to_what_plain_code_says(
    driver: RecordingDriver, asynchronous: bool, program: Lines, cut: dict[str, Any], seed: int
) -> None:
    check(program, asynchronous, cut, random.Random(seed))
