"""What a message makes a worker do: ingest, take hinted runs and then what is ready, call others, stop when told."""

from __future__ import annotations

import datetime
import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import SimpleNamespace

import pytest
from django.db import DatabaseError, connection
from django.test import override_settings
from django.test.utils import CaptureQueriesContext

import django_durable as durable
from django_durable.core import clock
from django_durable.core.ids import uuid7
from django_durable.drivers.base import get_driver
from django_durable.engine.workers import ingest
from django_durable.engine.workers.ingest import ingest_events
from django_durable.engine.workers.work import work
from django_durable.managers import DatabaseNow
from django_durable.models import Event, Run, Step, StepAttempt
from django_durable.signals import run_ended
from tests.engine.conftest import Engine, ReadOnly, RecordingDriver, failing, in_seconds


def queued(count: int = 1, name: str = "test/start") -> list[Run]:
    """Start runs and leave them in their queues."""
    durable.send_events(durable.Event(name, {"n": number}) for number in range(count))
    list(ingest_events())
    return list(Run.objects.filter(status="queued").order_by("id"))


@pytest.fixture
def taken(engine: Engine, recorder: RecordingDriver) -> list[int]:
    """Register a function that notes which of its runs is taken."""
    numbers: list[int] = []
    engine.function()(lambda event, step: numbers.append(event.data["n"]))
    return numbers


def statuses() -> list[str]:
    """Return the status of every run, in order."""
    return list(Run.objects.order_by("id").values_list("status", flat=True))


def test_the_runs_of_a_message_come_first_then_those_of_its_queue(taken: list[int]) -> None:
    runs = queued(4)

    work("default", [runs[2].id, runs[1].id])

    assert taken == [2, 1, 0, 3]


def test_runs_of_other_queues_are_left(engine: Engine, taken: list[int]) -> None:
    engine.function("slow", queue="slow")(lambda event, step: None)
    runs = queued()

    work("default")

    assert dict(Run.objects.values_list("queue", "status")) == {"default": "completed", "slow": "queued"}
    assert len(runs) == 2


def test_a_flooded_queue_costs_another_no_statement(engine: Engine, taken: list[int]) -> None:
    engine.function("beside", queue="beside", trigger="test/beside")(lambda event, step: step.run("one", int))
    statements = []
    for flood in (0, 300):
        queued(flood)
        (beside,) = [run for run in queued(name="test/beside") if run.queue == "beside"]
        with CaptureQueriesContext(connection) as captured:
            work("beside")
        statements.append(len(captured))
        beside.refresh_from_db()
        assert beside.status == "completed"

    assert statements[0] == statements[1]
    assert (taken, Run.objects.filter(status="queued").count()) == ([], 300)


def test_without_a_queue_all_are_worked_on(engine: Engine, taken: list[int]) -> None:
    engine.function("slow", queue="slow")(lambda event, step: None)
    queued()

    work(None)

    assert statuses() == ["completed", "completed"]


def test_a_message_that_comes_twice_or_for_a_run_that_ended_does_nothing(taken: list[int]) -> None:
    (run,) = queued()
    work("default", [run.id])
    before = list(Run.objects.values())

    work("default", [run.id, run.id])

    assert list(Run.objects.values()) == before
    assert taken == [0]


