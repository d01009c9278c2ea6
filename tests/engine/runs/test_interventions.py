"""What people settle by hand: waits, sleeps and back-offs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from django.db import transaction
from django.test import override_settings

import django_durable as durable
from django_durable.core import clock
from django_durable.engine.runs import interventions, timers
from django_durable.engine.workers.ingest import ingest_events
from django_durable.engine.workers.work import work
from django_durable.models import Event, Run, Step, Wait
from tests.behaviours.racing import Balance, Track
from tests.engine.conftest import Engine


@pytest.fixture
def waits(engine: Engine) -> None:
    """Register a function that waits for approval and returns what it got."""

    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> Any:
        came = step.wait_for_event("approval", "test/approved", match="data.id", timeout="1h")
        return came and [came.name, came.data, came.user]


@pytest.fixture
def calls_child(engine: Engine) -> None:
    """Register a parent that waits for a child that sleeps."""

    @durable.function("child")
    def child(event: durable.Event, step: durable.Step) -> str:
        step.sleep("nap", "1d")
        return "from the child"

    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> Any:
        try:
            return step.invoke("call", child, timeout="7d")
        except durable.InvokeTimeout as error:
            return f"timeout: {error.message}"


def parent() -> Run:
    return Run.objects.get(function="project/fn")


# Answering a wait


def test_a_wait_is_answered_with_an_event_of_the_name_it_waits_for(engine: Engine, waits: None) -> None:
    run = engine.start({"id": 7})

    assert durable.resolve_wait(run.id, "approval", {"by": "Ada", "id": 8}) is True

    run = engine.run()
    assert (run.status, run.output) == ("completed", '["test/approved",{"by":"Ada","id":8},null]')
    answer = Event.objects.get(resolved_steps__run=run)
    assert (answer.name, answer.source, answer.data) == ("test/approved", "admin", {"by": "Ada", "id": 8})
    assert not Wait.objects.exists()


def test_a_wait_is_answered_without_data(engine: Engine, waits: None) -> None:
    durable.resolve_wait(str(engine.start({"id": 7}).id), "approval")

    assert engine.run().output == '["test/approved",{},null]'


def test_an_answer_starts_nothing_and_no_other_wait_looks_back_to_it(engine: Engine, waits: None) -> None:
    engine.function("listener", trigger="test/approved")(lambda event, step: None)

    @engine.function("later")
    def later(event: durable.Event, step: durable.Step) -> None:
        step.sleep("nap", "10m")
        step.wait_for_event("any", "test/approved", timeout="1h")

    durable.send_event("test/start", {"id": 7})
    durable.resolve_wait(parent().id, "approval", {"id": 7})
    engine.advance("30m")

    assert parent().status == "completed"
    assert Run.objects.get(function="project/later").waiting_kind == "event"
    assert not Run.objects.filter(function="project/listener").exists()


def test_an_answer_to_a_wildcard_has_the_name_that_was_waited_for(engine: Engine) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> Any:
        came = step.wait_for_event("any", "test/*", timeout="1h", lookback=False)
        return came and came.name

    durable.resolve_wait(engine.start().id, "any")

    assert engine.run().output == '"test/*"'


def test_an_invoked_run_is_answered_for_and_goes_on(engine: Engine, calls_child: None) -> None:
    durable.send_event("test/start")

    assert durable.resolve_wait(parent().id, "call", ["by", "hand"]) is True
    engine.advance("1d")

    child = Run.objects.get(parent=parent())
    assert (parent().status, parent().output) == ("completed", '["by","hand"]')
    assert (child.status, child.output) == ("completed", '"from the child"')


@pytest.mark.parametrize("data", [[1], "text", 7])
def test_an_event_whose_data_is_no_object_is_refused_and_settles_nothing(
    engine: Engine, waits: None, data: Any
) -> None:
    run = engine.start({"id": 7})

    with pytest.raises(durable.InvalidEvent):
        durable.resolve_wait(run.id, "approval", data)

    assert (engine.run().status, Event.objects.count()) == ("waiting", 1)


def test_an_answer_that_cannot_be_stored_is_refused_and_settles_nothing(engine: Engine, calls_child: None) -> None:
    durable.send_event("test/start")

    with pytest.raises(durable.EncodingError):
        durable.resolve_wait(parent().id, "call", {"f": open})

    assert parent().status == "waiting"


def test_an_answer_is_rolled_back_with_its_transaction(engine: Engine, waits: None) -> None:
    run = engine.start({"id": 7})

    with transaction.atomic():
        durable.resolve_wait(run.id, "approval")
        transaction.set_rollback(True)

    assert (engine.run().status, Wait.objects.count(), Event.objects.count()) == ("waiting", 1, 1)


# Timing out


def test_a_wait_times_out_now(engine: Engine, waits: None) -> None:
    run = engine.start({"id": 7})

    assert durable.time_out_wait(run.id, "approval") is True

    assert (engine.run().status, engine.run().output, Wait.objects.count()) == ("completed", "null", 0)


def test_an_invocation_times_out_now_and_its_run_goes_on(engine: Engine, calls_child: None) -> None:
    durable.send_event("test/start")

    assert durable.time_out_wait(parent().id, "call") is True

    assert parent().output == '"timeout: project/child did not end in time; its run goes on"'
    assert Run.objects.get(parent=parent()).status == "waiting"


# What cannot be settled


@pytest.mark.parametrize("settle", [durable.resolve_wait, durable.time_out_wait])
def test_what_was_settled_before_stays(engine: Engine, settle: Callable[..., bool]) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        step.wait_for_event("wait", "test/reply", timeout="1h")
        step.sleep("nap", "1h")

    run = engine.start()
    durable.send_event("test/reply", {"n": 7})
    before = Step.objects.values().get(name="wait"), Run.objects.values().get()

    assert settle(run.id, "wait") is False
    assert (Step.objects.values().get(name="wait"), Run.objects.values().get()) == before


@pytest.mark.parametrize("settle", [durable.resolve_wait, durable.time_out_wait])
def test_a_run_that_has_ended_is_left(engine: Engine, waits: None, settle: Callable[..., bool]) -> None:
    run = engine.start({"id": 7})
    durable.cancel_run(run.id)

    assert settle(run.id, "approval") is False
    assert engine.run().status == "cancelled"


@pytest.mark.parametrize("settle", [durable.resolve_wait, durable.time_out_wait])
def test_a_step_that_is_not_there_is_refused_with_those_that_are(
    engine: Engine, waits: None, settle: Callable[..., bool]
) -> None:
    run = engine.start({"id": 7})

    with pytest.raises(durable.StepNotFound, match="has no step 'aproval'; its steps are 'approval'"):
        settle(run.id, "aproval")


@pytest.mark.parametrize("settle", [durable.resolve_wait, durable.time_out_wait])
def test_a_step_that_waits_for_no_event_is_refused_with_what_the_run_waits_for(
    engine: Engine, settle: Callable[..., bool]
) -> None:
    engine.function()(lambda event, step: step.sleep("nap", "1h"))
    run = engine.start()

    with pytest.raises(durable.NotWaiting) as refused:
        settle(run.id, "nap")

    assert str(refused.value) == (
        f"Run {run.id} does not wait for an event or a run in step nap; it waits for sleep: nap"
    )
    assert refused.value.waiting_for == "sleep: nap"


@pytest.mark.parametrize("settle", [durable.resolve_wait, durable.time_out_wait])
def test_a_step_of_no_run_is_not_found(engine: Engine, settle: Callable[..., bool]) -> None:
    with pytest.raises(durable.RunNotFound):
        settle(UUID(int=7), "a")


def test_the_second_use_of_an_id_is_named_with_its_ordinal(engine: Engine) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> Any:
        return [step.wait_for_event("wait", "test/reply", timeout="1h") is not None for _ in range(2)]

    run = engine.start()
    durable.time_out_wait(run.id, "wait")

    assert durable.resolve_wait(run.id, "wait") is False
    assert durable.resolve_wait(run.id, "wait#1") is True
    assert engine.run().output == "[false,true]"


# Waking and trying again


def test_a_sleep_ends_now(engine: Engine) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> str:
        step.sleep("nap", "1d")
        return "awake"

    run = engine.start()

    assert durable.wake_run(run.id) is True
    assert (engine.run().output, engine.step("nap").status) == ('"awake"', "completed")
    assert durable.wake_run(run.id) is False


def test_waking_one_sleep_leaves_the_next(engine: Engine) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        step.sleep("nap", "1d")
        step.sleep("nap", "1d")

    durable.wake_run(engine.start().id)

    assert engine.run().status == "waiting"
    assert engine.advance("1d").status == "completed"


def test_a_run_whose_function_was_missing_is_looked_at_again(engine: Engine) -> None:
    from django_durable.core.functions import registry

    fn = engine.function()(lambda event, step: step.sleep("nap", "1s"))
    run = engine.start()
    registry._functions.clear()
    assert engine.advance("2s").waiting_kind == "code"
    registry.add(fn)

    assert durable.wake_run(run.id) is True
    assert engine.run().status == "completed"


@pytest.mark.parametrize("where", ["step", "atomic step", "handler"])
def test_the_next_attempt_starts_now(engine: Engine, where: str) -> None:
    attempts: list[float] = []

    def work_at_last() -> str:
        attempts.append(clock.shifted_by.total_seconds())
        if len(attempts) < 3:
            raise ValueError("not yet")
        return "done"

    @engine.function(backoff="1d")
    def fn(event: durable.Event, step: durable.Step) -> str:
        if where == "handler":
            return work_at_last()
        return (step.atomic if where == "atomic step" else step.run)("work", work_at_last)

    run = engine.start()
    assert durable.retry_run(run.id) is True
    assert engine.run().status == "waiting"
    assert durable.retry_run(run.id) is True

    assert (engine.run().output, len(attempts)) == ('"done"', 3)
    assert durable.retry_run(run.id) is False


def test_trying_again_is_an_attempt_of_the_budget(engine: Engine) -> None:
    @engine.function(retries=2, backoff="1d")
    def fn(event: durable.Event, step: durable.Step) -> None:
        step.run("work", int, "no number")

    run = engine.start()
    durable.retry_run(run.id)
    durable.retry_run(run.id)

    assert (engine.run().status, engine.step("work").attempt) == ("failed", 3)


@pytest.mark.parametrize(
    ("pause", "act", "message"),
    [
        (lambda step: step.sleep("nap", "1h"), durable.retry_run, "another attempt; it waits for sleep: nap"),
        (lambda step: step.run("work", int, "x"), durable.wake_run, "a time to come; it waits for retry: attempt 2"),
        (
            lambda step: step.wait_for_event("wait", "test/reply", timeout="1h"),
            durable.wake_run,
            "a time to come; it waits for event: event test/reply",
        ),
    ],
    ids=["retry of a sleep", "wake of a retry", "wake of a wait"],
)
def test_a_run_that_waits_for_something_else_is_refused(
    engine: Engine, pause: Callable[[durable.Step], Any], act: Callable[..., bool], message: str
) -> None:
    engine.function(backoff="1h")(lambda event, step: pause(step))
    run = engine.start()

    with pytest.raises(durable.NotWaiting, match=message):
        act(run.id)
    assert engine.run().status == "waiting"


# Races


@pytest.fixture
def track(engine: Engine) -> Iterator[Track]:
    """Give threads to race on, with an engine where every hint is lost."""
    with override_settings(DURABLE={"DRIVER": "tests.engine.conftest.DeafDriver"}):
        track = Track()
        try:
            yield track
        finally:
            track.close()


def started(count: int) -> list[Run]:
    """Start runs with the ids 0, 1, … and let each wait."""
    durable.send_events(durable.Event("test/start", {"id": number}) for number in range(count))
    list(ingest_events())
    work(None)
    return list(Run.objects.filter(status="waiting").order_by("id"))


@pytest.mark.needs("postgresql")
def test_of_two_people_who_answer_at_once_one_does(track: Track, waits: None) -> None:
    for run in started(50):
        answers = track.race(
            partial(interventions.resolve_wait, run.id, "approval", {"n": 1}),
            partial(interventions.resolve_wait, run.id, "approval", {"n": 2}),
            partial(interventions.time_out_wait, run.id, "approval"),
        )

        run.refresh_from_db()
        assert sorted(answers) == [False, False, True]
        assert (run.status, run.steps, run.wakes) == ("queued", 1, 1)
    assert Event.objects.filter(source="admin").count() == Step.objects.filter(event__source="admin").count()


@pytest.mark.needs("postgresql")
def test_a_person_and_an_event_settle_a_wait_once(track: Track, waits: None) -> None:
    outcomes, balance = Counter[bool](), Balance()
    for number, run in enumerate(started(100)):
        durable.send_event("test/approved", {"id": number, "by": "event"})
        answer = partial(interventions.resolve_wait, run.id, "approval", {"by": "hand"})

        answered, _ = track.race(balance.first(answer), balance.second(lambda: list(ingest_events())))

        run.refresh_from_db()
        step = Step.objects.select_related("event").get(run=run)
        assert step.event is not None
        assert step.event.data["by"] == ("hand" if answered else "event")
        assert (run.status, run.steps, run.wakes) == ("queued", 1, 1)
        outcomes[answered] += 1
        balance.note(first_won=answered)
    assert set(outcomes) == {True, False}


@pytest.mark.needs("postgresql")
def test_a_person_and_the_clock_end_a_sleep_once(track: Track, engine: Engine) -> None:
    engine.function()(lambda event, step: step.sleep("nap", "1h"))
    runs = started(50)
    clock.move(timers.UNDECIDED_PAUSE * 7200)

    for run in runs:
        track.race(partial(interventions.wake_run, run.id), partial(timers.fire, [run.id]))

        run.refresh_from_db()
        assert (run.status, run.steps, run.wakes) == ("queued", 1, 1)
