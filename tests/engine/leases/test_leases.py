"""A worker's hold on a run: renewed while it works, and refused everywhere once it is lost."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connection
from django.test import override_settings

import django_durable as durable
from django_durable.core import clock
from django_durable.core.durations import parse_duration
from django_durable.core.processes import per_process
from django_durable.core.replay.interrupts import LeaseLost
from django_durable.core.replay.operations import StepKind, StepStatus, step_key
from django_durable.engine.leases import leases
from django_durable.engine.leases.leases import Heartbeat, Lease, worker_name
from django_durable.engine.store.rows import STOPPING, Parking, StepRow
from django_durable.engine.store.stores import get_store
from django_durable.engine.workers.advance import advance, advance_async
from django_durable.engine.workers.ingest import ingest_events
from django_durable.engine.workers.work import work
from django_durable.models import Run, Step, StepAttempt
from tests.behaviours.racing import wait_until
from tests.engine.conftest import Engine, RecordingDriver, failing

LENGTH = parse_duration("15s")


def queued() -> Run:
    """Start a run and leave it in its queue."""
    durable.send_event("test/start")
    list(ingest_events())
    return Run.objects.get()


def held(run: Run, *, age: float = 0.0) -> Lease:
    """Claim the run; the lease is as if claimed so many seconds ago."""
    claim = get_store().claim(run.id, owner=worker_name(), lease=LENGTH)
    assert claim is not None
    return Lease(claim, time.monotonic() - age)


def memo(name: str = "s") -> StepRow:
    """Return a memo to write."""
    now = clock.now()
    return StepRow(
        key=step_key("", name, 0),
        name=name,
        ordinal=0,
        kind=StepKind.RUN,
        status=StepStatus.COMPLETED,
        planned_at=now,
        finished_at=now,
        output="1",
    )


def lose(run: Run) -> None:
    """Let the run's lease run out and another worker take it."""
    clock.move(LENGTH)
    assert get_store().claim(run.id, owner="another", lease=LENGTH)


# A lease that is lost


