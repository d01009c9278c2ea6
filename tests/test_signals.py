"""Django signals of the engine."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection, transaction

import django_durable as durable
from django_durable import signals
from django_durable.engine.runs import ending
from django_durable.models import Function, Run
from tests.engine.conftest import Engine, engine

__all__ = ["engine"]

Told = list[tuple[str, dict[str, Any]]]


@pytest.fixture
def told(engine: Engine) -> Iterator[Told]:
    """Keep every signal with its arguments."""
    told: Told = []
    receivers = {name: lambda name=name, **values: told.append((name, values)) for name in SIGNALS}
    for name, receiver in receivers.items():
        getattr(signals, name).connect(receiver, sender=Function)
    yield told
    for name, receiver in receivers.items():
        getattr(signals, name).disconnect(receiver, sender=Function)


SIGNALS = ("run_started", "run_ended", "step_failed")


def names(told: Told) -> list[str]:
    return [name for name, _ in told]


def test_a_run_tells_of_its_start_and_its_end_once(engine: Engine, told: Told) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        step.sleep("nap", "1h")

    run = engine.start()
    assert names(told) == ["run_started"]
    engine.advance("1h")

    assert names(told) == ["run_started", "run_ended"]
    ended = told[-1][1]
    assert (ended["run_id"], ended["function_id"], ended["status"]) == (run.id, "project/fn", "completed")


def test_a_step_tells_of_its_last_attempt_that_failed(engine: Engine, told: Told) -> None:
    @engine.function(retries=1)
    def fn(event: durable.Event, step: durable.Step) -> None:
        step.run("charge", int, "no number")

    engine.start()
    assert names(told) == ["run_started"]
    engine.advance("1m")

    assert names(told) == ["run_started", "step_failed", "run_ended"]
    failed = told[1][1]
    assert (failed["step"], failed["attempts"], type(failed["error"])) == ("charge", 2, ValueError)
    assert told[2][1]["status"] == "failed"


def test_a_cancelled_run_and_its_children_tell_of_it_after_the_commit(engine: Engine, told: Told) -> None:
    @durable.function("child")
    def child(event: durable.Event, step: durable.Step) -> None:
        step.sleep("nap", "1h")

    @engine.function("parent")
    def parent(event: durable.Event, step: durable.Step) -> None:
        step.invoke("call", child)

    durable.send_event("test/start")
    told.clear()
    with transaction.atomic():
        ending.cancel(Run.objects.get(function="project/parent").id)
        assert told == []

    assert sorted((values["function_id"], values["status"]) for _, values in told) == [
        ("project/child", "cancelled"),
        ("project/parent", "cancelled"),
    ]


def test_a_receivers_error_harms_no_run(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    def fail(**values: Any) -> None:
        raise ValueError("no metrics today")

    engine.function()(lambda event, step: None)
    signals.run_ended.connect(fail)
    try:
        with caplog.at_level(logging.ERROR, "django.dispatch"):
            run = engine.start()
    finally:
        signals.run_ended.disconnect(fail)

    assert run.status == "completed"
    assert "no metrics today" in caplog.text


def test_the_receiver_of_an_end_sees_the_committed_run(engine: Engine) -> None:
    seen: list[tuple[str, bool]] = []

    def look(run_id: Any, **values: Any) -> None:
        seen.append((Run.objects.get(id=run_id).status, connection.in_atomic_block))

    engine.function(on_complete=lambda event, step: None)(lambda event, step: None)
    signals.run_ended.connect(look)
    try:
        durable.send_event("test/start")
    finally:
        signals.run_ended.disconnect(look)

    assert seen == [("completed", False)] * 2


def test_a_part_of_a_map_tells_of_its_last_attempt_that_failed(engine: Engine, told: Told) -> None:
    @engine.function(retries=0)
    def fn(event: durable.Event, step: durable.Step) -> None:
        step.map("numbers", int, ["1", "no number"])

    engine.start()

    assert names(told) == ["run_started", "step_failed", "run_ended"]
    failed = told[1][1]
    assert (failed["attempts"], type(failed["error"])) == (1, ValueError)


def test_a_run_that_continues_as_new_has_not_ended(engine: Engine, told: Told) -> None:
    ends: list[str] = []

    @engine.function(on_complete=lambda event, step: ends.append(event.result))
    def fn(event: durable.Event, step: durable.Step) -> str:
        if not event.data.get("again"):
            step.continue_as_new({"again": True})
        return "done"

    engine.start()
    engine.settle()

    assert ends == ["done"]
    ended = [values["function_id"] for name, values in told if name == "run_ended"]
    assert ended == ["project/fn", "project/fn.on_complete"]
