"""Hooks of a project in a real run."""

from __future__ import annotations

import asyncio
import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from django.core.files.storage import InMemoryStorage, default_storage
from django.test import override_settings
from django.utils.functional import empty

import django_durable as durable
from django_durable import Event, Middleware, RunContext, StepContext
from django_durable.models import Event as StoredEvent
from django_durable.models import Run, StepAttempt
from tests.engine.conftest import Engine, failure_of

PAGE = Path(__file__).parent.parent.parent / "docs/howto/middleware.md"
seen: list[Any] = []
fail: set[str] = set()


class Noting(Middleware):
    """Notes what it is told; a hook in ``fail`` raises."""

    def note(self, hook: str, *values: Any) -> None:
        seen.append((hook, *values))
        if hook in fail:
            raise ValueError(hook)

    def before_send(self, events: list[Event]) -> list[Event]:
        self.note("before_send", *[event.name for event in events])
        return events

    def after_send(self, events: list[Event], ids: list[str]) -> None:
        self.note("after_send", len(ids))

    def before_turn(self, run: RunContext) -> None:
        self.note("before_turn", run.function_id, run.event.name, run.attempt)

    def after_turn(self, run: RunContext, outcome: str) -> None:
        self.note("after_turn", outcome)

    @contextmanager
    def around_step(self, step: StepContext) -> Iterator[None]:
        self.note("enter", step.name, step.kind, step.attempt, step.run.run_id == str(Run.objects.get().id))
        yield
        self.note("leave", step.name)

    def encode(self, value: Any) -> Any:
        self.note("encode", value)
        return {"sealed": value}

    def decode(self, value: Any) -> Any:
        self.note("decode", value)
        return value["sealed"]


class Async(Noting):
    """Asks nothing of the database around a step, as an event loop must not."""

    @contextmanager
    def around_step(self, step: StepContext) -> Iterator[None]:
        self.note("enter", step.name)
        yield
        self.note("leave", step.name)


@contextmanager
def middleware(*paths: str) -> Iterator[None]:
    with override_settings(DURABLE={"DRIVER": "inline", "MIDDLEWARE": list(paths)}):
        yield


@pytest.fixture
def noted(engine: Engine) -> Iterator[Engine]:
    """Give an engine whose hooks note their calls."""
    seen.clear()
    fail.clear()
    with middleware(f"{__name__}.Noting"):
        yield engine


def hooks() -> list[str]:
    return [each[0] for each in seen]


@pytest.fixture
def napping(noted: Engine) -> None:
    """Register a function of a step and a sleep."""

    @noted.function()
    def fn(event: durable.Event, step: durable.Step) -> Any:
        value = step.run("first", int, 7)
        step.sleep("nap", "1h")
        return value


def test_hooks_surround_sending_turns_and_step_functions(noted: Engine, napping: None) -> None:
    noted.start()
    first, seen[:] = list(seen), []
    run = noted.advance("1h")

    assert first == [
        ("before_send", "test/start"),
        ("before_turn", "project/fn", "test/start", 0),
        ("enter", "first", "run", 1, True),
        ("leave", "first"),
        ("encode", 7),
        ("decode", {"sealed": 7}),
        ("after_turn", "suspended"),
        ("after_send", 1),  # the inline driver works within the sender's commit
    ]
    assert hooks() == ["before_turn", "decode", "encode", "after_turn"]
    assert seen[-1] == ("after_turn", "completed")
    assert run.output == '{"sealed":7}'


def test_a_failed_run_is_told_as_failed(noted: Engine) -> None:
    @noted.function(retries=0)
    def fn(event: durable.Event, step: durable.Step) -> None:
        raise KeyError

    noted.start()

    assert ("after_turn", "failed") in seen


def test_an_error_before_sending_reaches_the_sender_and_nothing_is_sent(noted: Engine) -> None:
    fail.add("before_send")

    with pytest.raises(ValueError, match="before_send"):
        durable.send_event("test/start")

    assert not StoredEvent.objects.exists()


def test_what_is_no_event_is_refused_before_a_hook_sees_it(noted: Engine) -> None:
    with pytest.raises(durable.InvalidEvent, match="'text' is not an event"):
        durable.send_events(["text"])  # type: ignore[list-item]

    assert seen == []