@pytest.fixture
def calls(engine: Engine, recorder: RecordingDriver, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Register a function whose step notes that it was called; only the test's own beats meet leases made old."""
    silent = Heartbeat()
    silent._thread = threading.current_thread()
    monkeypatch.setattr(leases, "_heartbeat", lambda: silent)
    called: list[str] = []
    engine.function()(lambda event, step: step.run("body", called.append, "body"))
    return called


def test_no_body_starts_after_the_end_of_the_lease(calls: list[str]) -> None:
    run = queued()

    advance(held(run, age=15))

    run.refresh_from_db()
    assert (calls, run.status, run.crashes) == ([], "queued", 0)


def test_no_body_of_an_async_handler_starts_after_the_end_of_the_lease(calls: list[str]) -> None:
    async def body() -> None:
        calls.append("async")

    async def handler(event: Any, step: Any) -> None:
        await asyncio.gather(step.run("async", body), step.run("plain", calls.append, "plain"))

    durable.function("async", trigger="test/start")(handler)
    durable.send_event("test/start")
    list(ingest_events())
    run = Run.objects.get(function__slug="async")

    advance_async(held(run, age=15))

    run.refresh_from_db()
    assert (calls, run.status, run.crashes) == ([], "queued", 0)


def test_no_body_starts_whose_transaction_took_the_rest_of_the_lease_to_begin(
    engine: Engine, recorder: RecordingDriver
) -> None:
    if connection.vendor != "sqlite":
        pytest.skip("only SQLite executes a statement to begin a transaction")
    called: list[str] = []
    slow: list[str] = []

    def slowly(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if called and "django_durable_lock" in sql:
            slow.append(sql)
            lease._until = 0
        return execute(sql, params, many, context)

    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        step.run("first", called.append, "first")  # whose record renews the lease
        step.atomic("body", called.append, "body")

    lease = held(queued())
    with connection.execute_wrapper(slowly):
        advance(lease)

    assert slow
    assert called == ["first"]
    assert not StepAttempt.objects.exists()


def test_a_body_starts_while_the_lease_lasts(calls: list[str]) -> None:
    advance(held(queued(), age=14))

    assert calls == ["body"]


def test_recording_makes_the_lease_last(calls: list[str]) -> None:
    lease = held(queued(), age=14.9)

    lease.record(memo())

    lease._until -= 7
    lease.check()
    lease._until -= 1
    with pytest.raises(LeaseLost):
        lease.check()


def test_every_write_of_a_lost_lease_is_refused(calls: list[str]) -> None:
    run = queued()
    lease = held(run)
    lose(run)
    before = Run.objects.filter(id=run.id).values().get()

    with pytest.raises(LeaseLost):
        lease.record(memo())
    with pytest.raises(LeaseLost):
        lease.park(Parking(next_at=None, kind="event", text="x"))
    assert lease.release() is False

    assert Run.objects.filter(id=run.id).values().get() == before
    assert not Step.objects.exists()


@pytest.mark.parametrize("kind", ["run", "atomic"])
def test_a_value_that_comes_after_the_run_was_lost_is_kept_as_discarded(
    engine: Engine, recorder: RecordingDriver, kind: str
) -> None:
    numbers = iter((1, 2))

    def body() -> int:
        number = next(numbers)
        if number == 1:
            in_another_thread(take_over)
        return number

    def take_over() -> None:
        clock.move(LENGTH)
        engine.scheduler.look()
        work(None)

    if kind == "atomic" and connection.vendor == "sqlite":
        pytest.skip("SQLite has one writer, so nobody takes over while a transaction is open")
    engine.function()(lambda event, step: getattr(step, kind)("body", body))
    queued()

    work(None)

    run = engine.run()
    assert (run.status, run.output, run.crashes) == ("completed", "2", 0)
    assert Step.objects.get().output == "2"
    kept = StepAttempt.objects.get()
    assert (kept.status, kept.output, kept.name) == ("discarded", "1", "body")


def in_another_thread(function: Callable[[], None]) -> None:
    """Run it with a connection of its own."""

    def run() -> None:
        try:
            function()
        finally:
            connection.close()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()


# The heartbeat


@pytest.fixture
def short(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """Give leases of a second, so that a turn of two outlasts them, and a heartbeat of that pace."""
    monkeypatch.setattr(leases, "_heartbeat", per_process(Heartbeat))
    with override_settings(DURABLE={"DRIVER": "inline", "LEASE": "1s"}):
        yield engine


def test_a_turn_that_outlasts_its_lease_keeps_it(short: Engine) -> None:
    owners = []

    def slow() -> str:
        until = time.monotonic() + 1.6
        while time.monotonic() < until:
            time.sleep(0.05)
            short.scheduler.look()
            owners.append(Run.objects.values_list("status", "fence").get())
        return "done"

    short.function()(lambda event, step: step.run("slow", slow))

    run = short.start()

    assert set(owners) == {("running", 1)}
    assert (run.status, run.output, run.crashes) == ("completed", '"done"', 0)


def test_a_short_turn_is_not_renewed(engine: Engine) -> None:
    seen = []
    engine.function()(lambda event, step: seen.append(list(leases._heartbeat()._leases)))

    engine.start()

    ((lease,),) = seen
    assert lease.since < time.monotonic()
    assert not leases._heartbeat().keeps_any()


def test_an_error_of_the_database_does_not_stop_the_heartbeat(short: Engine) -> None:
    run = first_claim(short)
    beats = []

    class Beating(Heartbeat):
        def _renew(self, held_leases: list[Lease]) -> None:
            beats.append(1)
            with connection.execute_wrapper(failing("django_durable_run", times=int(len(beats) == 1))):
                super()._renew(held_leases)

    heartbeat = Beating()
    claim = get_store().claim(run.id, owner="me", lease=parse_duration("1s"))
    assert claim is not None
    lease = Lease(claim, time.monotonic())
    heartbeat.keep(lease)
    try:
        since = lease.since
        wait_until(lambda: lease.since > since)
    finally:
        heartbeat.drop(lease)
    assert len(beats) >= 2


# Whose fault it was


def test_a_worker_that_was_frozen_takes_back_the_crash_when_its_turn_ends(
    engine: Engine, recorder: RecordingDriver
) -> None:
    def freeze() -> None:
        in_another_thread(expired)

    def expired() -> None:
        clock.move(LENGTH)
        engine.scheduler.look()
        assert Run.objects.get().crashes == 1

    engine.function()(lambda event, step: step.run("body", freeze))
    run = queued()

    advance(held(run))

    run.refresh_from_db()
    assert (run.status, run.crashes) == ("queued", 0)


def test_a_worker_that_was_frozen_takes_back_the_crash_with_its_next_beat_and_only_once(calls: list[str]) -> None:
    run = queued()
    lease, heartbeat = held(run, age=8), Heartbeat()
    heartbeat._leases.add(lease)
    lose(run)
    lose(run)
    assert Run.objects.get().crashes == 2

    heartbeat.beat()
    heartbeat.beat()
    lease.give_back()

    assert Run.objects.get().crashes == 1


def test_a_run_that_the_database_did_not_take_back_is_given_back_when_it_answers(calls: list[str]) -> None:
    run = queued()
    lease = held(run)
    with connection.execute_wrapper(failing("django_durable_run")):
        lease.give_back()
    assert Run.objects.get().status == "running"

    leases._heartbeat().beat()
    leases._heartbeat().beat()

    assert (Run.objects.get().status, Run.objects.get().crashes) == ("queued", 0)


def test_a_turn_that_lost_its_database_for_longer_than_its_lease_has_not_crashed(calls: list[str]) -> None:
    run = queued()
    lease = held(run)
    with connection.execute_wrapper(failing("django_durable_run")):
        lease.give_back()
    lose(run)
    assert Run.objects.get().crashes == 1

    leases._heartbeat().beat()

    assert (Run.objects.get().owner, Run.objects.get().crashes) == ("another", 0)


def test_what_a_worker_holds_that_is_told_to_stop_is_marked_once(calls: list[str]) -> None:
    run, told = queued(), [False]
    lease, heartbeat = held(run), Heartbeat()
    lease.should_stop = lambda: told[0]
    heartbeat._leases.add(lease)
    heartbeat.beat()
    assert Run.objects.get().owner == worker_name()

    told[0] = True
    heartbeat.beat()
    heartbeat.beat()

    assert Run.objects.get().owner == f"{worker_name()}{STOPPING}"
    assert lease.release()


def test_a_lease_that_was_lost_is_not_renewed(calls: list[str]) -> None:
    run = queued()
    lease = held(run, age=8)
    lose(run)
    next_at = Run.objects.get().next_at

    Heartbeat()._renew([lease])

    assert Run.objects.get().next_at == next_at
    assert time.monotonic() - lease.since > 7


def test_dropping_a_lease_leaves_a_later_one_of_the_same_run(calls: list[str]) -> None:
    run, heartbeat = queued(), Heartbeat()
    old = held(run)
    lose(run)
    new = Lease(old.claim, time.monotonic())
    heartbeat.keep(old)
    heartbeat.keep(new)

    heartbeat.drop(old)
    assert heartbeat.keeps_any()

    heartbeat.drop(new)
    assert not heartbeat.keeps_any()


def first_claim(engine: Engine) -> Run:
    """Start a run that sleeps, and make it ready again."""
    engine.function()(lambda event, step: step.sleep("nap", "1h"))
    run = engine.start()
    get_store().wake([run.id], rehint=LENGTH)
    return run
