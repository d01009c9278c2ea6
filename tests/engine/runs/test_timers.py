"""What is due: sleeps end, back-offs are over, invocations time out; decided by rows, in batches."""

from __future__ import annotations

import datetime

import pytest

import django_durable as durable
from django_durable.core import clock
from django_durable.engine.runs import ending, timers
from django_durable.models import Run, RunStatus
from tests.engine.conftest import Engine, RecordingDriver, in_seconds

HOUR = datetime.timedelta(hours=1)


def sleeper(duration: str = "1h") -> object:
    """Return a handler that sleeps once."""
    return lambda event, step: step.sleep("nap", duration)


@pytest.mark.parametrize(("moved", "status"), [(3599, "waiting"), (3600, "completed")])
def test_a_sleep_ends_when_its_time_is_over_and_no_sooner(engine: Engine, moved: int, status: str) -> None:
    engine.function()(sleeper())
    run = engine.start()
    assert (run.waiting_kind, run.waiting_for, round(in_seconds(run.next_at))) == ("sleep", "nap", 3600)

    assert engine.advance(moved).status == status


def test_a_sleep_that_ended_is_recorded_with_the_moment_it_was_for(engine: Engine) -> None:
    engine.function()(sleeper())
    until = engine.start().next_at

    engine.advance("3h")

    step = engine.step("nap")
    assert (step.status, step.next_at, step.seq) == ("completed", until, 1)


def test_sleeps_in_a_row_each_count_from_when_they_are_reached(engine: Engine) -> None:
    engine.function()(lambda event, step: [step.sleep("nap", "1h") for _ in range(2)])
    engine.start()

    assert engine.advance("90m").status == "waiting"
    assert round(in_seconds(engine.run().next_at) / 60) == 60
    assert engine.advance("1h").status == "completed"


def test_runs_of_one_moment_are_woken_together(engine: Engine, recorder: RecordingDriver) -> None:
    runs = due_runs(engine, 3)
    recorder.taken()

    timers.fire([run.id for run in runs])

    ((queue, hinted, _),) = recorder.taken()
    assert (queue, sorted(hinted)) == ("default", sorted(run.id for run in runs))
    assert set(Run.objects.values_list("status", "wakes", "steps")) == {("queued", 1, 1)}


def test_firing_twice_changes_nothing(engine: Engine, recorder: RecordingDriver) -> None:
    runs = due_runs(engine, 1)
    timers.fire([runs[0].id])
    before = list(Run.objects.values())
    recorder.taken()

    timers.fire([runs[0].id])

    assert list(Run.objects.values()) == before
    assert recorder.taken() == []


def test_a_run_whose_alarm_has_not_rung_is_left(engine: Engine) -> None:
    engine.function()(sleeper())
    run = engine.start()

    timers.fire([run.id])

    assert engine.run().status == "waiting"


@pytest.mark.parametrize("status", [RunStatus.QUEUED, RunStatus.RUNNING])
def test_a_run_that_does_not_wait_is_left(engine: Engine, recorder: RecordingDriver, status: str) -> None:
    (run,) = due_runs(engine, 1)
    Run.objects.filter(id=run.id).update(status=status, ready_at=clock.now())
    before = Run.objects.filter(id=run.id).values().get()

    timers.fire([run.id])

    assert Run.objects.filter(id=run.id).values().get() == before


def test_a_cancelled_sleeper_sleeps_on(engine: Engine, recorder: RecordingDriver) -> None:
    (run,) = due_runs(engine, 1)
    ending.cancel(run.id)

    timers.fire([run.id])

    assert engine.run().status == "cancelled"
    assert engine.step("nap").status == "waiting"


def test_a_back_off_that_is_over_makes_the_next_attempt(engine: Engine) -> None:
    calls = []

    def fails_twice() -> str:
        calls.append(1)
        if len(calls) < 3:
            raise ValueError
        return "done"

    engine.function(backoff="1m")(lambda event, step: step.run("try", fails_twice))
    engine.start()
    assert len(calls) == 1

    engine.advance("59s")
    assert len(calls) == 1
    engine.advance("1s")
    assert len(calls) == 2
    assert engine.advance("1m").output == '"done"'


def test_an_invocation_times_out_and_its_child_goes_on(engine: Engine) -> None:
    child = engine.function("child", trigger="test/never")(sleeper("3h"))

    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> str:
        try:
            return str(step.invoke("child", child, timeout="1h"))
        except durable.InvokeTimeout as error:
            return error.step_id

    engine.start()
    engine.advance("1h")

    assert Run.objects.get(function_id=fn.id).output == '"child"'
    assert Run.objects.get(function_id=child.id).status == "waiting"
    engine.advance("2h")
    assert Run.objects.get(function_id=child.id).status == "completed"


def test_timers_of_several_kinds_are_due_together(engine: Engine) -> None:
    engine.function("sleeps")(sleeper())
    engine.function("waits")(lambda event, step: step.wait_for_event("wait", "test/never", timeout="1h"))
    engine.function("tries", backoff="1h", retries=1)(lambda event, step: step.run("try", int, "none"))
    durable.send_event("test/start")

    engine.advance("1h")

    ended = dict(Run.objects.values_list("function__slug", "status"))
    assert ended == {"sleeps": "completed", "waits": "completed", "tries": "failed"}


def due_runs(engine: Engine, count: int) -> list[Run]:
    """Let runs sleep until their time is over, and leave them so."""
    from django_durable.engine.workers.work import work

    engine.function()(sleeper())
    durable.send_events(durable.Event("test/start") for _ in range(count))
    work(None, ingest=True)
    clock.move(HOUR)
    return list(Run.objects.filter(status="waiting"))
