"""Rows of steps and attempts as the lines and the spans of a run's page."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any

import pytest

from django_durable.admin.runs.steps import (
    SHORT,
    StepLine,
    attempt_line,
    attempts_by_step,
    attempts_of,
    spans,
    step_line,
    steps_of,
)
from django_durable.admin.shared.html import NOTHING, Links
from django_durable.core import clock
from django_durable.core.replay.operations import step_key
from django_durable.models import Run
from tests.admin.rows import SECOND, error_text, make_attempt, make_event, make_run, make_step

pytestmark = pytest.mark.django_db

LINKS = Links("admin")


def lines(run: Run) -> Sequence[StepLine]:
    return [step_line(row, {}, LINKS) for row in steps_of(run)]


def line(run: Run) -> StepLine:
    [only] = lines(run)
    return only


def test_steps_come_in_the_order_in_which_they_were_recorded() -> None:
    run = make_run()
    make_step(run, "charge", seq=2)
    make_step(run, "reserve", seq=1)

    assert [each.title for each in lines(run)] == ["reserve", "charge"]


def test_a_line_has_what_a_step_was_given_and_what_it_returned() -> None:
    run = make_run()
    make_step(run, "charge", ordinal=2, input="shop.charge(7)", output='{"paid": true}', attempt=1)

    shown = line(run)

    assert (shown.title, shown.kind, shown.input, shown.attempt) == ("charge#2", "run", "shop.charge(7)", 1)
    assert shown.output is not None
    assert shown.output.text == '{\n  "paid": true\n}'
    assert ("Completed" in shown.status, shown.duration) == (True, "1s")


def test_a_long_value_is_cut_by_the_database() -> None:
    run = make_run()
    make_step(run, "report", output=f'"{"x" * (2 * SHORT)}"')

    output = line(run).output

    assert output is not None
    assert (len(output.text), output.left_out) == (SHORT, SHORT + 2)


def test_a_failed_step_has_its_error() -> None:
    run = make_run()
    make_step(run, "charge", status="failed", error=error_text("shop.CardError", "declined"))

    error = line(run).error

    assert error is not None
    assert (error.type, error.message) == ("shop.CardError", "declined")


def test_a_step_that_has_not_ended_has_no_duration() -> None:
    run = make_run()
    make_step(run, "nap", status="waiting", kind="sleep")

    assert line(run).duration == NOTHING


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"kind": "sleep", "status": "waiting"}, "in 1h"),
        ({"kind": "branch", "status": "waiting"}, "in 1h"),
        ({"kind": "branch", "status": "running"}, NOTHING),
        ({"kind": "sleep", "status": "completed"}, NOTHING),
    ],
    ids=["sleep", "branch between attempts", "branch at work", "over"],
)
def test_a_line_says_when_its_step_goes_on(values: dict[str, Any], expected: str) -> None:
    run = make_run()
    make_step(run, "nap", next_at=clock.now() + datetime.timedelta(hours=1, seconds=1), **values)

    assert line(run).next.startswith(expected)


def test_a_wait_that_an_event_resolved_links_to_the_event() -> None:
    run, event = make_run(), make_event()
    make_step(run, "packed", kind="wait", event=event)

    assert str(event.pk) in line(run).next


def test_an_attempt_names_its_step_or_the_handler() -> None:
    run = make_run()
    make_attempt(run, "charge", 2, owner="worker-1")
    make_attempt(run, "", key=None)

    of_step, of_handler = (attempt_line(row) for row in attempts_of(run))

    assert (of_step.title, of_step.number, of_step.owner, of_step.duration) == ("charge", 2, "worker-1", "1s")
    assert of_handler.title == "handler"
    assert of_handler.error is not None
    assert of_handler.error.message == "no such card"


def test_spans_have_the_attempts_of_their_steps() -> None:
    run = make_run()
    make_step(run, "charge")
    make_attempt(run, "charge")
    make_attempt(run, "", key=None)
    began, ended = run.created_at, run.created_at + SECOND

    attempts = attempts_by_step(attempts_of(run))
    [span] = spans(list(steps_of(run)), {}, attempts)

    assert attempts == {key: [("failed", began, ended)] for key in (step_key("", "charge", 0), None)}
    assert (span.label, span.status, span.finished_at) == ("charge", "completed", ended)
    assert list(span.attempts) == [("failed", began, ended)]