def test_a_message_for_a_run_that_nobody_knows_does_nothing(taken: list[int], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        work("default", [uuid7()])

    assert (taken, Run.objects.count(), caplog.text) == ([], 0, "")


def test_events_are_ingested_only_when_the_message_says_so(engine: Engine, taken: list[int]) -> None:
    durable.send_event("test/start", {"n": 7})
    work("default")
    assert Event.objects.get().ingested_at is None

    work("default", ingest=True)

    assert taken == [7]


def test_what_ingest_makes_ready_elsewhere_is_hinted(engine: Engine, recorder: RecordingDriver) -> None:
    engine.function("here")(lambda event, step: None)
    engine.function("there", queue="there")(lambda event, step: None)
    durable.send_event("test/start")
    recorder.taken()

    work("default", ingest=True)

    elsewhere = Run.objects.get(queue="there")
    assert recorder.taken() == [("there", [elsewhere.id], False)]


def test_events_that_take_longer_than_a_turn_are_left_to_another_message(
    engine: Engine, hurried: RecordingDriver, few_events_at_once: None
) -> None:
    engine.function()(lambda event, step: None)
    durable.send_events(durable.Event("test/start") for _ in range(6))
    hurried.taken()

    work("default", ingest=True)

    assert Event.objects.filter(ingested_at=None).count() == 4
    assert statuses() == ["completed", "queued"]
    assert ("default", [], True) in hurried.taken()


def test_a_worker_with_many_events_calls_another_for_the_runs_that_they_start(
    engine: Engine, recorder: RecordingDriver, few_events_at_once: None
) -> None:
    engine.function()(lambda event, step: None)
    durable.send_events(durable.Event("test/start") for _ in range(6))
    recorder.taken()
    when_marked: list[list[object]] = []

    def look(run: Callable[..., object], sql: str, params: object, many: bool, context: object) -> object:
        if sql.partition(" SET ")[2].strip('`"').startswith("ingested_at"):
            when_marked.append(list(recorder.hints))
        return run(sql, params, many, context)

    with connection.execute_wrapper(look):
        work("default", ingest=True)

    assert when_marked == [[], [], [("default", [], False)]]
    assert statuses() == ["completed"] * 6


def test_a_worker_that_is_told_to_stop_leaves_events_to_another_one(
    engine: Engine, recorder: RecordingDriver, few_events_at_once: None
) -> None:
    durable.send_events(durable.Event("test/start") for _ in range(6))
    recorder.taken()

    work("default", ingest=True, should_stop=lambda: Event.objects.filter(ingested_at=None).count() < 6)

    assert Event.objects.filter(ingested_at=None).count() == 4
    assert recorder.taken() == [("default", [], True)]


def test_a_worker_that_finds_more_than_it_takes_calls_one_other(taken: list[int], recorder: RecordingDriver) -> None:
    queued(5)
    recorder.taken()

    work("default")

    assert recorder.taken() == [("default", [], False)]


def test_a_worker_that_finds_one_run_calls_nobody(taken: list[int], recorder: RecordingDriver) -> None:
    queued(1)
    recorder.taken()

    work("default")

    assert recorder.taken() == []


@pytest.fixture
def hurried(engine: Engine) -> Iterator[RecordingDriver]:
    """Give turns a budget that is spent at once, and keep every hint."""
    with override_settings(DURABLE={"DRIVER": "tests.engine.conftest.RecordingDriver", "TURN_BUDGET": 0.000001}):
        driver = get_driver()
        assert isinstance(driver, RecordingDriver)
        yield driver


@pytest.fixture
def few_events_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ingest take two events in a transaction, so that a few are many."""
    monkeypatch.setattr(ingest, "BATCH", 2)


def test_a_run_gives_way_after_its_budget_and_loses_nothing(engine: Engine, hurried: RecordingDriver) -> None:
    calls = []
    engine.function()(lambda event, step: [step.run("each", calls.append, number) for number in range(3)])
    (run,) = queued()

    work("default")
    run.refresh_from_db()
    assert (run.status, run.steps, run.owner) == ("queued", 1, "")

    for _ in range(3):
        work("default")
    run.refresh_from_db()
    assert (run.status, calls) == ("completed", [0, 1, 2])


def test_a_worker_whose_budget_is_spent_calls_another_for_the_rest(engine: Engine, hurried: RecordingDriver) -> None:
    engine.function()(lambda event, step: None)
    queued(3)
    hurried.taken()

    work("default")

    assert statuses() == ["completed", "queued", "queued"]
    assert hurried.taken()[-1] == ("default", [], False)


def test_a_worker_that_is_told_to_stop_hands_its_run_on_at_the_next_step(
    engine: Engine, recorder: RecordingDriver
) -> None:
    calls: list[str] = []

    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        step.run("first", calls.append, "first")
        step.run("second", calls.append, "second")

    (run,) = queued()
    recorder.taken()

    work("default", [run.id], should_stop=lambda: bool(calls))

    run.refresh_from_db()
    assert (run.status, run.crashes, calls) == ("queued", 0, ["first"])
    assert in_seconds(run.ready_at) < 1
    assert recorder.taken() == [("default", [], False)]
    work("default")
    assert calls == ["first", "second"]


def test_a_worker_that_was_told_to_stop_passes_its_message_on(taken: list[int], recorder: RecordingDriver) -> None:
    (run,) = queued()
    recorder.taken()

    work("default", [run.id], ingest=True, should_stop=lambda: True)

    assert recorder.taken() == [("default", [run.id], True)]
    assert taken == []


def test_what_breaks_one_run_harms_no_other_and_is_tried_again_later(
    engine: Engine, recorder: RecordingDriver, caplog: pytest.LogCaptureFixture
) -> None:
    engine.function("breaks")(lambda event, step: step.run("breaks the database", int))
    engine.function("works")(lambda event, step: step.run("works", int))
    queued()

    with caplog.at_level(logging.ERROR), connection.execute_wrapper(failing("breaks the database")):
        work("default")

    assert dict(Run.objects.values_list("function__slug", "status")) == {"breaks": "queued", "works": "completed"}
    assert caplog.text.count("could not go on") == 1
    broken = Run.objects.get(function__slug="breaks")
    assert broken.attempt == 0
    assert 5 < in_seconds(broken.ready_at) <= 10

    clock.move(datetime.timedelta(seconds=10))
    work("default")
    assert statuses() == ["completed", "completed"]


def test_a_run_that_cannot_be_read_is_put_off_too(
    engine: Engine, recorder: RecordingDriver, caplog: pytest.LogCaptureFixture
) -> None:
    engine.function()(lambda event, step: None)
    (run,) = queued()
    Run.objects.filter(id=run.id).update(input="no JSON")

    with caplog.at_level(logging.ERROR):
        work("default")

    run.refresh_from_db()
    assert run.status == "queued"
    assert 5 < in_seconds(run.ready_at) <= 10
    assert caplog.text.count("could not go on") == 1


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_a_worker_that_is_killed_softly_hands_its_run_on_at_once(
    engine: Engine, recorder: RecordingDriver, error: type[BaseException]
) -> None:
    def dies() -> None:
        raise error

    engine.function()(lambda event, step: step.run("dies", dies))
    (run,) = queued()

    with pytest.raises(error):
        work("default")

    run.refresh_from_db()
    assert (run.status, run.attempt, run.crashes) == ("queued", 0, 0)
    assert not Step.objects.exists()
    assert not StepAttempt.objects.exists()
    assert in_seconds(run.ready_at) < 1


# A database that takes no writes


def test_a_message_that_meets_a_read_only_database_does_nothing_and_says_so_once(
    engine: Engine, recorder: RecordingDriver, read_only: ReadOnly, taken: list[int]
) -> None:
    (run,) = queued(1)
    durable.send_event("test/start", {"n": 1})
    recorder.taken()
    read_only.begin()

    for message in ({"run_ids": [run.id]}, {"ingest": True}, {}):
        with CaptureQueriesContext(connection) as captured, pytest.raises(DatabaseError, match=r"read-?only"):
            work("default", **message)  # type: ignore[arg-type]
        assert len(captured) < 20

    assert (taken, recorder.taken()) == ([], [])
    read_only.end()
    work("default", ingest=True)
    assert sorted(taken) == [0, 1]


def test_a_run_whose_database_becomes_read_only_goes_on_when_it_takes_writes_again(
    engine: Engine, recorder: RecordingDriver, read_only: ReadOnly, caplog: pytest.LogCaptureFixture
) -> None:
    bodies: list[int] = []

    def body() -> None:
        bodies.append(1)
        if len(bodies) == 1:
            read_only.begin()

    engine.function()(lambda event, step: step.run("body", body))
    queued()

    with caplog.at_level(logging.ERROR), suppress(DatabaseError):
        work("default")
    read_only.end()

    run = engine.run()
    assert (run.status, run.steps, bodies) == ("running", 0, [1])
    assert caplog.text.count("could not go on") == 1
    clock.move(datetime.timedelta(seconds=15))
    engine.scheduler.look()
    work("default")
    assert (engine.run().status, len(bodies)) == ("completed", 2)


def test_a_body_whose_value_finds_no_room_on_the_disk_is_tried_again_after_a_pause(
    engine: Engine, recorder: RecordingDriver, full_disk: FullDisk, caplog: pytest.LogCaptureFixture
) -> None:
    bodies: list[int] = []

    def body() -> str:
        bodies.append(1)
        return "x" * 500_000

    engine.function()(lambda event, step: len(step.run("body", body)))
    queued()
    full_disk.begin()

    with caplog.at_level(logging.ERROR):
        for _ in range(10):
            work("default")

    assert "full" in caplog.text
    assert (len(bodies), engine.run().status) == (1, "queued")
    full_disk.end()
    clock.move(datetime.timedelta(seconds=10))
    work("default")
    assert (len(bodies), engine.run().status, engine.run().output) == (2, "completed", "500000")


class FullDisk:
    """SQLite's own limit to a file, between :meth:`begin` and :meth:`end`."""

    def begin(self) -> None:
        """Let the file grow no further."""
        self._limit(1)  # SQLite takes the present size instead.

    def end(self) -> None:
        """Give room."""
        self._limit(1_000_000_000)

    def _limit(self, pages: int) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"PRAGMA max_page_count = {pages}")


