"""step.send_event: events that a run sends, exactly once."""

from __future__ import annotations

from typing import Any

import pytest

import django_durable as durable
from django_durable.models import Event, Run, Step
from tests.engine.conftest import Engine


def test_a_step_sends_its_events_once_and_returns_their_ids(engine: Engine) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> list[str]:
        ids = step.send_event("emit", durable.Event("app/a", {"n": 1}), durable.Event("app/b"))
        step.sleep("nap", "1h")
        return ids

    engine.start()
    engine.advance("1h")

    sent = Event.objects.filter(source="step").order_by("id")
    assert [(event.name, event.data) for event in sent] == [("app/a", {"n": 1}), ("app/b", {})]
    assert engine.run().output == '["{}","{}"]'.format(*(event.id for event in sent))
    assert engine.step("emit").input == "app/a, app/b"


def test_a_sent_event_starts_functions(engine: Engine) -> None:
    @engine.function("listener", trigger="app/a")
    def listener(event: durable.Event, step: durable.Step) -> Any:
        return event.data["n"]

    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        step.send_event("emit", durable.Event("app/a", {"n": 1}))

    engine.start()

    assert Run.objects.get(function="project/listener").output == "1"


def test_a_step_that_lost_its_run_sends_nothing(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        durable.cancel_run(step.run_id)
        step.send_event("emit", durable.Event("app/a"))

    assert engine.start().status == "cancelled"
    assert not Event.objects.filter(name="app/a").exists()
    assert not Step.objects.exists()


def test_sending_no_event_is_a_step_too(engine: Engine) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> list[str]:
        return step.send_event("emit")

    assert engine.start().output == "[]"
