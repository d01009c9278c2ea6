"""Turns of async handlers: steps of every kind side by side, while bodies of some still run."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.db import connection, transaction
from django.test import override_settings

import django_durable as durable
from django_durable.core import clock
from django_durable.core.durations import parse_duration
from django_durable.engine.leases.leases import Lease, worker_name
from django_durable.engine.store.stores import get_store
from django_durable.engine.workers.advance import advance_async
from django_durable.engine.workers.ingest import ingest_events
from django_durable.engine.workers.work import work
from django_durable.models import Run, Step, StepAttempt
from tests.engine.conftest import Engine, RecordingDriver, failure_of, in_seconds
from tests.testapp.models import Author

calls: list[Any] = []


@pytest.fixture(autouse=True)
def _no_calls() -> Iterator[None]:
    calls.clear()
    yield
    calls.clear()


def plain(value: Any = None) -> Any:
    calls.append(value)
    return value


async def soon(value: Any = None) -> Any:
    calls.append(value)
    await asyncio.sleep(0.001)
    return value


async def forever() -> None:
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        calls.append("cancelled")
        raise


async def fails() -> None:
    calls.append("fails")
    raise ValueError("no")


async def opens(gate: asyncio.Event, value: Any = None) -> Any:
    gate.set()
    return await soon(value)


async def passes(gate: asyncio.Event, value: Any = None) -> Any:
    await gate.wait()
    return await soon(value)


async def move(duration: str) -> None:
    """Let time pass, in the body of a step, once the turn has opened what else was asked for."""
    await sync_to_async(clock.move)(parse_duration(duration))


async def receive(name: str, data: dict[str, Any] | None = None) -> None:
    """Let an event come in, in the body of a step."""
    await durable.asend_event(name, data)
    await sync_to_async(lambda: list(ingest_events()))()


def queued() -> Run:
    """Start a run and leave it in its queue."""
    durable.send_event("test/start")
    list(ingest_events())
    return Run.objects.get()


def held(run: Run) -> Lease:
    """Claim the run."""
    claim = get_store().claim(run.id, owner=worker_name(), lease=parse_duration("15s"))
    assert claim is not None
    return Lease(claim, 1e9)


def turns(run: Run) -> int:
    """Return in how many turns the run came to its end, which raises the fence once more."""
    return run.fence - 1


async def first_of(*tasks: asyncio.Task[Any]) -> str:
    """Return the name of the task that is done first, and cancel the others."""
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    return "+".join(sorted(task.get_name() for task in done))


# Side by side


def test_steps_of_every_kind_go_on_side_by_side(engine: Engine) -> None:
    @engine.function("child", trigger=None)
    async def child(event: Any, step: Any) -> Any:
        await step.sleep("nap", "30m")
        return await step.run("double", soon, event.data["n"] * 2)

    @engine.function()
    async def fn(event: Any, step: Any) -> Any:
        async def napping(duration: str) -> Any:
            await step.sleep(f"nap {duration}", duration)
            return await step.run(f"after {duration}", soon, duration)

        found = await asyncio.gather(
            step.run("async", soon, "async"),
            step.run("plain", plain, "plain"),
            step.options(thread=True).run("thread", plain, "thread"),
            step.atomic("atomic", plain, "atomic"),
            napping("1h"),
            napping("3h"),
            step.wait_for_event("reply", "test/reply", timeout="1d"),
            step.wait_for_event("nothing", "test/nothing", timeout="2h"),
            step.wait_for_signal("signal", "approve", timeout="90m"),
            step.invoke("child", child, {"n": 7}),
            step.send_event("send", durable.Event("test/sent")),
        )
        return [each.data if isinstance(each, durable.Event) else each for each in found[:-1]]

    engine.start()
    run = Run.objects.get(function=fn.id)
    first, waiting = set(calls), run.status
    durable.send_event("test/reply", {"x": 1})
    for _ in range(8):
        engine.advance("30m")

    run.refresh_from_db()
    assert (first, waiting) == ({"async", "plain", "thread", "atomic"}, "waiting")
    assert run.output == '["async","plain","thread","atomic","1h","3h",{"x":1},null,null,14]'
    assert sorted(map(str, calls)) == sorted(["async", "plain", "thread", "atomic", "14", "1h", "3h"])


def test_bodies_of_one_gather_wait_for_one_another(engine: Engine) -> None:
    one, two = asyncio.Event(), asyncio.Event()

    @engine.function()
    async def fn(event: Any, step: Any) -> Any:
        async def second() -> str:
            await one.wait()
            two.set()
            return "second"

        async def first() -> str:
            one.set()
            await two.wait()
            return "first"

        return await asyncio.gather(step.run("a", first), step.run("b", second))

    assert engine.start().output == '["first","second"]'


def test_each_line_of_work_goes_on_as_soon_as_its_own_step_is_done(engine: Engine) -> None:
    gate = asyncio.Event()

    @engine.function()
    async def fn(event: Any, step: Any) -> Any:
        async def quick() -> Any:
            for turn in range(3):
                await step.run(f"quick {turn}", soon, turn)
                await step.run(f"plain {turn}", plain, turn)
            return await step.run("last", opens, gate, "quick")

        return await asyncio.gather(step.run("slow", passes, gate, "slow"), quick())

    assert engine.start().output == '["slow","quick"]'


def test_results_are_recorded_one_by_one(engine: Engine) -> None:
    seen: list[Any] = []

    @engine.function()
    async def fn(event: Any, step: Any) -> None:
        async def look() -> int:
            return await Step.objects.filter(status="completed").acount()

        await step.run("first", soon)
        seen.append(await step.run("look", look))

    engine.start()

    assert seen == [1]


def test_a_plain_body_may_wait_for_async_code_while_async_bodies_use_the_database(engine: Engine) -> None:
    async def counts() -> int:
        return await Run.objects.acount() + await Run.objects.acount()

    @engine.function()
    async def fn(event: Any, step: Any) -> Any:
        bodies = [step.run("count", counts) for _ in range(3)]
        return await asyncio.gather(*bodies, step.run("plain", async_to_sync(counts)))

    assert engine.start().output == "[2,2,2,2]"


def test_async_code_of_the_handler_may_read_the_database(engine: Engine) -> None:
    @engine.function()
    async def fn(event: Any, step: Any) -> Any:
        found = [run.status async for run in Run.objects.all()]
        return [found, await asyncio.to_thread(Run.objects.count)]

    assert engine.start().output == '[["running"],1]'


def test_a_body_may_start_runs_of_other_async_functions(engine: Engine) -> None:
    @engine.function("other", trigger="test/other")
    async def other(event: Any, step: Any) -> Any:
        return await step.run("body", soon, event.data["n"])

    @engine.function()
    async def fn(event: Any, step: Any) -> Any:
        return await step.run("send", durable.asend_event, "test/other", {"n": 7})

    engine.start()

    assert dict(Run.objects.values_list("function__slug", "status")) == {"fn": "completed", "other": "completed"}


def test_bodies_see_the_context_variables_of_the_task_that_called_them(engine: Engine) -> None:
    tenant = contextvars.ContextVar("tenant", default="none")

    async def asynchronous() -> str:
        return tenant.get()

    @engine.function()
    async def fn(event: Any, step: Any) -> Any:
        async def of(name: str) -> Any:
            tenant.set(name)
            return [await step.run(f"async {name}", asynchronous), await step.run(f"plain {name}", tenant.get)]

        return [*await asyncio.gather(of("a"), of("b")), tenant.get()]

    assert engine.start().output == '[["a","a"],["b","b"],"none"]'


@pytest.mark.parametrize("body", [soon, lambda value: soon(value), sync_to_async(plain)])
def test_an_async_step_function_works_in_a_plain_handler(engine: Engine, body: Any) -> None:
    engine.function()(lambda event, step: step.run("body", body, 7))

    assert engine.start().output == "7"


@pytest.mark.parametrize("thread", [True, False])
def test_a_function_that_returns_an_awaitable_is_waited_for(engine: Engine, thread: bool) -> None:
    @engine.function()
    async def fn(event: Any, step: Any) -> Any:
        steps = step.options(thread=thread)
        return await asyncio.gather(steps.run("a", lambda: soon("a")), steps.run("b", sync_to_async(plain), "b"))

    assert engine.start().output == '["a","b"]'


def test_a_function_in_a_thread_of_its_own_runs_beside_others_and_closes_its_connection(engine: Engine) -> None:
    barrier = threading.Barrier(2, timeout=10)
    used: list[Any] = []

    def count() -> int:
        barrier.wait()
        number = Run.objects.count()
        used.append((threading.get_ident(), connection.connection is not None, connection._connections["default"]))  # type: ignore[attr-defined]
        return number

    @engine.function()
    async def fn(event: Any, step: Any) -> Any:
        steps = step.options(thread=True)
        return await asyncio.gather(steps.run("a", count), steps.run("b", count))

    assert engine.start().output == "[1,1]"
    assert len({ident for ident, *_ in used} - {threading.get_ident()}) == 2
    assert [(was_open, wrapper.connection) for _, was_open, wrapper in used] == [(True, None)] * 2


def test_an_atomic_step_is_written_with_its_record_or_not_at_all(engine: Engine) -> None:
    def write(name: str) -> None:
        Author.objects.create(name=name)
        if name == "bad":
            raise ValueError("no")

    @engine.function(retries=0)
    async def fn(event: Any, step: Any) -> Any:
        found = await asyncio.gather(
            step.atomic("bad", write, "bad"), step.atomic("good", write, "good"), return_exceptions=True
        )
        return [isinstance(each, durable.StepError) for each in found]

    assert engine.start().output == "[true,false]"
    assert [author.name for author in Author.objects.all()] == ["good"]


# What comes due or is settled while a body runs


def test_an_event_that_comes_while_a_body_runs_lets_its_wait_go_on(engine: Engine) -> None:
    gate = asyncio.Event()

    @engine.function()
    async def fn(event: Any, step: Any) -> Any:
        async def waiting() -> Any:
            reply = await step.wait_for_event("reply", "test/reply", timeout="1d")
            return await step.run("after", opens, gate, reply.data["n"])

        return await asyncio.gather(
            step.run("slow", passes, gate, "slow"), waiting(), step.run("mail", receive, "test/reply", {"n": 7})
        )

    run = engine.start()

    assert (run.output, turns(run)) == ('["slow",7,null]', 1)


def test_a_wait_that_times_out_while_a_body_runs_goes_on(engine: Engine) -> None:
    gate = asyncio.Event()

    @engine.function()
    async def fn(event: Any, step: Any) -> Any:
        async def waiting() -> Any:
            reply = await step.wait_for_event("reply", "test/reply", timeout="1h")
            return await step.run("after", opens, gate, reply)

        return await asyncio.gather(step.run("slow", passes, gate, "slow"), waiting(), step.run("move", move, "2h"))

    run = engine.start()

    assert (run.output, turns(run)) == ('["slow",null,null]', 1)


def test_a_sleep_that_ends_while_a_body_runs_goes_on(engine: Engine) -> None:
    gate = asyncio.Event()

    @engine.function()
    async def fn(event: Any, step: Any) -> Any:
        async def sleeping() -> Any:
            await step.sleep("nap", "1h")
            return await step.run("after", opens, gate, "slept")

        return await asyncio.gather(step.run("slow", passes, gate, "slow"), sleeping(), step.run("move", move, "2h"))

    run = engine.start()

    assert (run.output, turns(run)) == ('["slow","slept",null]', 1)


@pytest.mark.parametrize("kind", ["async", "plain"])
def test_a_back_off_that_ends_while_a_body_runs_leads_to_the_next_attempt(engine: Engine, kind: str) -> None:
    gate = asyncio.Event()

    def flaky() -> str:
        calls.append("flaky")
        if calls.count("flaky") == 1:
            raise ValueError("no")
        return "third time lucky"

    async def async_flaky() -> str:
        return flaky()

    @engine.function(backoff="1h")
    async def fn(event: Any, step: Any) -> Any:
        async def retrying() -> Any:
            found = await step.run("flaky", async_flaky if kind == "async" else flaky)
            return await step.run("after", opens, gate, found)

        async def moving() -> None:
            await step.run("wait", soon)
            await step.run("wait more", soon)
            await step.run("move", move, "2h")

        return await asyncio.gather(step.run("slow", passes, gate, "slow"), retrying(), moving())

    run = engine.start()

    assert (run.output, turns(run)) == ('["slow","third time lucky",null]', 1)
    assert StepAttempt.objects.filter(name="flaky", status="failed").count() == 1


def test_what_was_settled_first_is_handed_out_first(engine: Engine) -> None:
    @engine.function()
    async def fn(event: Any, step: Any) -> Any:
        wait = asyncio.create_task(step.wait_for_event("reply", "test/reply", timeout="1d"), name="wait")
        # The body returns right after the event was received: its own result comes later in the history.
        body = asyncio.create_task(step.run("body", receive, "test/reply"), name="body")
        first = await first_of(wait, body)
        await step.sleep("nap", "1h")
        return [first, await step.run(f"after {first}", soon, first)]

    engine.start()
    run = engine.advance("2h")

    assert run.output == '["wait","wait"]'


def test_steps_that_are_waited_for_no_more_do_not_wake_the_run(engine: Engine) -> None:
    @engine.function()
    async def fn(event: Any, step: Any) -> Any:
        tasks = [asyncio.create_task(step.sleep("long", "1h")), asyncio.create_task(step.run("body", soon))]
        await first_of(*tasks)
        await step.sleep("longer", "3h")

    run = engine.start()

    assert run.status == "waiting"
    assert round(in_seconds(run.next_at) / 3600) == 3


# Parking


def test_a_run_with_several_open_steps_parks_once_until_the_earliest(engine: Engine) -> None:
    @engine.function()
    async def fn(event: Any, step: Any) -> Any:
        async def line(name: str, duration: str) -> None:
            await step.sleep(name, duration)
            await step.run(f"after {name}", soon, name)

        await asyncio.gather(
            line("three", "3h"),
            line("one", "1h"),
            step.wait_for_event("two", "test/reply", timeout="2h"),
        )

    hours = []
    run = engine.start()
    while run.status == "waiting":
        hours.append(round(in_seconds(run.next_at) / 3600))
        run = engine.advance("1h")

    assert (run.status, hours, calls) == ("completed", [1, 1, 1], ["one", "three"])
    assert turns(run) == 4


def test_a_run_that_was_woken_for_nothing_parks_again(engine: Engine) -> None:
    @engine.function()
    async def fn(event: Any, step: Any) -> Any:
        await asyncio.gather(step.sleep("nap", "1h"), step.wait_for_event("reply", "test/reply", timeout="3h"))

    before = engine.start()
    Run.objects.update(status="queued", ready_at=clock.now(), next_at=None)
    work(None)

    run = engine.run()
    assert (run.status, run.next_at, run.fence) == ("waiting", before.next_at, before.fence + 1)


def test_a_handler_that_waits_for_no_step_fails(engine: Engine) -> None:
    @engine.function()
    async def fn(event: Any, step: Any) -> None:
        await step.run("body", soon)
        await asyncio.Event().wait()

    run = engine.start()

    assert run.status == "failed"
    assert "waits for something that is no step" in failure_of(run).message


# Giving way


def test_without_checkpoints_bodies_that_run_are_recorded_before_the_run_gives_way(engine: Engine) -> None:
    gate = asyncio.Event()

    @engine.function(checkpoint=False)
    async def fn(event: Any, step: Any) -> Any:
        async def line() -> Any:
            await step.run("quick", opens, gate, "quick")
            return await step.run("after", soon, "after")

        return await asyncio.gather(step.run("slow", passes, gate, "slow"), line())

    run = engine.start()

    assert (run.output, turns(run)) == ('["slow","after"]', 2)
    assert sorted(calls) == ["after", "quick", "slow"]


def test_a_turn_whose_budget_is_spent_gives_way_and_repeats_nothing(engine: Engine) -> None:
    @engine.function()
    async def fn(event: Any, step: Any) -> Any:
        async def line(name: str) -> None:
            for kind, body in (("async", soon), ("plain", plain)):
                await step.run(f"{kind} {name}", body, f"{kind} {name}")

        await asyncio.gather(*map(line, "abc"))

    with override_settings(DURABLE={"DRIVER": "inline", "TURN_BUDGET": 0.000001}):
        run = engine.start()

    assert run.status == "completed"
    assert turns(run) > 1
    assert sorted(calls) == ["async a", "async b", "async c", "plain a", "plain b", "plain c"]


def test_a_worker_that_is_told_to_stop_ends_its_bodies_and_hands_the_run_on(
    engine: Engine, recorder: RecordingDriver
) -> None:
    @engine.function()
    async def fn(event: Any, step: Any) -> Any:
        async def line(name: str) -> None:
            await step.run(f"first {name}", soon, f"first {name}")
            await step.run(f"second {name}", soon, f"second {name}")

        await asyncio.gather(line("a"), line("b"))

    run = queued()
    work("default", [run.id], should_stop=lambda: len(calls) >= 2)

    run.refresh_from_db()
    assert (run.status, run.steps, run.crashes, calls) == ("queued", 2, 0, ["first a", "first b"])
    work("default")
    assert engine.run().status == "completed"
    assert calls[2:] == ["second a", "second b"]


# Losing the run


def test_a_run_that_is_cancelled_while_bodies_run_keeps_their_values_as_discarded(engine: Engine) -> None:
    async def cancel() -> str:
        await sync_to_async(durable.cancel_run)(engine_run)
        return "cancelled it"

    @engine.function()
    async def fn(event: Any, step: Any) -> Any:
        nonlocal engine_run
        engine_run = step.run_id
        await asyncio.gather(step.run("cancel", cancel), step.run("slow", forever), step.run("idle", forever))

    engine_run = ""
    run = engine.start()

    assert (run.status, calls) == ("cancelled", ["cancelled", "cancelled"])
    discarded = StepAttempt.objects.filter(run=run)
    assert list(discarded.values_list("name", "status", "output")) == [("cancel", "discarded", '"cancelled it"')]


def test_every_value_that_is_there_when_the_run_is_lost_is_kept(engine: Engine) -> None:
    gate = asyncio.Event()

    @engine.function()
    async def fn(event: Any, step: Any) -> Any:
        async def cancel() -> str:
            await sync_to_async(durable.cancel_run)(step.run_id)
            gate.set()
            return "cancelled it"

        async def stubborn() -> str:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                return "finished all the same"
            return ""

        await asyncio.gather(step.run("cancel", cancel), step.run("stubborn", stubborn))

    run = engine.start()

    assert run.status == "cancelled"
    assert dict(StepAttempt.objects.filter(run=run, status="discarded").values_list("name", "output")) == {
        "cancel": '"cancelled it"',
        "stubborn": '"finished all the same"',
    }


def test_a_handler_of_a_lost_run_is_unwound(engine: Engine) -> None:
    @engine.function()
    async def fn(event: Any, step: Any) -> Any:
        try:
            await step.run("cancel", sync_to_async(durable.cancel_run), step.run_id)
        finally:
            calls.append("unwound")

    assert engine.start().status == "cancelled"
    assert calls == ["unwound"]


def test_a_worker_that_is_killed_softly_in_a_body_hands_its_run_on_at_once(
    engine: Engine, recorder: RecordingDriver
) -> None:
    async def dies() -> None:
        raise SystemExit

    @engine.function()
    async def fn(event: Any, step: Any) -> Any:
        await asyncio.gather(step.run("dies", dies), step.run("slow", forever))

    run = queued()
    with pytest.raises(SystemExit):
        work("default")

    run.refresh_from_db()
    assert (run.status, run.attempt, run.crashes, calls) == ("queued", 0, 0, ["cancelled"])
    assert in_seconds(run.ready_at) < 1
    gc.collect()  # asyncio logs an error that nobody fetched when its task is collected: here, not in a later test.


# Ending


@pytest.mark.parametrize("winner", [plain, soon], ids=["plain", "async"])
def test_a_handler_that_returns_while_a_body_runs_cancels_it(engine: Engine, winner: Callable[..., Any]) -> None:
    @engine.function()
    async def fn(event: Any, step: Any) -> Any:
        loser = asyncio.create_task(step.run("loser", forever), name="loser")
        return await first_of(loser, asyncio.create_task(step.run("winner", winner, "won"), name="winner"))

    run = engine.start()

    assert (run.status, run.output) == ("completed", '"winner"')
    assert set(calls) <= {"won", "cancelled"}
    assert list(run.step_set.values_list("name", flat=True)) == ["winner"]
    assert not StepAttempt.objects.exists()


def test_a_handler_that_raises_while_a_body_runs_cancels_it_and_is_tried_again(engine: Engine) -> None:
    @engine.function(retries=1, backoff="1m")
    async def fn(event: Any, step: Any) -> Any:
        task = asyncio.create_task(step.run("slow", forever))
        await step.run("quick", soon, "quick")
        task.cancel()
        raise ValueError("no")

    run = engine.start()
    assert (run.status, run.waiting_kind, run.attempt) == ("waiting", "retry", 1)

    run = engine.advance("2m")
    assert (run.status, failure_of(run).message) == ("failed", "no")
    assert calls.count("quick") == 1


def test_a_failed_step_that_nobody_catches_fails_the_run(engine: Engine) -> None:
    @engine.function(retries=0)
    async def fn(event: Any, step: Any) -> Any:
        async with asyncio.TaskGroup() as group:
            group.create_task(step.run("bad", fails))
            group.create_task(step.run("slow", forever))

    run = engine.start()

    assert run.status == "failed"
    assert calls == ["fails", "cancelled"]


def test_a_body_that_cancels_itself_has_failed(engine: Engine) -> None:
    async def cancels_itself() -> None:
        raise asyncio.CancelledError

    @engine.function(retries=0)
    async def fn(event: Any, step: Any) -> Any:
        try:
            await step.run("body", cancels_itself)
        except durable.StepError as error:
            return error.message

    assert engine.start().output == '"The step\'s function cancelled itself"'


def test_a_new_run_is_started_in_place_of_this_one_while_bodies_run(engine: Engine) -> None:
    @engine.function()
    async def fn(event: Any, step: Any) -> Any:
        if event.data.get("again"):
            return "new"
        task = asyncio.create_task(step.run("slow", forever))
        await step.run("quick", soon, "quick")
        await step.continue_as_new({"again": True})
        return task

    run = engine.start()

    assert (run.output, sorted(calls)) == ('"new"', ["cancelled", "quick"])
    assert [each.status for each in Run.objects.all()] == ["completed", "completed"]


def test_an_async_function_handles_the_failure_of_an_async_function(engine: Engine) -> None:
    @engine.function(retries=0)
    async def fn(event: Any, step: Any) -> Any:
        await step.run("bad", fails)

    @fn.on_failure
    async def clean_up(event: Any, step: Any) -> Any:
        return await step.run("note", soon, event.error.message)

    engine.start()

    assert "no" in (Run.objects.get(function=clean_up.id).output or "")


# Limits


def test_a_time_out_interrupts_an_async_body(engine: Engine) -> None:
    @engine.function()
    async def fn(event: Any, step: Any) -> Any:
        try:
            await step.options(timeout="0.01s", retries=0).run("slow", forever)
        except durable.StepError as error:
            return error.message

    run = engine.start()

    assert run.output == '"The attempt took longer than its timeout of 0:00:00.010000"'
    assert calls == ["cancelled"]


def test_a_time_out_of_the_body_s_own_is_its_error(engine: Engine) -> None:
    async def gives_up() -> None:
        async with asyncio.timeout(0.001):
            await asyncio.Event().wait()

    @engine.function()
    async def fn(event: Any, step: Any) -> Any:
        try:
            await step.options(timeout="1h", retries=0).run("slow", gives_up)
        except durable.StepError as error:
            return error.type

    assert engine.start().output == '"builtins.TimeoutError"'


@pytest.mark.parametrize("kind", ["async", "plain", "sleep"])
def test_one_step_too_many_fails_the_run_before_it_begins_however_many_are_under_way(engine: Engine, kind: str) -> None:
    @engine.function()
    async def fn(event: Any, step: Any) -> Any:
        if kind == "sleep":
            await asyncio.gather(*(step.sleep("nap", "1h") for _ in range(4)))
        await asyncio.gather(*(step.run("body", soon if kind == "async" else plain, number) for number in range(4)))

    with override_settings(DURABLE={"DRIVER": "inline", "MAX_STEPS": 3}):
        run = engine.start()

    assert run.status == "failed"
    assert failure_of(run).type.endswith("TooManySteps")
    assert 3 not in calls
    assert not run.step_set.filter(ordinal=3)


# Refusals


@pytest.mark.parametrize("kind", ["async", "plain", "atomic"])
def test_a_step_inside_a_step_fails_the_run_with_an_error_that_names_both(engine: Engine, kind: str) -> None:
    @engine.function()
    async def fn(event: Any, step: Any) -> Any:
        def plain_body() -> Any:
            return step.run("inner", plain)

        async def async_body() -> Any:
            return await step.run("inner", soon)

        if kind == "atomic":
            await step.atomic("outer", plain_body)
        await step.run("outer", async_body if kind == "async" else plain_body)

    run = engine.start()

    assert run.status == "failed"
    assert failure_of(run).type.endswith("NestedStep")
    assert "inner" in failure_of(run).message
    assert "outer" in failure_of(run).message


def test_a_value_that_cannot_be_stored_fails_its_step_at_once(engine: Engine) -> None:
    async def bad() -> Any:
        calls.append("bad")
        return object()

    @engine.function()
    async def fn(event: Any, step: Any) -> Any:
        await step.run("bad", bad)

    run = engine.start()

    assert (run.status, calls) == ("failed", ["bad"])
    assert "cannot be stored" in failure_of(run).message


def test_a_body_that_leaves_a_transaction_open_has_failed_and_is_rolled_back(engine: Engine) -> None:
    def leave_open() -> None:
        transaction.set_autocommit(False)
        Author.objects.create(name="lost")

    @engine.function(retries=0)
    async def fn(event: Any, step: Any) -> Any:
        try:
            await step.run("open", sync_to_async(leave_open))
        except durable.StepError as error:
            return error.message

    run = engine.start()

    assert run.output is not None
    assert "left a transaction open; it was rolled back" in run.output
    assert not Author.objects.exists()


def test_a_turn_is_played_by_hand_too(engine: Engine, recorder: RecordingDriver) -> None:
    @engine.function()
    async def fn(event: Any, step: Any) -> Any:
        return await step.run("body", soon, 7)

    advance_async(held(queued()))

    assert engine.run().output == "7"


def test_what_others_settled_before_an_own_result_is_handed_out_before_it(engine: Engine) -> None:
    async def reply_and_return() -> None:
        await sync_to_async(durable.send_event)("test/reply")
        await sync_to_async(lambda: list(ingest_events()))()

    @engine.function()
    async def fn(event: durable.Event, step: durable.AsyncStep) -> list[str]:
        order: list[str] = []

        async def note(name: str, call: Any) -> None:
            await call
            order.append(name)

        await asyncio.gather(
            note("body", step.run("body", reply_and_return)),
            note("reply", step.wait_for_event("reply", "test/reply", timeout="1d")),
        )
        return order

    run = engine.start()

    assert [*run.step_set.order_by("seq").values_list("name", flat=True)] == ["reply", "body"]
    assert run.output == '["reply","body"]'
