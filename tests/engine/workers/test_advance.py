# ruff: noqa: SIM105 - the clauses are what is tested
"""One turn: replay, sleeps, sent events, the handler's own retries, suspension and what swallows it."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.db import connection, transaction
from django.test import override_settings
from django.utils import timezone

import django_durable as durable
from django_durable.core import clock
from django_durable.core.functions import registry
from django_durable.models import Event, Function, Run, Step, StepAttempt
from tests.engine.conftest import Engine, failure_of, in_seconds


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


# Results of runs


def test_a_result_that_cannot_be_stored_fails_the_run_at_once_with_path_and_remedy(engine: Engine) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> Any:
        return {"file": [nothing]}

    run = engine.start()

    assert run.status == "failed"
    error = failure_of(run)
    assert error.type == "django_durable.exceptions.EncodingError"
    assert error.message.startswith('result["file"][0]: a value of type function cannot be stored')


def test_a_result_that_is_too_large_fails_the_run_at_once(engine: Engine) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> str:
        return "x" * 1_000

    with override_settings(DURABLE={"DRIVER": "inline", "MAX_PAYLOAD": 1_000}):
        run = engine.start()

    assert run.status == "failed"
    assert "1,002 bytes of JSON exceed the limit of 1,000" in failure_of(run).message


def test_a_run_whose_function_is_not_in_the_code_waits_for_a_worker_that_knows_it(engine: Engine) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> str:
        step.sleep("nap", "1h")
        return "done"

    engine.start()
    registry._functions.clear()
    run = engine.advance("1h")
    assert (run.status, run.waiting_kind) == ("waiting", "code")
    assert "project/fn" in run.waiting_for

    registry.add(fn)
    assert engine.advance("1m").output == '"done"'


# Sleeps


@pytest.mark.parametrize(
    "duration", ["24h", "1 day", "1440m", "P1D", timedelta(days=1), 86_400, 86_400.0], ids=lambda value: repr(value)
)
def test_a_sleep_lasts_as_long_as_asked_in_every_form(engine: Engine, duration: Any) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        step.sleep("nap", duration)

    run = engine.start()
    assert (run.status, run.waiting_kind, run.waiting_for) == ("waiting", "sleep", "nap")
    assert in_seconds(run.next_at) == pytest.approx(86_400, abs=5)

    assert engine.advance("23h 59m").status == "waiting"
    assert engine.advance("1m").status == "completed"


@pytest.mark.parametrize("duration", [0, "0s", -1, "-1h", timedelta(days=-9_999)])
def test_a_sleep_of_nothing_or_less_goes_on_at_once(engine: Engine, duration: Any) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        step.sleep("nap", duration)

    assert engine.start().status == "completed"
    assert engine.step("nap").status == "completed"


def test_the_end_of_a_sleep_is_fixed_when_it_is_first_reached(engine: Engine) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        step.sleep("nap", event.data["hours"].pop() * 3_600 if event.data["hours"] else "10h")

    run = engine.start({"hours": [1]})
    due = engine.step("nap").next_at
    Event.objects.update(data={"hours": [5]})

    assert engine.advance("30m").next_at == due == run.next_at
    assert engine.advance("30m").status == "completed"


def test_sleeps_after_one_another_add_up(engine: Engine) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        step.sleep("a", "1h")
        step.sleep("b", "1h")

    engine.start()

    assert engine.advance("1h").waiting_for == "b"
    assert engine.advance("1h").status == "completed"


def tomorrow_in(zone: str) -> datetime:
    return datetime.combine(clock.now().astimezone(ZoneInfo(zone)).date() + timedelta(days=2), datetime.min.time())


@pytest.mark.parametrize(
    ("when", "moment"),
    [
        (lambda: clock.now() + timedelta(hours=1), lambda: clock.now() + timedelta(hours=1)),
        (
            lambda: tomorrow_in("Asia/Tokyo"),
            lambda: tomorrow_in("Asia/Tokyo").replace(tzinfo=ZoneInfo("Asia/Tokyo")),
        ),
        (
            lambda: tomorrow_in("Asia/Tokyo").date(),
            lambda: tomorrow_in("Asia/Tokyo").replace(tzinfo=ZoneInfo("Asia/Tokyo")),
        ),
        (lambda: "2090-01-31", lambda: datetime(2090, 1, 30, 15, tzinfo=UTC)),
        (lambda: "2090-01-31T09:00+01:00", lambda: datetime(2090, 1, 31, 8, tzinfo=UTC)),
    ],
    ids=["aware", "naive", "date", "ISO date", "ISO text"],
)
def test_a_sleep_ends_at_its_moment(engine: Engine, when: Callable[[], Any], moment: Callable[[], datetime]) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        step.sleep_until("nap", when())

    with timezone.override("Asia/Tokyo"):
        expected = moment()
        run = engine.start()

    assert run.next_at is not None
    assert abs(run.next_at - expected) < timedelta(seconds=5)


@pytest.mark.parametrize(
    "when", [datetime(2000, 1, 1, tzinfo=UTC), datetime(2000, 1, 1), date(2000, 1, 1), "2000-01-01"]
)
def test_a_moment_in_the_past_goes_on_at_once(engine: Engine, when: Any) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        step.sleep_until("nap", when)

    assert engine.start().status == "completed"


def test_of_a_moment_that_moves_the_first_value_stays_and_the_line_is_logged(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        step.sleep_until("nap", clock.now() + timedelta(hours=1))  # <- here

    engine.start()
    with caplog.at_level(logging.WARNING, "django_durable"):
        run = engine.advance("1h")

    assert run.status == "completed"
    assert "the first value stays" in caplog.text
    assert line_of(fn.handler, "here") in caplog.text


# Events sent by steps


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


# The handler's own attempts


def test_the_handlers_own_code_is_tried_again_with_the_steps_kept(engine: Engine) -> None:
    calls: list[Any] = []

    @engine.function(backoff="10s")
    def fn(event: durable.Event, step: durable.Step) -> str:
        step.run("once", calls.append, "body")
        calls.append(step.attempt)
        if step.attempt < 2:
            raise ValueError("not yet")
        return "done"

    run = engine.start()
    assert (run.status, run.waiting_kind, run.attempt) == ("waiting", "retry", 1)
    assert run.waiting_for == "attempt 2 of 5 of the handler: ValueError: not yet"

    engine.advance("10s")
    assert engine.advance("10s").output == '"done"'
    assert calls == ["body", 0, 1, 2]
    assert [(each.key, each.number, each.status) for each in StepAttempt.objects.all()] == [
        (None, 1, "failed"),
        (None, 2, "failed"),
    ]


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_the_run_fails_once_the_handlers_attempts_are_spent(engine: Engine, retries: int) -> None:
    calls = []

    @engine.function(retries=retries, backoff="1m")
    def fn(event: durable.Event, step: durable.Step) -> None:
        calls.append(1)
        raise ValueError(f"number {len(calls)}")

    engine.start()
    for _ in range(5):
        engine.advance("1m")

    assert len(calls) == retries + 1
    run = engine.run()
    assert run.status == "failed"
    assert failure_of(run).message == f"number {retries + 1}"


@pytest.mark.parametrize(
    "between",
    [
        lambda step: step.run("between", nothing),
        lambda step: step.sleep("between", "1h"),
        lambda step: step.wait_for_event("between", "app/never", timeout="1h"),
        lambda step: step.invoke("between", "child"),
    ],
    ids=["run", "sleep", "wait", "invoke"],
)
def test_a_recorded_step_gives_the_handler_its_attempts_back(
    engine: Engine, between: Callable[[durable.Step], object]
) -> None:
    failed = set()

    def fail_once(place: str) -> None:
        if place not in failed:
            failed.add(place)
            raise ValueError(place)

    @engine.function("child", trigger=None)
    def child(event: durable.Event, step: durable.Step) -> None:
        """Do nothing."""

    @engine.function(retries=1, backoff="1m")
    def fn(event: durable.Event, step: durable.Step) -> None:
        fail_once("before")
        between(step)
        fail_once("after")

    engine.start()
    for _ in range(3):
        engine.advance("1h")

    run = Run.objects.get(function="project/fn")
    assert (run.status, failed) == ("completed", {"before", "after"})


def test_a_handler_that_raises_non_retriable_is_not_tried_again(engine: Engine) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        raise durable.NonRetriable("stolen")

    run = engine.start()

    assert run.status == "failed"
    assert failure_of(run).message == "stolen"


@pytest.mark.parametrize(
    "when",
    [600, "10m", timedelta(minutes=10), lambda: clock.now() + timedelta(minutes=10)],
    ids=["seconds", "text", "timedelta", "datetime"],
)
def test_a_handler_may_choose_when_it_is_tried_again(engine: Engine, when: Any) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        if step.attempt == 0:
            raise durable.RetryAfter("busy", when() if callable(when) else when)

    run = engine.start()
    assert in_seconds(run.next_at) == pytest.approx(600, abs=5)

    assert engine.advance("10m").status == "completed"


@pytest.mark.parametrize(("error", "status"), [(KeyError, "waiting"), (ValueError, "failed")])
@pytest.mark.parametrize("place", ["step", "handler"])
def test_only_errors_of_the_given_classes_are_tried_again(
    engine: Engine, error: type[Exception], status: str, place: str
) -> None:
    def fail() -> None:
        raise error

    @engine.function(retry_on=LookupError)
    def fn(event: durable.Event, step: durable.Step) -> None:
        step.run("fail", fail) if place == "step" else fail()

    assert engine.start().status == status


@pytest.mark.parametrize(("error", "status"), [(KeyError, "failed"), (ValueError, "waiting")])
@pytest.mark.parametrize("place", ["step", "handler"])
def test_errors_of_the_excluded_classes_are_not_tried_again(
    engine: Engine, error: type[Exception], status: str, place: str
) -> None:
    def fail() -> None:
        raise error

    @engine.function(no_retry_on=LookupError)
    def fn(event: durable.Event, step: durable.Step) -> None:
        step.run("fail", fail) if place == "step" else fail()

    assert engine.start().status == status


def test_a_chosen_moment_is_still_an_attempt(engine: Engine) -> None:
    @engine.function(retries=1)
    def fn(event: durable.Event, step: durable.Step) -> None:
        raise durable.RetryAfter("busy", "10m")

    engine.start()

    assert engine.advance("10m").status == "failed"


def test_without_a_back_off_the_handler_is_tried_again_after_15_seconds(engine: Engine) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        raise ValueError

    assert 10 <= in_seconds(engine.start().next_at) <= 18.1


# Suspension


def line_of(function: Callable[..., object], marker: str) -> str:
    """Return file and line of the line of *function* that ends in ``# <- marker``."""
    lines, start = inspect.getsourcelines(function)
    return f"{__file__}:{start + next(index for index, line in enumerate(lines) if f'# <- {marker}' in line)}"


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


# Turns


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
