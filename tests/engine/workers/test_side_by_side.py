"""Async runs side by side: many in one event loop, with one database connection."""

from __future__ import annotations

import asyncio
import logging
import re
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import OperationalError, connection
from django.db.backends.signals import connection_created
from django.test import override_settings

import django_durable as durable
from django_durable.engine.workers.ingest import ingest_events
from django_durable.engine.workers.work import work
from django_durable.models import Run
from tests.behaviours.racing import PATIENCE
from tests.engine.conftest import Engine, RecordingDriver, failing, in_seconds

READY = re.compile(r"ready_at\W* <= ")  #: in a statement that looks for runs to take


def queued(count: int, name: str = "test/start") -> None:
    """Start runs and leave them in their queues."""
    durable.send_events(durable.Event(name, {"n": number}) for number in range(count))
    list(ingest_events())


def statuses() -> dict[str, int]:
    """Return how many runs have which status."""
    found = list(Run.objects.values_list("status", flat=True))
    return {status: found.count(status) for status in found}


class Meeting:
    """Bodies that wait for one another: none goes on before *size* of them are there."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.there = 0
        self.all_there = asyncio.Event()

    async def __call__(self) -> int:
        self.there += 1
        if self.there == self.size:
            self.all_there.set()
        await self.all_there.wait()
        return self.there


def test_a_thousand_runs_are_in_flight_at_the_same_time_on_one_connection(
    engine: Engine, recorder: RecordingDriver
) -> None:
    # SQLite takes many times as long for a commit.
    count = 1_000 if connection.vendor == "postgresql" else 100
    meeting, threads, opened = Meeting(count), set(), []

    async def meet() -> int:
        threads.add(threading.get_ident())
        return await meeting()

    @engine.function()
    async def fn(event: Any, step: Any) -> Any:
        return await step.run("meet", meet)

    def note(**kwargs: Any) -> None:
        opened.append(threading.current_thread().name)

    queued(count)
    connection_created.connect(note)
    try:
        with override_settings(DURABLE={"DRIVER": "tests.engine.conftest.RecordingDriver", "TURN_BUDGET": "1m"}):
            work("default")
    finally:
        connection_created.disconnect(note)

    assert statuses() == {"completed": count}
    assert [name for name in opened if name != "durable-heartbeat"] == []
    assert len(threads) == 1


@pytest.mark.needs("postgresql")
def test_bodies_that_use_the_database_share_the_workers_connection(
    engine: Engine, recorder: RecordingDriver, on_postgresql: None
) -> None:
    def backend() -> int:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            return int(cursor.fetchone()[0])

    meeting = Meeting(20)

    async def meet() -> int:
        await meeting()
        return await sync_to_async(backend)()

    @engine.function()
    async def fn(event: Any, step: Any) -> Any:
        return await step.run("meet", meet)

    queued(20)
    work("default")

    assert set(Run.objects.values_list("output", flat=True)) == {str(backend())}


def test_what_breaks_one_run_harms_none_beside_it(
    engine: Engine, recorder: RecordingDriver, caplog: pytest.LogCaptureFixture
) -> None:
    meeting = Meeting(5)

    @engine.function()
    async def fn(event: Any, step: Any) -> Any:
        await step.run("meet", meeting)
        return await step.run("breaks the database" if event.data["n"] == 2 else "works", int)

    queued(5)
    with caplog.at_level(logging.ERROR), connection.execute_wrapper(failing("breaks the database")):
        work("default")

    assert statuses() == {"completed": 4, "queued": 1}
    assert caplog.text.count("could not go on") == 1
    broken = Run.objects.get(status="queued")
    assert broken.attempt == 0
    assert 5 < in_seconds(broken.ready_at) <= 10


def test_runs_in_flight_outlast_an_outage_of_the_database(
    engine: Engine, recorder: RecordingDriver, caplog: pytest.LogCaptureFixture
) -> None:
    refused: list[str] = []
    in_flight = threading.Event()

    def outage(run: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
        if in_flight.is_set() and not refused and READY.search(sql):
            refused.append(sql)
            raise OperationalError("the server is shutting down")
        return run(sql, params, many, context)

    async def outlast() -> bool:
        in_flight.set()
        ends = time.monotonic() + PATIENCE
        while not refused and time.monotonic() < ends:
            await asyncio.sleep(0.01)
        return bool(refused)

    @engine.function()
    async def fn(event: Any, step: Any) -> Any:
        return await step.run("outlasts", outlast)

    queued(3)
    with caplog.at_level(logging.WARNING), connection.execute_wrapper(outage):
        work("default")

    assert [run.output for run in Run.objects.all()] == ["true"] * 3
    assert set(Run.objects.values_list("fence", flat=True)) == {2}
    assert "No further run could be taken" in caplog.text


def test_a_run_that_was_taken_away_harms_none_beside_it(engine: Engine, recorder: RecordingDriver) -> None:
    meeting = Meeting(3)

    @engine.function()
    async def fn(event: Any, step: Any) -> Any:
        await step.run("meet", meeting)
        if event.data["n"] == 1:
            await sync_to_async(durable.cancel_run)(step.run_id)
        return await step.run("after", int)

    queued(3)
    work("default")

    assert statuses() == {"completed": 2, "cancelled": 1}


def test_runs_are_taken_in_the_order_in_which_they_became_ready(engine: Engine, recorder: RecordingDriver) -> None:
    taken: list[int] = []
    meeting = Meeting(10)

    @engine.function()
    async def fn(event: Any, step: Any) -> Any:
        taken.append(event.data["n"])
        await step.run("meet", meeting)

    queued(10)
    work("default")

    assert taken == list(range(10))


def test_no_further_run_is_taken_once_the_budget_is_spent(engine: Engine, recorder: RecordingDriver) -> None:
    async def body() -> None:
        await asyncio.sleep(0.01)

    @engine.function()
    async def fn(event: Any, step: Any) -> Any:
        await step.run("body", body)

    queued(5)
    recorder.taken()
    with override_settings(
        DURABLE={"DRIVER": "tests.engine.conftest.RecordingDriver", "TURN_BUDGET": 0.000001, "CHECKPOINT": True}
    ):
        work("default")

    assert statuses().get("queued", 0) >= 4


def test_no_further_run_is_taken_once_the_worker_is_told_to_stop(engine: Engine, recorder: RecordingDriver) -> None:
    stopped: list[bool] = []

    @engine.function()
    async def fn(event: Any, step: Any) -> Any:
        stopped.append(True)
        await step.run("body", int)

    queued(50)
    work("default", should_stop=lambda: bool(stopped))

    assert statuses() == {"queued": 50}
    assert len(stopped) < 50


def test_plain_runs_are_left_to_whoever_is_free(engine: Engine, recorder: RecordingDriver) -> None:
    beside: list[int] = []

    async def look() -> None:
        beside.append(await Run.objects.filter(function__slug="plain", status="queued").acount())

    engine.function("plain", trigger="test/plain")(lambda event, step: None)

    @engine.function()
    async def fn(event: Any, step: Any) -> Any:
        await step.run("look", look)

    queued(1)
    queued(2, "test/plain")
    work("default")

    assert beside == [2]
    assert statuses() == {"completed": 3}


def test_a_run_that_becomes_ready_is_taken_while_others_are_in_flight(
    engine: Engine, recorder: RecordingDriver
) -> None:
    meeting = Meeting(2)

    @engine.function()
    async def fn(event: Any, step: Any) -> Any:
        if event.data.get("n") == 0:
            await step.run("start another", sync_to_async(queued), 1, "test/other")
        await step.run("meet", meeting)

    @engine.function("other", trigger="test/other")
    async def other(event: Any, step: Any) -> Any:
        await step.run("meet", meeting)

    queued(1)
    work("default")

    assert statuses() == {"completed": 2}
