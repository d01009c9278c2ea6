from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from django_durable.core.events.events import Event
from django_durable.core.functions.middleware import Hooks, Middleware, RunContext, StepContext
from django_durable.core.replay.interrupts import LeaseLost
from django_durable.exceptions import ConfigurationError

RUN = RunContext(run_id="1", function_id="project/fn", queue="default", attempt=0, event=Event("test/start"))
STEP = StepContext(run=RUN, name="charge", ordinal=0, kind="run", attempt=1)


class Noting(Middleware):
    """Notes each hook's call in a list that all share."""

    def __init__(self, name: str, notes: list[str]) -> None:
        self.name = name
        self.notes = notes

    def before_send(self, events: list[Event]) -> list[Event]:
        self.notes.append(f"before_send {self.name}")
        return [Event(f"{event.name}.{self.name}") for event in events]

    def after_send(self, events: list[Event], ids: list[str]) -> None:
        self.notes.append(f"after_send {self.name} {ids}")

    def before_turn(self, run: RunContext) -> None:
        self.notes.append(f"before_turn {self.name}")

    def after_turn(self, run: RunContext, outcome: str) -> None:
        self.notes.append(f"after_turn {self.name} {outcome}")

    @contextmanager
    def around_step(self, step: StepContext) -> Iterator[None]:
        self.notes.append(f"enter {self.name} {step.name}")
        yield
        self.notes.append(f"leave {self.name}")

    def encode(self, value: Any) -> Any:
        return f"{self.name}({value})"

    def decode(self, value: Any) -> Any:
        return value.removeprefix(f"{self.name}(").removesuffix(")")


@pytest.fixture
def notes() -> list[str]:
    return []


@pytest.fixture
def hooks(notes: list[str]) -> Hooks:
    return Hooks([Noting("a", notes), Noting("b", notes)])


def test_what_comes_before_is_called_in_order_and_what_comes_after_in_reverse(hooks: Hooks, notes: list[str]) -> None:
    [event] = hooks.before_send([Event("test/sent")])
    hooks.after_send([event], ["7"])
    hooks.around_turn(RUN, lambda: "completed")
    with hooks.around_step(lambda: STEP):
        pass

    assert event.name == "test/sent.a.b"
    assert notes == [
        *("before_send a", "before_send b", "after_send b ['7']", "after_send a ['7']"),
        *("before_turn a", "before_turn b", "after_turn b completed", "after_turn a completed"),
        *("enter a charge", "enter b charge", "leave b", "leave a"),
    ]


def test_values_are_encoded_in_order_and_decoded_in_reverse(hooks: Hooks) -> None:
    assert hooks.encode("x") == "b(a(x))"
    assert hooks.decode("b(a(x))") == "x"


def test_without_middlewares_everything_passes() -> None:
    hooks, value = Hooks(), object()

    assert not hooks.watch_turns
    assert hooks.before_send([]) == []
    assert hooks.encode(value) is hooks.decode(value) is value
    with hooks.around_step(lambda: pytest.fail("nobody asked for it")):
        pass


def test_a_middleware_that_overrides_nothing_is_never_called() -> None:
    hooks = Hooks([Middleware()])

    assert not any(vars(hooks).values())


@pytest.mark.parametrize("returned", [None, [], [Event("a/b")] * 2])
def test_events_may_be_changed_but_neither_lost_nor_added(returned: Any) -> None:
    class Losing(Middleware):
        def before_send(self, events: list[Event]) -> list[Event]:
            return returned  # type: ignore[no-any-return]

    with pytest.raises(ConfigurationError, match=r"Losing\.before_send\(\) was given 1 events and returned"):
        Hooks([Losing()]).before_send([Event("test/sent")])


def test_errors_after_something_are_logged_and_harm_no_other_hook(
    notes: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    class Failing(Middleware):
        def after_send(self, events: list[Event], ids: list[str]) -> None:
            raise ValueError

        def after_turn(self, run: RunContext, outcome: str) -> None:
            raise ValueError

    hooks = Hooks([Noting("a", notes), Failing()])
    with caplog.at_level(logging.ERROR, "django_durable"):
        hooks.after_send([], [])
        hooks.around_turn(RUN, lambda: "suspended")

    assert notes[-2:] == ["before_turn a", "after_turn a suspended"]
    assert "Failing.after_send failed" in caplog.text
    assert "Failing.after_turn failed" in caplog.text


def test_only_who_was_prepared_cleans_up(notes: list[str]) -> None:
    class Failing(Middleware):
        def before_turn(self, run: RunContext) -> None:
            raise ValueError("no tenant")

    hooks = Hooks([Noting("a", notes), Failing(), Noting("c", notes)])
    with pytest.raises(ValueError, match="no tenant"):
        hooks.around_turn(RUN, lambda: pytest.fail("the turn must not start"))

    assert notes == ["before_turn a", "after_turn a broken"]


@pytest.mark.parametrize(("error", "outcome"), [(LeaseLost, "lost"), (RuntimeError, "broken"), (SystemExit, "broken")])
def test_a_turn_that_stops_is_told_as_well(
    hooks: Hooks, notes: list[str], error: type[BaseException], outcome: str
) -> None:
    def turn() -> str:
        raise error

    with pytest.raises(error):
        hooks.around_turn(RUN, turn)

    assert notes[-2:] == [f"after_turn b {outcome}", f"after_turn a {outcome}"]


def test_a_step_whose_error_a_hook_swallows_fails_all_the_same() -> None:
    class Swallowing(Middleware):
        @contextmanager
        def around_step(self, step: StepContext) -> Iterator[None]:
            with suppress(ValueError):
                yield

    with (
        pytest.raises(RuntimeError, match="swallowed the error of the step; let it pass"),
        Hooks([Swallowing()]).around_step(lambda: STEP),
    ):
        raise ValueError


def test_an_error_on_the_way_in_leaves_those_that_were_entered(notes: list[str]) -> None:
    class Entered(Middleware):
        @contextmanager
        def around_step(self, step: StepContext) -> Iterator[None]:
            try:
                yield
            finally:
                notes.append("left")

    class Failing(Middleware):
        def around_step(self, step: StepContext) -> Any:
            raise ValueError("no span")

    body: Callable[[], None] = lambda: pytest.fail("the step must not run")  # noqa: E731
    with pytest.raises(ValueError, match="no span"), Hooks([Entered(), Failing()]).around_step(lambda: STEP):
        body()

    assert notes == ["left"]
