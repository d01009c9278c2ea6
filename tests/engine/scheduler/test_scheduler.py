"""The scheduler: hints again what nobody took, wakes what is due, frees what dead workers held; one leads."""

from __future__ import annotations

import datetime
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import connection
from django.test import override_settings
from django.test.utils import CaptureQueriesContext

import django_durable as durable
from django_durable.conf import get_settings
from django_durable.core import clock
from django_durable.core.functions import registry
from django_durable.core.ids import uuid7
from django_durable.drivers.base import get_driver
from django_durable.engine.scheduler import scheduler
from django_durable.engine.scheduler.scheduler import (
    DEPUTYSHIP,
    LEADERSHIP,
    LONGEST_OUTAGE_PAUSE,
    POLL,
    SPARED,
    Scheduler,
)
from django_durable.engine.store.rows import Claim
from django_durable.engine.store.stores import get_store
from django_durable.engine.workers.ingest import ingest_events
from django_durable.engine.workers.work import work
from django_durable.models import Event, Function, Run
from tests.behaviours.racing import wait_until
from tests.engine.conftest import Engine, ReadOnly, RecordingDriver, failing, in_seconds

LEASE = datetime.timedelta(seconds=15)


def plain(engine: Engine, **options: object) -> None:
    """Register a function without steps."""
    engine.function(**options)(lambda event, step: None)  # type: ignore[arg-type]


def queued(engine: Engine) -> Run:
    """Start a run and leave it in its queue; hints are recorded, not followed."""
    durable.send_event("test/start")
    list(ingest_events())
    return engine.run()


def claimed(run: Run) -> Claim:
    """Claim the run for a worker that then dies."""
    claim = get_store().claim(run.id, owner="dies", lease=LEASE)
    assert claim is not None
    return claim


def crash(engine: Engine, run: Run) -> None:
    """Let a worker take the run and die, and the pause after that go by."""
    claimed(run)
    clock.move(LEASE)
    engine.scheduler.look()
    clock.move(5 * get_settings().rehint)


# What is due


def test_a_queued_run_is_hinted_again_after_doubling_pauses(engine: Engine, recorder: RecordingDriver) -> None:
    plain(engine)
    run = queued(engine)
    pauses = []
    for _ in range(9):
        run.refresh_from_db()
        pauses.append(round(in_seconds(run.next_at)))
        clock.move(datetime.timedelta(seconds=in_seconds(run.next_at)))
        recorder.taken()

        engine.scheduler.look()
        assert recorder.taken() == [("default", [run.id], False)]

        engine.scheduler.look()
        assert recorder.taken() == []
    assert pauses == pytest.approx([10, 10, 20, 40, 80, 160, 320, 600, 600], rel=0.2)


def test_a_sleeping_run_is_woken_when_it_is_due(engine: Engine, recorder: RecordingDriver) -> None:
    engine.function(queue="slow")(lambda event, step: step.sleep("nap", "1h"))
    run = queued(engine)
    work(None)
    clock.move(datetime.timedelta(minutes=59))
    recorder.taken()

    engine.scheduler.look()
    assert (engine.run().status, recorder.taken()) == ("waiting", [])

    clock.move(datetime.timedelta(minutes=1))
    engine.scheduler.look()
    assert (engine.run().status, recorder.taken()) == ("queued", [("slow", [run.id], False)])


def test_another_worker_goes_on_with_the_run_of_a_dead_one(engine: Engine) -> None:
    calls = []

    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        step.run("first", calls.append, "first")
        step.sleep("nap", "1h")
        step.run("second", calls.append, "second")

    run = engine.start()
    get_store().wake([run.id], rehint=LEASE)
    claimed(run)

    engine.advance("14s")
    assert (engine.run().status, engine.run().owner) == ("running", "dies")

    engine.advance("1s")
    assert (engine.run().status, engine.run().waiting_kind) == ("waiting", "sleep")
    assert engine.advance("1h").status == "completed"
    assert calls == ["first", "second"]


