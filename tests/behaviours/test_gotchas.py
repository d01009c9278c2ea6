"""The five gotchas on the real engine: what happens, that the check says it, and that the right way does not suffer."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from django_durable.core.gotchas.findings import Finding, Kind, find
from tests.engine.conftest import Engine, failure_of

Log = list[Any]


def said(handler: Callable[..., Any]) -> list[tuple[Kind, str]]:
    """Return what the check says about a handler, with the text of the lines."""
    return [(finding.kind, _line(finding)) for finding in find(handler)]


def _line(finding: Finding) -> str:
    with open(finding.file) as file:
        return file.read().splitlines()[finding.line - 1].strip()


# "My function is running twice"


class Outbox:
    """Counts what is saved."""

    def __init__(self) -> None:
        self.saved: Log = []

    def save(self, what: str = "it") -> str:
        """Save something that counts."""
        self.saved.append(what)
        return what


def test_code_outside_steps_runs_in_every_pass_and_the_check_says_so(engine: Engine) -> None:
    outbox = Outbox()

    def handler(event: Any, step: Any) -> None:
        outbox.save()
        step.sleep("first", "1h")
        step.sleep("second", "1h")

    engine.function()(handler)
    engine.start()
    engine.advance("1h")
    engine.advance("1h")

    assert len(outbox.saved) == 3
    assert said(handler) == [(Kind.SIDE_EFFECT, "outbox.save()")]


def test_the_same_code_in_a_step_runs_once(engine: Engine) -> None:
    outbox = Outbox()

    def handler(event: Any, step: Any) -> None:
        step.run("save", outbox.save)
        step.sleep("first", "1h")
        step.sleep("second", "1h")

    engine.function()(handler)
    engine.start()
    engine.advance("1h")
    engine.advance("1h")

    assert len(outbox.saved) == 1
    assert said(handler) == []


# "I want to run async code": a step is one side effect, tried again as a whole


def test_a_step_with_two_side_effects_repeats_the_first_when_the_second_fails(engine: Engine) -> None:
    alerts, links = Outbox(), Outbox()

    def alert_and_link() -> None:
        alerts.save("alert")
        links.save("link")
        if len(links.saved) == 1:
            raise ConnectionError

    engine.function(retries=1, backoff="1m")(lambda event, step: step.run("alert", alert_and_link))
    engine.start()
    run = engine.advance("2m")

    assert run.status == "completed"
    assert alerts.saved == ["alert", "alert"]


def test_two_steps_with_a_side_effect_each_repeat_only_the_one_that_failed(engine: Engine) -> None:
    alerts, links = Outbox(), Outbox()

    def link(alert: str) -> None:
        links.save(alert)
        if len(links.saved) == 1:
            raise ConnectionError

    @engine.function(retries=1, backoff="1m")
    def handler(event: Any, step: Any) -> None:
        alert = step.run("alert", alerts.save, "alert")
        step.run("link", link, alert)

    engine.start()
    run = engine.advance("2m")

    assert run.status == "completed"
    assert (alerts.saved, links.saved) == (["alert"], ["alert", "alert"])


# "My variable isn't updating"


def test_a_variable_that_a_body_sets_is_lost_in_later_passes_and_the_check_says_so(engine: Engine) -> None:
    seen: Log = []

    def handler(event: Any, step: Any) -> Any:
        winner = None

        def pick() -> None:
            nonlocal winner
            winner = 7

        step.run("pick", pick)
        seen.append(winner)
        step.sleep("pause", "1h")
        return winner

    engine.function()(handler)
    engine.start()
    run = engine.advance("1h")

    assert seen == [7, None]
    assert run.output == "null"
    assert said(handler) == [(Kind.LOST_CHANGE, "winner = 7")]


def test_a_value_that_a_body_returns_is_there_in_every_pass(engine: Engine) -> None:
    seen: Log = []

    def handler(event: Any, step: Any) -> Any:
        winner = step.run("pick", lambda: 7)
        seen.append(winner)
        step.sleep("pause", "1h")
        return winner

    engine.function()(handler)
    engine.start()
    run = engine.advance("1h")

    assert seen == [7, 7]
    assert run.output == "7"
    assert said(handler) == []


# "sleep_until isn't working as expected"


def test_of_a_moving_sleep_until_the_first_moment_stays_and_log_and_check_say_so(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    def handler(event: Any, step: Any) -> None:
        tomorrow = timezone.now() + timedelta(days=1)
        step.sleep_until("tomorrow", tomorrow)

    engine.function()(handler)
    first = engine.start().next_at
    with caplog.at_level(logging.WARNING, "django_durable"):
        run = engine.advance("1 day")

    line = f"{__file__}:{handler.__code__.co_firstlineno + 2}"
    assert (run.status, engine.step("tomorrow").next_at) == ("completed", first)
    assert f"sleep_until 'tomorrow' ({line})" in caplog.text
    assert said(handler) == [(Kind.MOVING_SLEEP_UNTIL, 'step.sleep_until("tomorrow", tomorrow)')]


def test_a_moment_that_a_step_returned_does_not_move(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    def handler(event: Any, step: Any) -> None:
        tomorrow = step.run("compute", lambda: timezone.now() + timedelta(days=1))
        step.sleep_until("tomorrow", tomorrow)

    engine.function()(handler)
    engine.start()
    with caplog.at_level(logging.WARNING, "django_durable"):
        run = engine.advance("1 day")

    assert run.status == "completed"
    assert caplog.text == ""
    assert said(handler) == []


# "Unexpected loop behaviour"


def test_a_loop_does_its_own_code_in_every_pass_and_each_step_once(engine: Engine) -> None:
    outside, inside = Outbox(), Outbox()

    def handler(event: Any, step: Any) -> None:
        for number in range(3):
            outside.save(f"outside {number}")
            step.run("save", inside.save, f"inside {number}")
            step.sleep("pause", "1h")

    engine.function()(handler)
    engine.start()
    for _ in range(3):
        run = engine.advance("1h")

    assert run.status == "completed"
    assert inside.saved == ["inside 0", "inside 1", "inside 2"]
    assert [outside.saved.count(f"outside {number}") for number in range(3)] == [4, 3, 2]
    assert said(handler) == [(Kind.SIDE_EFFECT, 'outside.save(f"outside {number}")')]
    assert find(handler)[0].message.endswith("and in each round of its loop")


# What stops a run before it does harm


def test_an_except_around_a_step_that_swallows_its_suspension_fails_the_run_as_the_check_foretold(
    engine: Engine,
) -> None:
    def handler(event: Any, step: Any) -> None:
        try:
            step.sleep("pause", "1h")
        except BaseException:
            event.data["ended"] = True

    engine.function()(handler)
    run = engine.start()

    assert run.status == "failed"
    assert f"{__file__}:{find(handler)[0].line}" in failure_of(run).message
    assert said(handler) == [(Kind.SWALLOWED_SUSPENSION, "except BaseException:")]
