"""Runs whose workers die again and again: they fail, and the error names the step that was under way."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

import django_durable as durable
from django_durable.conf import get_settings
from django_durable.core import clock
from django_durable.core.durations import parse_duration
from django_durable.engine.leases.leases import Lease
from django_durable.engine.store.rows import Claim
from django_durable.engine.store.stores import get_store
from django_durable.engine.workers.advance import advance
from django_durable.engine.workers.ingest import ingest_events
from django_durable.engine.workers.work import work
from django_durable.models import Run, Step
from tests.engine.conftest import Engine, RecordingDriver, failure_of

LEASE = parse_duration("15s")


def started() -> Run:
    """Start a run and leave it in its queue."""
    durable.send_event("test/start")
    list(ingest_events())
    return Run.objects.get()


def opened() -> Run:
    """Start a run and take it to where its branches are planned."""
    run = started()
    claim = take(run)
    assert claim is not None
    advance(Lease(claim, time.monotonic()))
    return run


def crash(engine: Engine, run: Run, times: int = 5) -> None:
    """Let so many workers take the run, or its branch, and die."""
    for _ in range(times):
        assert take(run)
        clock.move(LEASE)
        engine.scheduler.look()
        clock.move(5 * get_settings().rehint)
        engine.scheduler.look()


def take(run: Run) -> Claim | None:
    """Claim the run or, if it waits for a branch, that."""
    store = get_store()
    return store.claim(run.id, owner="dies", lease=LEASE) or store.claim_branch(run.id, owner="dies", lease=LEASE)


def ended(engine: Engine, run: Run) -> Run:
    """Let a worker that does not die do what is left to do."""
    work(None, [run.id])
    engine.advance("1m")
    run.refresh_from_db()
    return run


def test_the_run_fails_at_the_step_that_it_always_came_to_and_on_failure_runs_once(
    engine: Engine, recorder: RecordingDriver
) -> None:
    calls: list[Any] = []

    def on_failure(event: Any, step: durable.Step) -> None:
        calls.append(event.run_id)

    @engine.function(on_failure=on_failure)
    def fn(event: durable.Event, step: durable.Step) -> None:
        step.run("resize", calls.append, "first")
        step.sleep("nap", "1h")
        step.run("resize", calls.append, "second")
        step.run("later", calls.append, "later")

    run = at_the_second_step(engine)
    crash(engine, run)

    assert ended(engine, run).status == "failed"
    assert calls == ["first", str(run.id)]
    assert failure_of(run).type == "django_durable.exceptions.WorkerDied"
    assert "died 5 times in a row at 'resize#1'" in failure_of(run).message


def at_the_second_step(engine: Engine) -> Run:
    """Return a run that has come to its second step, after a nap."""
    run = started()
    work(None)
    clock.move(parse_duration("1h"))
    engine.scheduler.look()
    return run


def test_four_crashes_are_forgotten(engine: Engine, recorder: RecordingDriver) -> None:
    engine.function()(lambda event, step: step.run("works", int))
    run = started()

    crash(engine, run, times=4)

    run = ended(engine, run)
    assert (run.status, run.crashes) == ("completed", 0)


def test_a_run_that_has_every_step_recorded_ends_as_it_would(engine: Engine, recorder: RecordingDriver) -> None:
    engine.function()(lambda event, step: step.sleep("nap", "1h"))
    run = at_the_second_step(engine)

    crash(engine, run)

    assert ended(engine, run).status == "completed"


def test_code_of_the_handler_that_kills_its_worker_is_named_as_such(engine: Engine, recorder: RecordingDriver) -> None:
    calls: list[str] = []
    engine.function()(lambda event, step: calls.append("handler"))
    run = started()

    crash(engine, run, times=6)

    assert ended(engine, run).status == "failed"
    assert calls == []
    assert "died 6 times in a row in the handler's own code" in failure_of(run).message


def test_of_an_async_handler_every_step_that_was_under_way_is_named(engine: Engine, recorder: RecordingDriver) -> None:
    calls: list[str] = []

    async def look_up(name: str) -> None:
        calls.append(name)

    @engine.function()
    async def fn(event: Any, step: Any) -> None:
        await step.sleep("nap", "1h")
        waiting = asyncio.ensure_future(step.wait_for_event("reply", "test/reply", timeout="1d"))
        await asyncio.gather(step.run("address", look_up, "address"), step.run("stock", look_up, "stock"), waiting)

    run = at_the_second_step(engine)
    crash(engine, run)

    assert ended(engine, run).status == "failed"
    assert calls == []
    assert "died 5 times in a row at 'address', 'stock'." in failure_of(run).message


@pytest.mark.parametrize("leaf", [True, False])
def test_a_branch_whose_workers_die_fails_the_run_and_is_named(
    engine: Engine, recorder: RecordingDriver, leaf: bool
) -> None:
    calls: list[int] = []

    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        if leaf:
            step.map("resize", calls.append, [7])
        else:
            step.parallel(lambda: step.run("resize", calls.append, 7), int, id="resize")

    run = opened()
    crash(engine, run)

    assert ended(engine, run).status == "failed"
    assert calls == []
    assert "died 5 times in a row at 'resize#0/0'" in failure_of(run).message


def test_a_worker_that_goes_through_branches_leaves_one_that_crashed_to_a_turn_of_its_own(
    engine: Engine, recorder: RecordingDriver
) -> None:
    calls: list[int] = []
    engine.function()(lambda event, step: step.map("resize", calls.append, range(3)))
    run = opened()
    Step.objects.filter(kind="branch", ordinal=1).update(crashes=5)

    assert ended(engine, run).status == "failed"
    assert calls == [0]
    assert "'resize#0/1'" in failure_of(run).message
