"""Runs as wholes: cancelling, and what runs when one failed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from django.db import transaction

import django_durable as durable
from django_durable.engine.runs.starting import new_run, store_runs
from django_durable.models import Event, Run, Step, Wait
from tests.engine.conftest import Engine, failure_of


def runs_of(slug: str) -> list[Run]:
    return list(Run.objects.filter(function=f"project/{slug}").order_by("id"))


def nothing() -> None:
    """Do nothing."""


# Cancelling


@pytest.mark.parametrize(
    "pause",
    [
        lambda step: step.sleep("pause", "1h"),
        lambda step: step.wait_for_event("pause", "app/never", timeout="1h"),
        lambda step: step.run("pause", int, "no number"),
    ],
    ids=["sleeping", "waiting for an event", "between attempts"],
)
def test_a_waiting_run_is_cancelled_at_once(engine: Engine, pause: Callable[[durable.Step], object]) -> None:
    @engine.function(backoff="1h")
    def fn(event: durable.Event, step: durable.Step) -> None:
        pause(step)
        step.run("after", pytest.fail, "went on")

    run = engine.start()

    assert durable.cancel_run(run.id, "not wanted") is True

    run = engine.run()
    assert (run.status, run.next_at, run.waiting_for, run.waiting_kind) == ("cancelled", None, "", "")
    assert run.finished_at is not None
    assert failure_of(run).message == "not wanted"
    assert not Wait.objects.exists()
    assert engine.advance("2h").status == "cancelled"


def test_a_queued_run_is_cancelled_and_never_starts(engine: Engine) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        pytest.fail("started")

    run = new_queued_run(engine)

    assert durable.cancel_run(run.id) is True
    assert engine.advance("1h").status == "cancelled"


def new_queued_run(engine: Engine) -> Run:
    """Return a run of ``fn`` that no worker was told of."""
    from django_durable.core.functions import registry

    function = registry.get("project/fn")
    assert function is not None
    run = new_run(function)
    store_runs([run])
    return engine.run()


def test_a_running_run_records_nothing_more_and_stops_after_the_body_that_it_is_in(engine: Engine) -> None:
    calls: list[Any] = []

    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        calls.append(durable.cancel_run(step.run_id))
        step.run("in flight", calls.append, "in flight")
        step.run("after", pytest.fail, "went on")

    assert engine.start().status == "cancelled"
    assert calls == [True, "in flight"]
    assert not Step.objects.exists()


def test_a_run_cancelled_while_its_handler_returns_stays_cancelled(engine: Engine) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> str:
        durable.cancel_run(step.run_id)
        return "done"

    run = engine.start()

    assert (run.status, run.output) == ("cancelled", None)


def test_a_cancellation_without_a_reason_says_that_it_was_one(engine: Engine) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        step.sleep("nap", "1h")

    durable.cancel_run(engine.start().id)

    error = failure_of(engine.run())
    assert (error.type, error.message) == ("django_durable.exceptions.RunCancelled", "The run was cancelled")


@pytest.mark.parametrize("how", ["completed", "failed", "cancelled"])
def test_an_ended_run_cannot_be_cancelled(engine: Engine, how: str) -> None:
    @engine.function(retries=0)
    def fn(event: durable.Event, step: durable.Step) -> None:
        if how == "cancelled":
            durable.cancel_run(step.run_id, "first")
        if how == "failed":
            raise ValueError

    run = engine.start()
    before = Run.objects.values().get()

    assert run.status == how
    assert durable.cancel_run(run.id, "second") is False
    assert Run.objects.values().get() == before


@pytest.mark.parametrize("run_id", [UUID(int=7), str(UUID(int=7)), "no id", "", None])
def test_an_unknown_run_is_not_found(engine: Engine, run_id: Any) -> None:
    with pytest.raises(durable.RunNotFound, match="There is no run"):
        durable.cancel_run(run_id)


def test_a_run_is_cancelled_by_the_text_of_its_id(engine: Engine) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        step.sleep("nap", "1h")

    assert durable.cancel_run(str(engine.start().id)) is True


def test_a_cancellation_is_rolled_back_with_its_transaction(engine: Engine) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        step.sleep("nap", "1h")

    run = engine.start()
    with transaction.atomic():
        durable.cancel_run(run.id)
        transaction.set_rollback(True)

    assert engine.advance("1h").status == "completed"


def test_cancelling_a_run_starts_no_failure_handler(engine: Engine) -> None:
    @engine.function(on_failure=lambda event, step: None)
    def fn(event: durable.Event, step: durable.Step) -> None:
        step.sleep("nap", "1h")

    durable.cancel_run(engine.start().id)

    assert Run.objects.count() == 1


# Failures


def failing(engine: Engine, **options: Any) -> Any:
    @engine.function("fn", retries=0, **options)
    def fn(event: durable.Event, step: durable.Step) -> None:
        raise KeyError(event.data.get("n"))

    return fn


@pytest.mark.parametrize("form", ["handler", "decorator", "function", "id", "slug"])
def test_a_failed_run_starts_its_failure_handler_once(engine: Engine, form: str) -> None:
    seen: list[durable.FailureEvent] = []

    def handle(event: durable.FailureEvent, step: durable.Step) -> None:
        seen.append(event)

    if form == "handler":
        failing(engine, on_failure=handle)
    elif form == "decorator":
        failing(engine).on_failure(handle)
    else:
        other = durable.function("other")(handle)
        failing(engine, on_failure={"function": other, "id": "project/other", "slug": "other"}[form])

    durable.send_event("test/start", {"n": 7}, user={"id": 1}, v="2")
    engine.advance("1h")

    [failed] = runs_of("fn")
    [event] = seen
    assert isinstance(event, durable.FailureEvent)
    assert (event.name, event.run_id) == ("durable/function.failed", str(failed.id))
    assert (event.error.type, event.error.message) == ("builtins.KeyError", "7")
    assert "raise KeyError" in event.error.traceback
    original = event.original
    assert (original.name, original.data, original.user, original.v) == ("test/start", {"n": 7}, {"id": 1}, "2")
    assert (original.id, original.ts) == (str(failed.event_id), failed.event and failed.event.ts)
    slug = "fn.on_failure" if form in ("handler", "decorator") else "other"
    assert [run.status for run in runs_of(slug)] == ["completed"]


def test_a_failure_handler_is_durable(engine: Engine) -> None:
    calls: list[str] = []

    def refund() -> None:
        calls.append("refund")
        if len(calls) == 1:
            raise ValueError

    def handle(event: durable.FailureEvent, step: durable.Step) -> None:
        step.run("refund", refund)
        step.sleep("nap", "1h")
        step.run("tell", calls.append, event.original.data["n"])

    failing(engine, on_failure=handle)
    durable.send_event("test/start", {"n": "Ada"})
    engine.advance("1m")
    engine.advance("1h")

    assert calls == ["refund", "refund", "Ada"]


def test_a_completed_run_starts_no_failure_handler(engine: Engine) -> None:
    @engine.function(on_failure=lambda event, step: None)
    def fn(event: durable.Event, step: durable.Step) -> None:
        """Do nothing."""

    engine.start()

    assert Run.objects.count() == 1


def test_a_failure_handler_learns_of_a_spent_step(engine: Engine) -> None:
    seen: list[Any] = []

    @engine.function(retries=0, on_failure=lambda event, step: seen.append(event.error))
    def fn(event: durable.Event, step: durable.Step) -> None:
        step.run("charge", int, "no number")

    durable.send_event("test/start")

    [error] = seen
    assert error.type == "django_durable.exceptions.StepError"
    assert error.cause.type == "builtins.ValueError"


def test_a_run_that_can_never_work_starts_its_failure_handler_too(engine: Engine) -> None:
    seen: list[Any] = []

    @engine.function(on_failure=lambda event, step: seen.append(event.error.type))
    def fn(event: durable.Event, step: durable.Step) -> None:
        step.sleep("nap", "soon")

    durable.send_event("test/start")

    assert seen == ["django_durable.exceptions.InvalidStep"]


def test_a_failed_child_starts_its_failure_handler_and_tells_its_parent(engine: Engine) -> None:
    seen: list[Any] = []

    @durable.function("child", retries=0, on_failure=lambda event, step: seen.append(event.original.data))
    def child(event: durable.Event, step: durable.Step) -> None:
        raise KeyError

    @engine.function("parent")
    def parent(event: durable.Event, step: durable.Step) -> None:
        step.invoke("call", child, {"n": 7})

    durable.send_event("test/start")

    assert (runs_of("parent")[0].status, seen) == ("failed", [{"n": 7}])


def test_a_failure_handler_that_fails_starts_no_further_one(engine: Engine) -> None:
    @engine.function("fn", retries=0, on_failure="fn")
    def fn(event: durable.Event, step: durable.Step) -> None:
        raise ValueError

    durable.send_event("test/start")

    assert [run.status for run in runs_of("fn")] == ["failed", "failed"]


def test_a_failure_handler_that_is_not_in_the_code_is_logged_and_harms_no_run(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    failing(engine, on_failure="nowhere")

    @durable.function("other", trigger="test/start")
    def other(event: durable.Event, step: durable.Step) -> None:
        """Do nothing."""

    with caplog.at_level(logging.ERROR, "django_durable"):
        durable.send_event("test/start")

    assert (runs_of("fn")[0].status, runs_of("other")[0].status) == ("failed", "completed")
    assert "There is no durable function 'project/nowhere'" in caplog.text


@pytest.mark.parametrize("data", [{}, {"a": {"$": "x"}, "deep": [{"n": (1, 2)}]}])
def test_the_original_event_arrives_with_its_types(engine: Engine, data: dict[str, Any]) -> None:
    seen: list[Any] = []
    failing(engine, on_failure=lambda event, step: seen.append(event.original.data))

    durable.send_event("test/start", data)

    assert seen == [data]


def test_an_error_that_no_search_index_holds_reaches_the_failure_handler(engine: Engine) -> None:
    seen: list[str] = []

    @engine.function(retries=0, on_failure=lambda event, step: seen.append(event.error.message))
    def fn(event: durable.Event, step: durable.Step) -> None:
        raise ValueError("NUL \0 and half a surrogate \ud800")

    durable.send_event("test/start")

    assert len(seen) == 1
    assert Event.objects.filter(name="durable/function.failed").count() == 1