@pytest.mark.parametrize("hook", ["before_turn", "decode"])
def test_a_run_that_a_hook_stops_is_given_back_and_goes_on_later(
    noted: Engine, napping: None, hook: str, caplog: pytest.LogCaptureFixture
) -> None:
    fail.add(hook)
    run = noted.start()
    assert (run.status, run.attempt, run.error) == ("queued", 0, None)
    assert (("after_turn", "broken") in seen) == (hook == "decode")

    fail.clear()
    noted.advance("10s")

    assert noted.advance("1h").status == "completed"
    assert f"Run {run.id} could not go on" in caplog.text
    assert hooks().count("enter") == 1


@pytest.mark.parametrize("hook", ["after_send", "after_turn"])
def test_an_error_after_something_is_logged(
    noted: Engine, napping: None, hook: str, caplog: pytest.LogCaptureFixture
) -> None:
    fail.add(hook)

    with caplog.at_level(logging.ERROR, "django_durable"):
        noted.start()

    assert noted.advance("1h").status == "completed"
    assert f"Noting.{hook} failed" in caplog.text


@pytest.mark.parametrize("hook", ["enter", "leave", "encode"])
def test_an_error_around_a_step_is_the_steps_own(noted: Engine, napping: None, hook: str) -> None:
    fail.add(hook)
    run = noted.start()
    assert (run.status, run.waiting_kind) == ("waiting", "retry")
    assert failure_of(StepAttempt.objects.get()).message == hook

    fail.clear()
    noted.advance("1m")

    assert noted.advance("1h").status == "completed"


def test_a_result_that_a_hook_cannot_encode_has_the_handler_tried_again(noted: Engine) -> None:
    @noted.function()
    def fn(event: durable.Event, step: durable.Step) -> int:
        return 7

    fail.add("encode")
    assert noted.start().waiting_kind == "retry"

    fail.clear()
    assert noted.advance("1m").status == "completed"


def test_the_result_of_a_child_is_decoded_for_its_parent_and_for_on_complete(noted: Engine) -> None:
    results: list[Any] = []

    @durable.function("child", on_complete=lambda event, step: results.append(event.result))
    def child(event: durable.Event, step: durable.Step) -> int:
        return 7

    @noted.function("parent")
    def parent(event: durable.Event, step: durable.Step) -> None:
        results.append(step.invoke("call", child))

    durable.send_event("test/start")

    assert results == [7, 7]


# The examples of the documentation


@contextmanager
def documented(number: int, **modules: Any) -> Iterator[ModuleType]:
    """Give the module that the page's example is, counted from 1, with these modules in place of installed ones."""
    source = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)[number]
    module = ModuleType("documented")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**modules, "documented": module}.items():
            patch.setitem(sys.modules, name, value)
        exec(compile(source, str(PAGE), "exec"), vars(module))
        yield module


def test_the_tenant_of_the_sender_is_the_tenant_of_the_run_and_of_what_it_sends(engine: Engine) -> None:
    tenants: list[Any] = []

    with documented(1) as module, middleware("documented.Tenancy"):

        @engine.function("first")
        def first(event: durable.Event, step: durable.Step) -> None:
            step.sleep("nap", "1h")
            tenants.append(module.current_tenant.get())
            step.send_event("emit", Event("test/next"))

        first.on_complete(lambda event, step: tenants.append(module.current_tenant.get()))

        @engine.function("second", trigger="test/next")
        def second(event: durable.Event, step: durable.Step) -> None:
            tenants.append(step.run("tenant", module.current_tenant.get))

        module.current_tenant.set("acme")
        durable.send_event("test/start")
        module.current_tenant.set("other")
        engine.advance("1h")

        assert tenants == ["acme"] * 3
        assert module.current_tenant.get() is None