def test_a_dead_lease_is_freed_and_hinted_at_once_and_counts_as_a_crash(
    engine: Engine, recorder: RecordingDriver
) -> None:
    plain(engine)
    run = queued(engine)
    claim = claimed(run)
    recorder.taken()
    clock.move(LEASE)

    engine.scheduler.look()

    run.refresh_from_db()
    assert (run.status, run.crashes, run.fence, run.owner) == ("queued", 1, claim.fence + 1, "")
    assert recorder.taken() == [("default", [run.id], False)]


def test_a_live_run_is_never_changed(engine: Engine, recorder: RecordingDriver) -> None:
    plain(engine)
    run = queued(engine)
    claimed(run)
    before = Run.objects.filter(id=run.id).values().get()
    recorder.taken()

    for _ in range(3):
        clock.move(datetime.timedelta(seconds=4))
        engine.scheduler.look()

    assert Run.objects.filter(id=run.id).values().get() == before
    assert recorder.taken() == []


def test_a_clock_that_steps_back_makes_leases_and_sleeps_longer_and_loses_none(
    engine: Engine, recorder: RecordingDriver
) -> None:
    engine.function()(lambda event, step: step.sleep("nap", "1h"))
    sleeping = queued(engine)
    work(None)
    dead = queued(engine)
    claimed(dead)

    clock.move(datetime.timedelta(hours=-2))
    engine.settle()
    assert statuses(sleeping, dead) == ["waiting", "running"]

    clock.move(datetime.timedelta(hours=2) + LEASE)
    engine.settle()
    assert statuses(sleeping, dead) == ["waiting", "waiting"]
    for _ in range(2):
        clock.move(datetime.timedelta(hours=1))
        engine.settle()
    assert statuses(sleeping, dead) == ["completed", "completed"]


def statuses(*runs: Run) -> list[str]:
    """Return the status of each run as stored."""
    return [Run.objects.get(id=run.id).status for run in runs]


def test_crashes_with_progress_in_between_do_not_poison(engine: Engine, recorder: RecordingDriver) -> None:
    engine.function()(lambda event, step: [step.sleep("nap", "1h") for _ in range(3)])
    run = queued(engine)
    for _ in range(2):
        for _ in range(4):
            crash(engine, run)
        work(None)
        clock.move(datetime.timedelta(hours=1))
        engine.scheduler.look()

    run.refresh_from_db()
    assert (run.status, run.crashes) == ("queued", 0)


def test_a_run_whose_function_left_the_code_goes_on_when_it_is_back(engine: Engine, recorder: RecordingDriver) -> None:
    plain(engine)
    run = queued(engine)
    known = dict(registry._functions)
    registry._functions.clear()
    work(None)
    run.refresh_from_db()
    assert (run.status, run.waiting_kind) == ("waiting", "code")
    assert run.function_id in run.waiting_for

    engine.advance("1m")
    assert engine.run().status == "waiting"
    registry._functions.update(known)

    assert engine.advance("1m").status == "completed"


def test_a_function_that_is_missing_costs_no_attempt_and_gives_none_back(engine: Engine) -> None:
    @engine.function(retries=1, backoff="1s")
    def fn(event: durable.Event, step: durable.Step) -> None:
        raise ValueError

    engine.start()
    known = dict(registry._functions)
    registry._functions.clear()
    engine.advance("1s")
    registry._functions.update(known)

    assert engine.advance("1m").status == "failed"


