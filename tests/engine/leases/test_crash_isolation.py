"""Which turns a process may have under way at once: the more often a run has crashed, the fewer."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import connection

import django_durable as durable
from django_durable.engine.leases import crash_isolation as module
from django_durable.engine.leases import leases
from django_durable.engine.leases.crash_isolation import Bulkhead, bulkhead, most_beside
from django_durable.engine.leases.leases import Lease
from django_durable.engine.store.rows import Claim
from django_durable.engine.store.stores import get_store
from django_durable.engine.workers.advance import advance
from django_durable.engine.workers.ingest import ingest_events
from django_durable.engine.workers.work import work
from django_durable.models import Run
from tests.behaviours.racing import wait_until
from tests.engine.conftest import Engine, RecordingDriver
from tests.engine.leases.test_leases import LENGTH


def lease(crashes: int = 0) -> Lease:
    """Return a lease of a run that crashed so often."""
    claim: Any = SimpleNamespace(crashes=crashes, attempt=0)
    return Lease(claim, 0.0)


def present(count: int, crashes: int = 0) -> tuple[Bulkhead, list[Lease]]:
    """Return a company of so many turns."""
    turns, here = Bulkhead(), [lease(crashes) for _ in range(count)]
    assert all(turns.admits(each) for each in here)
    return turns, here


@pytest.mark.parametrize(("crashes", "most"), [(2, 100), (3, 10), (4, 1), (5, 1), (9, 1)])
def test_the_more_often_a_run_has_crashed_the_fewer_are_beside_it(crashes: int, most: int) -> None:
    assert most_beside(crashes) == most
    turns, _ = present(most - 1)

    assert turns.admits(lease(crashes))

    assert not turns.is_open()
    assert not turns.admits(lease())


@pytest.mark.parametrize("crashes", [0, 1])
def test_a_first_crash_parts_nobody(crashes: int) -> None:
    turns, _ = present(2_000, crashes)

    assert turns.is_open()


def test_nobody_is_let_in_before_one_that_waits_for_company_to_go() -> None:
    turns, (first, second) = present(2)
    suspect = lease(4)
    assert not turns.admits(suspect)
    assert not turns.is_open()

    turns.leave(first)
    assert not turns.admits(suspect)
    turns.leave(second)

    assert turns.admits(suspect)
    turns.leave(suspect)
    assert turns.is_open()


def test_one_that_recorded_something_is_cleared() -> None:
    turns, (suspect,) = present(1, crashes=4)
    assert not turns.is_open()

    suspect.progressed()

    assert turns.admits(lease())


def test_a_run_that_waits_beside_others_keeps_its_lease_until_it_is_let_in() -> None:
    turns, (neighbour,) = present(1)
    claim: Any = SimpleNamespace(crashes=4, attempt=0)
    suspect, told, let_in = Lease(claim, time.monotonic()), threading.Event(), []

    def wait() -> None:
        with turns.of(suspect, told.is_set) as may_go_on:
            let_in.append(may_go_on)

    thread = threading.Thread(target=wait)
    thread.start()
    wait_until(lambda: suspect in leases._heartbeat()._leases)
    assert (let_in, suspect.should_stop()) == ([], False)
    turns.leave(neighbour)
    thread.join()

    assert let_in == [True]
    assert suspect not in leases._heartbeat()._leases
    told.set()
    assert suspect.should_stop(), "the heartbeat asks what the worker was told"


# Real turns


def queued(*crashes: int) -> list[Claim]:
    """Start runs that crashed so often, and claim them."""
    durable.send_events(durable.Event("test/start", {"n": number}) for number in range(len(crashes)))
    list(ingest_events())
    runs = list(Run.objects.order_by("id"))
    for run, count in zip(runs, crashes, strict=True):
        Run.objects.filter(id=run.id).update(crashes=count)
    claims = [get_store().claim(run.id, owner="me", lease=LENGTH) for run in runs]
    return [claim for claim in claims if claim is not None]


def in_thread(call: Callable[[], None]) -> threading.Thread:
    """Call it in a thread with a connection of its own."""

    def run() -> None:
        try:
            call()
        finally:
            connection.close()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def advancing(claim: Claim) -> threading.Thread:
    """Advance it in a thread of its own."""
    return in_thread(lambda: advance(Lease(claim, time.monotonic())))


def test_a_run_on_its_last_life_waits_until_its_process_has_nothing_else_to_lose(
    engine: Engine, recorder: RecordingDriver
) -> None:
    went_on, seen = threading.Event(), []

    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        step.run("body", lambda: event.data["n"] or went_on.wait(20))
        seen.append(event.data["n"])

    neighbour, suspect = queued(0, 4)
    threads = [advancing(neighbour)]
    wait_until(lambda: bulkhead()._present)
    threads.append(advancing(suspect))
    wait_until(lambda: bulkhead()._waiting)
    assert seen == []
    went_on.set()
    for thread in threads:
        thread.join()

    assert seen == [0, 1]
    assert Run.objects.filter(status="completed", crashes=0).count() == 2


def test_a_run_that_waits_for_company_to_go_is_given_back_when_the_worker_stops(
    engine: Engine, recorder: RecordingDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAUSE", 0.01)
    engine.function()(lambda event, step: None)
    (claim,) = queued(4)
    bulkhead().admits(lease())

    advance(Lease(claim, time.monotonic()), lambda: True)

    assert Run.objects.values_list("status", "crashes").get() == ("queued", 4)


def test_a_worker_claims_nothing_while_a_run_needs_its_process_for_itself(
    engine: Engine, recorder: RecordingDriver
) -> None:
    engine.function()(lambda event, step: None)
    durable.send_event("test/start")
    list(ingest_events())
    suspect = lease(4)
    bulkhead().admits(suspect)
    worker = in_thread(lambda: work("default"))
    worker.join(0.2)
    assert Run.objects.get().status == "queued"

    bulkhead().leave(suspect)
    worker.join()

    assert Run.objects.get().status == "completed"


def test_of_async_runs_one_that_crashed_often_is_in_flight_alone(engine: Engine, recorder: RecordingDriver) -> None:
    together: list[set[int]] = []
    here: set[int] = set()

    async def body(number: int) -> None:
        here.add(number)
        await asyncio.sleep(0.05)
        together.append(set(here))
        here.remove(number)

    @engine.function()
    async def fn(event: Any, step: Any) -> None:
        await step.run("body", body, event.data["n"])

    durable.send_events(durable.Event("test/start", {"n": number}) for number in range(3))
    list(ingest_events())
    Run.objects.filter(id=Run.objects.order_by("id")[1].id).update(crashes=4)

    work("default")

    assert {1} in together
    assert all(each == {1} or 1 not in each for each in together)
    assert Run.objects.filter(status="completed", crashes=0).count() == 3
