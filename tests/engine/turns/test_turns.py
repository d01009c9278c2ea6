# ruff: noqa: SIM105 - the clauses are what is tested
"""One turn: passes over what is recorded, the suspension and what swallows it, and when the turn gives way."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from django.db import connection, transaction

import django_durable as durable
from django_durable.core.functions import registry
from django_durable.models import Function, Run, Step, StepAttempt
from tests.engine.conftest import Engine, failure_of, line_of


def nothing() -> None:
    """Do nothing."""


def test_a_handler_runs_its_steps_in_order_and_completes(engine: Engine) -> None:
    calls = []

    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> list[int]:
        return [step.run("a", calls.append, 1) or 1, step.run("b", calls.append, 2) or 2]

    run = engine.start()

    assert (run.status, run.output, run.steps) == ("completed", "[1,2]", 2)
    assert calls == [1, 2]


def test_a_recorded_step_is_not_run_again_by_later_passes(engine: Engine) -> None:
    calls = []

    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        step.run("once", calls.append, "body")
        step.sleep("nap", "1h")
        step.run("after", calls.append, "after")

    engine.start()
    assert calls == ["body"]

    assert engine.advance("1h").status == "completed"
    assert calls == ["body", "after"]


def test_a_handler_receives_the_event_and_knows_its_run(engine: Engine) -> None:
    seen: dict[str, Any] = {}

    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        seen.update(event=event, run_id=step.run_id, attempt=step.attempt)

    run = engine.start({"n": 1}, user={"id": 7}, v="2")

    event = seen["event"]
    assert (event.name, event.data, event.user, event.v) == ("test/start", {"n": 1}, {"id": 7}, "2")
    assert event.id == str(run.event_id)
    assert event.ts.tzinfo is not None
    assert (seen["run_id"], seen["attempt"]) == (str(run.id), 0)


def test_a_loop_may_use_one_id_in_every_turn(engine: Engine) -> None:
    calls: list[int] = []

    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> list[Any]:
        results = []
        for number in range(3):
            results.append(step.run("double", lambda n=number: calls.append(n) or 2 * n))
            step.sleep("nap", "1h")
        return results

    engine.start()
    for _ in range(3):
        run = engine.advance("1h")

    assert (run.status, run.output, run.steps) == ("completed", "[0,2,4]", 6)
    assert calls == [0, 1, 2]
    assert list(Step.objects.filter(name="double").order_by("ordinal").values_list("ordinal", flat=True)) == [0, 1, 2]


def test_steps_are_numbered_in_the_order_of_completion(engine: Engine) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        step.run("a", nothing)
        step.sleep("nap", "1h")
        step.run("b", nothing)

    engine.start()
    engine.advance("1h")

    assert list(Step.objects.order_by("seq").values_list("name", "seq")) == [("a", 1), ("nap", 2), ("b", 3)]


def test_code_that_changes_under_a_waiting_run_keeps_what_is_recorded(engine: Engine) -> None:
    calls = []

    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        step.run("kept", calls.append, "first code")
        step.sleep("nap", "1h")

    engine.start()
    registry._functions.clear()

    @engine.function("fn")
    def changed(event: durable.Event, step: durable.Step) -> list[Any]:
        added = step.run("added", text, "added")
        return [added, step.run("kept", calls.append, "second code"), step.sleep("nap", "1h")]

    run = engine.advance("1h")

    assert (run.status, run.output) == ("completed", '["added",null,null]')
    assert calls == ["first code"]


def text(value: str) -> str:
    return value


def test_a_handler_that_changes_its_event_finds_it_unchanged_in_the_next_pass(engine: Engine) -> None:
    seen = []

    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        seen.append(event.data.pop("n", None))
        step.sleep("nap", "1h")

    engine.start({"n": 1})
    engine.advance("1h")

    assert seen == [1, 1]


@pytest.mark.parametrize(
    "pause",
    [
        lambda step: step.sleep("pause", "1h"),
        lambda step: step.wait_for_event("pause", "app/never", timeout="1h"),
        lambda step: step.invoke("pause", "child"),
    ],
    ids=["sleep", "wait", "invoke"],
)
def test_except_exception_swallows_no_pause_and_finally_runs_at_each(
    engine: Engine, pause: Callable[[durable.Step], object]
) -> None:
    seen = []

    @engine.function("child", trigger=None)
    def child(event: durable.Event, step: durable.Step) -> None:
        step.sleep("nap", "1h")

    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        try:
            pause(step)
        except Exception as error:
            seen.append(error)
        finally:
            seen.append("finally")

    engine.start()
    engine.advance("1h")

    assert Run.objects.get(function="project/fn").status == "completed"
    assert seen == ["finally", "finally"]


def test_the_pause_before_a_steps_next_attempt_is_not_swallowed_either(engine: Engine) -> None:
    attempts = []

    def body() -> None:
        attempts.append(1)
        if len(attempts) == 1:
            raise ValueError

    @engine.function(backoff="1m")
    def fn(event: durable.Event, step: durable.Step) -> str:
        try:
            step.run("a", body)
        except Exception:
            return "caught"
        return "done"

    engine.start()

    assert engine.advance("1m").output == '"done"'


def swallowing_bare(event: durable.Event, step: durable.Step) -> None:
    try:
        step.sleep("nap", "1h")  # <- step
    except:  # noqa: E722  # <- swallowed
        pass


def swallowing_in_finally(event: durable.Event, step: durable.Step) -> str:
    try:
        step.sleep("nap", "1h")  # <- step
    finally:
        return "as if nothing had happened"  # noqa: B012  # <- swallowed


def swallowing_by_raising(event: durable.Event, step: durable.Step) -> None:
    try:
        step.sleep("nap", "1h")  # <- step
    finally:
        raise ValueError("instead")  # <- swallowed


def swallowing_by_suppressing(event: durable.Event, step: durable.Step) -> None:
    with suppress(BaseException):  # <- swallowed
        step.sleep("nap", "1h")  # <- step


def swallowing_an_attempt(event: durable.Event, step: durable.Step) -> None:
    with suppress(BaseException):  # <- swallowed
        step.run("nap", int, "no number")  # <- step


@pytest.mark.parametrize(
    "handler",
    [
        swallowing_bare,
        swallowing_in_finally,
        swallowing_by_raising,
        swallowing_by_suppressing,
        swallowing_an_attempt,
    ],
    ids=lambda handler: handler.__name__,
)
def test_a_handler_that_swallows_a_pause_fails_with_both_lines_and_no_retry(
    engine: Engine, handler: Callable[..., Any]
) -> None:
    engine.function()(handler)

    run = engine.start()

    assert (run.status, run.attempt) == ("failed", 0)
    error = failure_of(run)
    assert error.type == "django_durable.exceptions.SuspensionSwallowed"
    assert f"Step 'nap' ({line_of(handler, 'step')})" in error.message
    assert f"swallowed at {line_of(handler, 'swallowed')}" in error.message
    assert not Step.objects.exists()


def test_a_step_in_a_finally_block_waits_for_its_turn(engine: Engine) -> None:
    calls = []

    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        try:
            step.sleep("nap", "1h")
        finally:
            step.run("release", calls.append, "released")

    assert engine.start().status == "waiting"
    assert calls == []

    assert engine.advance("1h").status == "completed"
    assert calls == ["released"]


@pytest.mark.parametrize("checkpoint", [True, False])
def test_a_turn_takes_several_steps_or_one(engine: Engine, checkpoint: bool) -> None:
    passes = []

    @engine.function(checkpoint=checkpoint)
    def fn(event: durable.Event, step: durable.Step) -> None:
        passes.append(1)
        for _ in range(3):
            step.run("a", nothing)

    run = engine.start()

    assert (run.status, run.steps) == ("completed", 3)
    assert len(passes) == (1 if checkpoint else 3)


def test_a_recorded_step_is_progress_and_forgives_crashes(engine: Engine) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        step.sleep("nap", "1h")
        step.run("a", nothing)
        step.sleep("nap", "1h")

    engine.start()
    Run.objects.update(crashes=4)

    assert engine.advance("1h").crashes == 0


def test_an_exit_of_the_process_is_no_failed_attempt(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    ways: list[Callable[[], Any]] = [lambda: (_ for _ in ()).throw(SystemExit), lambda: "done"]

    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> Any:
        return step.run("a", ways.pop(0))

    with pytest.raises(SystemExit):
        engine.start()
    assert engine.run().status == "queued"

    engine.advance("20s")
    run = engine.run()
    assert (run.output, run.attempt, run.crashes) == ('"done"', 0, 0)
    assert not StepAttempt.objects.exists()


def test_a_handler_that_leaves_autocommit_off_harms_no_later_work(engine: Engine) -> None:
    @engine.function(retries=0)
    def fn(event: durable.Event, step: durable.Step) -> None:
        transaction.set_autocommit(False)

    engine.start()

    assert connection.get_autocommit()
    assert engine.run().status in ("failed", "completed")
    assert Function.objects.count() == 1