@pytest.fixture
def full_disk(engine: Engine) -> Iterator[FullDisk]:
    """Give a disk that is full when it is told to be."""
    if connection.vendor != "sqlite":
        pytest.skip("needs SQLite, which has a limit to the size of its file")
    disk = FullDisk()
    with connection.cursor() as cursor:
        cursor.execute("VACUUM")  # Pages that earlier tests left would be room.
    try:
        yield disk
    finally:
        disk.end()


@pytest.mark.needs("postgresql")
def test_python_follows_the_clock_of_the_database(engine: Engine, recorder: RecordingDriver) -> None:
    engine.function()(lambda event, step: None)
    queued()
    clock.follow(clock.now() + datetime.timedelta(hours=3))
    assert in_seconds(Event.objects.get().received_at) < -10_000

    work("default")

    assert abs(in_seconds(Event.objects.get().received_at)) < 60


@pytest.mark.needs("postgresql")
@pytest.mark.parametrize("hours", [-1, 1], ids=["slow", "fast"])
def test_a_worker_whose_clock_is_an_hour_wrong_does_no_harm(
    engine: Engine, recorder: RecordingDriver, hours: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Wrong(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:  # type: ignore[override]
            return datetime.datetime.now(tz) + datetime.timedelta(hours=hours)

    engine.function()(lambda event, step: step.sleep("nap", "30m"))
    queued()
    monkeypatch.setattr(clock, "_ahead", datetime.timedelta())
    monkeypatch.setattr(clock, "datetime", SimpleNamespace(datetime=Wrong, UTC=datetime.UTC))
    assert abs((clock.now() - datetime.datetime.now(datetime.UTC)).total_seconds()) > 3_500

    work("default")

    run = Run.objects.annotate(now=DatabaseNow()).get()
    assert run.next_at is not None
    assert (run.next_at - run.now).total_seconds() == pytest.approx(1_800, abs=60)
    clock.move(datetime.timedelta(minutes=29))
    engine.settle()
    assert engine.run().status == "waiting"
    clock.move(datetime.timedelta(minutes=1))
    engine.settle()
    assert engine.run().status == "completed"


def test_the_clock_does_not_drift_with_every_claim(engine: Engine, recorder: RecordingDriver) -> None:
    engine.function()(lambda event, step: None)
    queued(100)
    work("default")
    before = clock._ahead

    queued(100)
    work("default")

    assert abs(clock._ahead - before) < datetime.timedelta(milliseconds=100)


def test_a_worker_that_is_told_to_stop_gives_back_the_run_that_it_had_claimed_next(
    taken: list[int], recorder: RecordingDriver
) -> None:
    queued(2)
    recorder.taken()
    told_to_stop = []

    def stop(**kwargs: object) -> None:
        told_to_stop.append(True)

    run_ended.connect(stop)
    try:
        work("default", should_stop=lambda: bool(told_to_stop))
    finally:
        run_ended.disconnect(stop)

    assert taken == [0]
    assert statuses() == ["completed", "queued"]
    assert [queue for queue, _, _ in recorder.taken()] == ["default", "default"]


def test_a_run_that_a_message_names_goes_before_those_that_were_ready(
    engine: Engine, recorder: RecordingDriver
) -> None:
    order: list[int] = []
    engine.function()(lambda event, step: order.append(event.data["n"]))
    durable.send_events(durable.Event("test/start", {"n": number}) for number in range(3))
    list(ingest_events())
    named = Run.objects.order_by("id")[2].id
    durable.send_event("test/start", {"n": 3})

    work("default", [named], ingest=True)

    # What this worker has ingested itself, it has claimed already.
    assert order == [3, 2, 0, 1]


def test_a_message_that_names_many_runs_that_were_taken_costs_two_looks(
    engine: Engine, recorder: RecordingDriver
) -> None:
    engine.function()(lambda event, step: step.wait_for_event("reply", "test/reply", timeout="1d"))
    durable.send_events(durable.Event("test/start") for _ in range(50))
    work(None, ingest=True)
    taken = list(Run.objects.values_list("id", flat=True))

    with CaptureQueriesContext(connection) as queries:
        work("default", taken)

    assert len(queries) == 2