class Tracer:
    """Stands for OpenTelemetry: keeps the names, parents and errors of spans."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, str, str]] = []

    @contextmanager
    def start_as_current_span(self, name: str, context: str, attributes: dict[str, Any]) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self.spans.append((name, context, type(error).__name__))
            raise
        self.spans.append((name, context, f"attempt {attributes['durable.attempt']}"))


def test_the_trace_of_the_sender_goes_on_in_every_attempt_of_a_step(engine: Engine) -> None:
    tracer, attempts = Tracer(), iter((ValueError("busy"), None))
    telemetry, propagate, trace = ModuleType("opentelemetry"), ModuleType("propagate"), ModuleType("trace")
    telemetry.propagate, telemetry.trace = propagate, trace  # type: ignore[attr-defined]
    propagate.inject = lambda carrier: carrier.update(traceparent="request-1")  # type: ignore[attr-defined]
    propagate.extract = lambda carrier: carrier["traceparent"]  # type: ignore[attr-defined]
    trace.get_tracer = lambda name: tracer  # type: ignore[attr-defined]

    def call() -> None:
        error = next(attempts)
        if error:
            raise error

    with documented(2, opentelemetry=telemetry), middleware("documented.Tracing"):
        engine.function()(lambda event, step: step.run("call", call))
        engine.start()
        run = engine.advance("1m")

    assert run.status == "completed"
    assert tracer.spans == [("step call", "request-1", "ValueError"), ("step call", "request-1", "attempt 2")]


def test_large_results_are_kept_in_the_storage(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    large, lengths = bytes(200_000), []
    monkeypatch.setattr(default_storage, "_wrapped", InMemoryStorage())

    with documented(3), middleware("documented.Offload"):

        @engine.function()
        def fn(event: durable.Event, step: durable.Step) -> bytes:
            value = step.run("large", lambda: large)
            step.sleep("nap", "1h")
            lengths.append(len(value))
            return step.run("small", lambda: b"small")

        engine.start()
        run = engine.advance("1h")

    assert (run.status, lengths) == ("completed", [200_000])
    assert len(engine.step("large").output or "") < 100
    assert default_storage._wrapped is not empty


def test_hooks_surround_the_parts_of_a_map_and_see_each_value(noted: Engine) -> None:
    @noted.function()
    def fn(event: durable.Event, step: durable.Step) -> Any:
        return step.map("double", lambda number: 2 * number, [1, 2])

    noted.start()
    run = noted.advance("1h")

    assert [each[2:] for each in seen if each[0] == "enter"] == [("run", 1, True)] * 2
    assert [each[1] for each in seen if each[0] == "encode"] == [2, 4, [2, 4]]
    assert run.output == '{"sealed":[2,4]}'


def test_a_branch_is_given_the_value_that_its_steps_returned(noted: Engine) -> None:
    @noted.function()
    def fn(event: durable.Event, step: durable.Step) -> Any:
        return step.parallel(lambda: step.run("one", int, 1) + 1, lambda: step.run("two", int, 2) + 1)

    noted.start()
    run = noted.advance("1h")

    assert run.output == '{"sealed":{"$":"tuple","v":[2,3]}}'


def test_a_handle_gives_the_decoded_result(noted: Engine, napping: None) -> None:
    run = noted.start()
    noted.advance("1h")

    assert durable.get_run(run.id).result() == 7


def test_hooks_surround_async_turns_and_async_step_functions(noted: Engine) -> None:
    async def double(number: int) -> int:
        return 2 * number

    @noted.function()
    async def fn(event: durable.Event, step: durable.Step) -> Any:
        both = await asyncio.gather(step.run("one", double, 1), step.run("two", double, 2))
        return sum(both)

    with middleware(f"{__name__}.Async"):
        run = noted.start()

    assert run.output == '{"sealed":6}'
    assert sorted(each[1] for each in seen if each[0] == "enter") == ["one", "two"]
    assert (hooks()[1], hooks()[-2]) == ("before_turn", "after_turn")
    assert ("after_turn", "completed") in seen


def test_a_hook_that_cannot_decode_leaves_an_async_run_for_later(noted: Engine) -> None:
    @noted.function()
    async def fn(event: durable.Event, step: durable.Step) -> Any:
        return await step.run("one", int, 1)

    fail.add("decode")
    noted.start()
    broken = noted.run().status
    fail.clear()
    run = noted.advance("1m")

    assert (broken, run.status) == ("queued", "completed")
    assert ("after_turn", "broken") in seen


current: ContextVar[str] = ContextVar("current", default="nobody")


class Setting(Middleware):
    """Sets a variable for a turn."""

    def before_turn(self, run: RunContext) -> None:
        current.set(run.event.data["who"])

    def after_turn(self, run: RunContext, outcome: str) -> None:
        current.set("nobody")


def test_what_a_hook_sets_for_an_async_turn_is_there_in_the_handler_and_its_steps(engine: Engine) -> None:
    async def look() -> str:
        await asyncio.sleep(0.05)
        return current.get()

    @engine.function()
    async def fn(event: durable.Event, step: durable.Step) -> list[str]:
        return [current.get(), await step.run("async", look), await step.run("plain", current.get), current.get()]

    with middleware(f"{__name__}.Setting"):
        durable.send_events([Event("test/start", {"who": who}) for who in ("ada", "grace")])

    assert sorted(run.output or "" for run in Run.objects.all()) == [
        '["ada","ada","ada","ada"]',
        '["grace","grace","grace","grace"]',
    ]
    assert current.get() == "nobody"