# Many at once


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a scheduler handle two due runs at once, so that a few are many."""
    monkeypatch.setattr(scheduler, "BATCH", 2)


def test_more_than_a_batch_is_handled_without_a_pause(
    engine: Engine, recorder: RecordingDriver, small_batches: None
) -> None:
    engine.function()(lambda event, step: step.sleep("nap", "1h"))
    for _ in range(5):
        queued(engine)
    work(None)
    clock.move(datetime.timedelta(hours=1))

    pauses = [engine.scheduler.look() for _ in range(3)]

    assert pauses[:2] == [0.0, 0.0]
    assert pauses[2] > 0
    assert Run.objects.filter(status="queued").count() == 5


@pytest.mark.parametrize("fate", ["sleeps", "its worker died"])
def test_a_flood_of_one_queue_keeps_no_run_of_another_waiting(
    engine: Engine, recorder: RecordingDriver, small_batches: None, fate: str
) -> None:
    engine.function("slow", queue="slow", trigger="test/slow")(lambda event, step: step.sleep("nap", "15s"))
    durable.send_event("test/slow")
    list(ingest_events())
    run = engine.run()
    if fate == "sleeps":
        work("slow")
    else:
        claimed(run)
    flood(engine, 20)
    clock.move(datetime.timedelta(seconds=16))
    recorder.taken()

    engine.scheduler.look()

    run.refresh_from_db()
    assert run.status == "queued"
    assert ("slow", [run.id], False) in recorder.taken()
    assert Run.objects.due().filter(queue="default").count() == 18


def test_a_flood_is_read_past_once_in_a_poll(
    engine: Engine, recorder: RecordingDriver, small_batches: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = SimpleNamespace(seconds=1_000.0)
    monkeypatch.setattr(scheduler, "time", SimpleNamespace(monotonic=lambda: now.seconds))
    flood(engine, 20)
    clock.move(datetime.timedelta(seconds=10))

    statements = []
    for _ in range(4):
        with CaptureQueriesContext(connection) as captured:
            engine.scheduler.look()
        statements.append(len(captured))
        now.seconds += 0.6 * POLL

    assert statements[1] == statements[3]
    assert statements[2] == statements[1] + 1


def flood(engine: Engine, count: int) -> None:
    """Start many runs and leave them in their queue."""
    plain(engine)
    durable.send_events(durable.Event("test/start") for _ in range(count))
    list(ingest_events())


def test_events_are_hinted_however_many_time_outs_wait_for_them(
    engine: Engine, recorder: RecordingDriver, small_batches: None
) -> None:
    stored_before_time_outs(engine)
    recorder.taken()

    engine.scheduler.look()

    assert ("default", [], True) in recorder.taken()


def test_time_outs_that_cannot_be_decided_hold_up_nobody(
    engine: Engine, recorder: RecordingDriver, small_batches: None
) -> None:
    engine.function("sleeps", trigger="test/sleep")(lambda event, step: step.sleep("nap", "2h"))
    durable.send_event("test/sleep")
    stored_before_time_outs(engine)
    clock.move(datetime.timedelta(hours=1))

    for _ in range(3):
        engine.scheduler.look()

    assert Run.objects.get(function__slug="sleeps").status == "queued"
    assert Run.objects.filter(status="waiting").count() == 3


def stored_before_time_outs(engine: Engine) -> None:
    """Let three waits expire while an event received before is not ingested."""
    engine.function()(lambda event, step: step.wait_for_event("wait", "test/reply", timeout="1h"))
    for _ in range(3):
        queued(engine)
    work(None)
    at = clock.now() + datetime.timedelta(minutes=30)
    Event.objects.create(id=uuid7(), name="test/other", ts=at, received_at=at, ingest_at=at)
    clock.move(datetime.timedelta(hours=1))


# Events that nobody ingested


def test_events_whose_hint_was_lost_are_hinted_after_growing_pauses(
    engine: Engine, recorder: RecordingDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = SimpleNamespace(seconds=1_000)
    monkeypatch.setattr(scheduler, "time", SimpleNamespace(monotonic=lambda: now.seconds))
    durable.send_event("test/start")
    recorder.taken()
    hinted = []
    for second in range(200):
        now.seconds = 1_000 + second
        engine.scheduler.look()
        hinted += [second for hint in recorder.taken() if hint == ("default", [], True)]

    assert hinted == [0, 2, 6, 14, 30, 62, 122, 182]


def test_nothing_is_hinted_when_every_event_is_ingested(engine: Engine, recorder: RecordingDriver) -> None:
    plain(engine)
    queued(engine)
    recorder.taken()

    engine.scheduler.look()

    assert recorder.taken() == []


# When it looks again


def test_it_pauses_until_the_next_alarm(engine: Engine) -> None:
    engine.function()(lambda event, step: step.sleep("nap", "10s"))
    assert engine.scheduler.look() == POLL
    engine.start()
    assert engine.scheduler.look() == POLL

    clock.move(datetime.timedelta(seconds=9.5))

    assert 0.0 < engine.scheduler.look() <= 0.5


def test_it_pauses_until_the_next_future_event(engine: Engine) -> None:
    durable.send_event("test/start", ts=clock.now() + datetime.timedelta(seconds=10))
    clock.move(datetime.timedelta(seconds=9.5))

    assert 0.0 < engine.scheduler.look() <= 0.5


# Who leads


@pytest.fixture
def impatient(engine: Engine) -> Iterator[RecordingDriver]:
    """Hint queued runs every second, so that a look of whoever leads is seen."""
    with override_settings(DURABLE={"DRIVER": "tests.engine.conftest.RecordingDriver", "REHINT": 0.5}):
        driver = get_driver()
        assert isinstance(driver, RecordingDriver)
        yield driver


def test_one_of_two_leads_and_the_other_changes_nothing(engine: Engine, impatient: RecordingDriver) -> None:
    plain(engine)
    run = queued(engine)
    leader, other = Scheduler(), Scheduler()
    leader.look()
    for _ in range(4):
        clock.move(LEADERSHIP * 0.8)
        impatient.taken()

        other.look()
        assert impatient.taken() == []

        leader.look()
        assert impatient.taken() in ([("default", [run.id], False)], [])
    assert in_seconds(engine.run().next_at) > 0


def test_the_deputy_takes_over_when_the_leader_is_late_and_looks_only_then(
    engine: Engine, impatient: RecordingDriver
) -> None:
    plain(engine)
    leader, deputy = Scheduler(), Scheduler()
    leader.look()
    run = queued(engine)
    impatient.taken()

    patience = deputy.look()
    assert LEADERSHIP.total_seconds() - 1 < patience <= LEADERSHIP.total_seconds()
    clock.move(datetime.timedelta(seconds=patience))

    deputy.look()
    assert impatient.taken() == [("default", [run.id], False)]
    clock.move(LEADERSHIP - datetime.timedelta(seconds=0.5))
    leader.look()
    assert impatient.taken() == []


def test_of_many_schedulers_one_watches_the_leader_and_the_others_the_deputy(
    engine: Engine, recorder: RecordingDriver
) -> None:
    leader, deputy, *others = (Scheduler() for _ in range(5))
    leader.look()
    deputy.look()

    pauses = [other.look() for other in others]

    assert all(DEPUTYSHIP.total_seconds() - 1 < pause < DEPUTYSHIP.total_seconds() + 1 for pause in pauses)
    assert len(set(pauses)) == len(pauses)


def test_another_takes_over_when_leader_and_deputy_are_gone(engine: Engine, impatient: RecordingDriver) -> None:
    plain(engine)
    run = queued(engine)
    for _ in range(2):
        Scheduler().look()
    other = Scheduler()
    impatient.taken()
    clock.move(datetime.timedelta(seconds=other.look()))

    other.look()

    assert impatient.taken() == [("default", [run.id], False)]


def test_an_idle_look_is_one_statement(
    engine: Engine, recorder: RecordingDriver, on_postgresql: None, django_assert_num_queries: Any
) -> None:
    engine.function()(lambda event, step: step.sleep("nap", "1h"))
    queued(engine)
    work(None)
    schedulers = [Scheduler() for _ in range(3)]
    for known in (False, True):
        for scheduler_ in schedulers:
            with django_assert_num_queries(1) if known else nullcontext():
                scheduler_.look()


def test_after_an_outage_workers_get_a_moment_to_renew_their_leases(
    engine: Engine, recorder: RecordingDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = SimpleNamespace(seconds=1_000)
    monkeypatch.setattr(scheduler, "time", SimpleNamespace(monotonic=lambda: now.seconds))
    plain(engine)
    run = queued(engine)
    claimed(run)
    clock.move(LEASE)
    engine.scheduler.spare_leases()

    engine.scheduler.look()
    assert engine.run().status == "running"

    now.seconds += SPARED
    engine.scheduler.look()
    assert engine.run().status == "queued"


# The loop


def test_it_registers_functions_and_works_until_it_is_stopped(engine: Engine, recorder: RecordingDriver) -> None:
    plain(engine)
    run = queued(engine)
    clock.move(datetime.timedelta(seconds=10))
    Function.objects.filter(id=run.function_id).update(code_version="old")
    stop = threading.Event()
    thread = threading.Thread(target=scheduler.run, args=(stop,))
    thread.start()
    try:
        wait_until(lambda: ("default", [run.id], False) in recorder.hints)
    finally:
        stop.set()
        thread.join()

    assert Function.objects.get(id=run.function_id).code_version != "old"


@pytest.mark.parametrize("text", ["django_durable_function", "django_durable_lock", "django_durable_run"])
def test_an_error_of_the_database_does_not_stop_it(
    engine: Engine,
    recorder: RecordingDriver,
    text: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(scheduler, "POLL", 0.01)
    plain(engine)
    run = queued(engine)
    clock.move(datetime.timedelta(seconds=10))
    stop = threading.Event()

    def schedule() -> None:
        with connection.execute_wrapper(failing(text, times=2)):
            scheduler.run(stop)

    thread = threading.Thread(target=schedule)
    with caplog.at_level(logging.WARNING, "django_durable"):
        thread.start()
        try:
            wait_until(lambda: ("default", [run.id], False) in recorder.hints)
        finally:
            stop.set()
            thread.join()

    assert "cannot use the database" in caplog.text


def test_an_outage_may_last_for_days() -> None:
    assert LONGEST_OUTAGE_PAUSE / 2 <= scheduler._pause_after(100_000) <= LONGEST_OUTAGE_PAUSE


class Pauses(threading.Event):
    """Takes no time, and keeps how long each pause was and what was asked of the database before it."""

    def __init__(self, then: Callable[[int], None]) -> None:
        super().__init__()
        self.seconds: list[float] = []
        self.statements: list[int] = []
        self.asked = 0
        self._then = then

    def count(self, run: Callable[..., object], *statement: Any) -> object:
        """Stand between the scheduler and its database."""
        self.asked += 1
        return run(*statement)

    def wait(self, timeout: float | None = None) -> bool:
        """Note the pause, and do what the test does then."""
        self.seconds.append(timeout or 0.0)
        self.statements.append(self.asked)
        self.asked = 0
        self._then(len(self.seconds))
        return self.is_set()


def test_a_database_that_takes_no_writes_is_left_alone_for_longer_and_longer(
    engine: Engine, recorder: RecordingDriver, read_only: ReadOnly, caplog: pytest.LogCaptureFixture
) -> None:
    plain(engine)
    run = queued(engine)
    clock.move(datetime.timedelta(seconds=10))

    def then(number: int) -> None:
        if number == 9:
            read_only.end()
        if number == 10:
            pauses.set()

    pauses = Pauses(then)
    read_only.begin()
    recorder.taken()
    with caplog.at_level(logging.WARNING, "django_durable"), connection.execute_wrapper(pauses.count):
        scheduler.run(pauses)

    longest = [min(LONGEST_OUTAGE_PAUSE, POLL * 2**number) for number in range(9)]
    assert [limit / 2 <= pause <= limit for pause, limit in zip(pauses.seconds, longest, strict=False)] == [True] * 9
    assert max(pauses.statements[:9]) < 10
    assert caplog.text.count("cannot use the database") == 9
    assert ("default", [run.id], False) in recorder.taken()
    assert pauses.seconds[9] <= POLL


def test_while_it_pauses_it_keeps_no_connection_that_a_fork_could_close(engine: Engine) -> None:
    seen = []

    class Stop(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            seen.append(connection.connection is not None)
            self.set()
            return True

    thread = threading.Thread(target=scheduler.run, args=(Stop(),))
    thread.start()
    thread.join()

    assert seen == [connection.vendor == "postgresql"]


def test_timers_of_a_second_fire_on_time(engine: Engine) -> None:
    with override_settings(DURABLE={"DRIVER": "inline"}):
        engine.function()(lambda event, step: step.sleep("nap", "300ms"))
        stop = threading.Event()
        thread = threading.Thread(target=scheduler.run, args=(stop,))
        run = engine.start()
        due = time.monotonic() + in_seconds(run.next_at)
        thread.start()
        try:
            wait_until(lambda: engine.run().status == "completed")
            late = time.monotonic() - due
        finally:
            stop.set()
            thread.join()

    assert -0.05 < late < 2.0
