"""Signals: who waits for a name, who sends to it, and what happens when two do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.db import transaction
from django.test import override_settings

import django_durable as durable
from django_durable.core import clock
from django_durable.core.durations import parse_duration
from django_durable.core.values import encoding
from django_durable.engine.runs import interventions
from django_durable.engine.steps.wait_for_signal import send
from django_durable.engine.workers.ingest import ingest_events
from django_durable.engine.workers.work import work
from django_durable.models import Run, Step, Wait
from tests.behaviours.racing import Track
from tests.engine.conftest import Engine, failure_of, in_seconds


@pytest.fixture
def asking(engine: Engine) -> Callable[..., Run]:
    """Return a function that starts a run which returns the data of the signal that it waits for."""

    @engine.function(retries=0)
    def ask(event: durable.Event, step: durable.Step) -> Any:
        options = {"timeout": "1h", **event.data.get("options", {})}
        return [step.wait_for_signal("wait", event.data.get("signal", "approve-7"), **options)]

    def start(signal: str = "approve-7", **options: Any) -> Run:
        return engine.start({"signal": signal, "options": options})

    return start


def now(run: Run) -> Run:
    run.refresh_from_db()
    return run


def value_of(run: Run) -> Any:
    return encoding.decode(run.output or "null")


# What comes


@pytest.mark.parametrize("data", [None, True, 7, "yes", [1, "2"], {"approved": True, "by": {"name": "Ada"}}])
def test_a_signal_gives_its_data_to_the_step_that_waits_for_it(asking: Callable[..., Run], data: Any) -> None:
    run = asking()

    assert durable.send_signal("approve-7", data) is True

    assert now(run).status == "completed"
    assert value_of(run) == [data]
    assert not Wait.objects.exists()


def test_a_run_says_which_signal_it_waits_for_and_until_when(asking: Callable[..., Run], engine: Engine) -> None:
    run = asking()

    assert (run.status, run.waiting_kind, run.waiting_for) == ("waiting", "signal", "signal approve-7")
    assert 3590 < in_seconds(engine.step("wait").next_at) <= 3600


def test_a_wait_for_a_signal_times_out(asking: Callable[..., Run], engine: Engine) -> None:
    asking()

    assert engine.advance("59m").status == "waiting"
    assert engine.advance("2m").output == "[null]"


def test_a_signal_after_the_time_out_reaches_nobody(asking: Callable[..., Run], engine: Engine) -> None:
    asking()
    engine.advance("61m")

    assert durable.send_signal("approve-7", 1) is False
    assert engine.run().output == "[null]"


def test_a_signal_is_late_also_while_nobody_has_timed_the_wait_out(asking: Callable[..., Run]) -> None:
    run = asking()
    clock.move(parse_duration("61m"))

    assert durable.send_signal("approve-7", 1) is False
    assert now(run).status == "waiting"


@pytest.mark.parametrize("other", ["approve-8", "APPROVE-7", "approve-7 ", "approve", "approve-77"])
def test_a_signal_of_another_name_reaches_nobody(asking: Callable[..., Run], other: str) -> None:
    run = asking()

    assert durable.send_signal(other) is False
    assert now(run).status == "waiting"


def test_a_signal_reaches_its_step_once(asking: Callable[..., Run]) -> None:
    run = asking()

    assert [durable.send_signal("approve-7", 1), durable.send_signal("approve-7", 2)] == [True, False]
    assert now(run).output == "[1]"


def test_a_signal_is_no_event(asking: Callable[..., Run]) -> None:
    run = asking()

    durable.send_event("approve-7", {})

    assert now(run).status == "waiting"


def test_a_signal_is_sent_from_async_code(asking: Callable[..., Run]) -> None:
    run = asking()

    assert async_to_sync(durable.asend_signal)("approve-7", 1) is True
    assert now(run).output == "[1]"


def test_a_wait_for_a_signal_is_answered_by_hand(asking: Callable[..., Run]) -> None:
    run = asking()

    assert interventions.resolve_wait(run.pk, "wait", 5)
    assert now(run).output == "[5]"


def test_a_cancelled_run_waits_for_no_signal(asking: Callable[..., Run]) -> None:
    durable.cancel_run(asking().pk)

    assert durable.send_signal("approve-7") is False


# What is refused


@pytest.mark.parametrize("name", ["", "x" * 256, "a\0b", "\ud800", 7, None])
def test_what_is_no_name_is_refused_when_it_is_sent(engine: Engine, name: Any) -> None:
    with pytest.raises(durable.DurableError, match="a signal's name is text of 1 to 255 characters"):
        durable.send_signal(name)


def test_the_longest_name_is_sent(asking: Callable[..., Run]) -> None:
    run = asking("x" * 255)

    assert durable.send_signal("x" * 255, 1)
    assert now(run).output == "[1]"


def test_data_that_cannot_be_stored_are_refused_and_leave_the_wait(asking: Callable[..., Run]) -> None:
    run = asking()

    with pytest.raises(durable.EncodingError, match="data"):
        durable.send_signal("approve-7", {"file": object()})

    assert now(run).status == "waiting"
    assert durable.send_signal("approve-7", 1)


# A name that is waited for already


def test_a_name_that_is_waited_for_already_is_an_error_that_names_the_run(
    asking: Callable[..., Run], engine: Engine
) -> None:
    first = asking()

    second = asking()

    error = failure_of(second)
    assert (now(first).status, second.status) == ("waiting", "failed")
    assert f"Run {first.pk} waits for the signal 'approve-7' already" in error.message
    assert "replace=True" in error.message


def test_a_taken_name_can_be_caught_and_the_error_is_recorded(asking: Callable[..., Run], engine: Engine) -> None:
    @engine.function("other", trigger="test/other")
    def other(event: durable.Event, step: durable.Step) -> Any:
        try:
            return step.wait_for_signal("wait", "approve-7", timeout="1h")
        except durable.StepError as error:
            step.sleep("pause", "1m")
            return [error.is_a(durable.SignalTaken), error.attempts]

    asking()
    durable.send_event("test/other")

    assert engine.advance("2m").output == "[true,1]"


def test_a_taken_name_can_be_taken_over_and_the_first_gets_none(asking: Callable[..., Run]) -> None:
    first = asking()

    second = asking(replace=True)

    assert (now(first).status, first.output) == ("completed", "[null]")
    assert durable.send_signal("approve-7", 2)
    assert now(second).output == "[2]"


def test_a_free_name_needs_no_taking_over(asking: Callable[..., Run]) -> None:
    run = asking(replace=True)

    assert durable.send_signal("approve-7", 1)
    assert now(run).output == "[1]"


def test_a_name_is_free_again_once_its_wait_is_settled(asking: Callable[..., Run]) -> None:
    asking()
    durable.send_signal("approve-7", 1)

    second = asking()

    assert second.status == "waiting"


# In branches


def test_a_signal_reaches_a_step_in_a_branch(engine: Engine) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> Any:
        return step.parallel(
            lambda: step.wait_for_signal("wait", "one", timeout="1h"),
            lambda: step.wait_for_signal("wait", "two", timeout="1h"),
        )

    engine.start()

    assert [durable.send_signal("two", 2), engine.run().status, durable.send_signal("one", 1)] == [
        True,
        "waiting",
        True,
    ]
    assert value_of(engine.run()) == (1, 2)


def test_two_branches_of_a_run_cannot_wait_for_the_same_name(engine: Engine) -> None:
    @engine.function(retries=0)
    def fn(event: durable.Event, step: durable.Step) -> Any:
        step.parallel(*[lambda: step.wait_for_signal("wait", "one", timeout="1h")] * 2)

    run = engine.start()

    durable.send_signal("one", 1)

    assert "waits for the signal 'one' already" in failure_of(now(run)).message


def test_the_wait_of_a_branch_that_lost_a_race_is_closed(engine: Engine) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> Any:
        result = step.race(
            lambda: step.wait_for_signal("approved", "approve-7", timeout="1d"),
            lambda: step.wait_for_signal("refused", "refuse-7", timeout="1d"),
        )
        return [result.index, result.value]

    engine.start()

    durable.send_signal("refuse-7", "too dear")

    assert engine.run().output == '[1,"too dear"]'
    assert (engine.step("approved").status, engine.step("race").winner) == ("cancelled", 1)
    assert durable.send_signal("approve-7") is False


# Transactions and races


def test_a_signal_is_part_of_its_senders_transaction(asking: Callable[..., Run]) -> None:
    run = asking()

    with transaction.atomic():
        sent = durable.send_signal("approve-7", 1)
        transaction.set_rollback(True)

    assert sent is True
    assert now(run).status == "waiting"
    assert Wait.objects.count() == 1
    assert durable.send_signal("approve-7", 2) is True
    assert now(run).output == "[2]"


def test_a_run_goes_on_when_its_senders_transaction_commits(asking: Callable[..., Run]) -> None:
    run = asking()

    with transaction.atomic():
        durable.send_signal("approve-7", 1)
        before = now(run).output

    assert (before, now(run).output) == (None, "[1]")


@pytest.fixture
def track(engine: Engine) -> Iterator[Track]:
    """Give threads to race on, with an engine where every hint is lost."""
    with override_settings(DURABLE={"DRIVER": "tests.engine.conftest.DeafDriver"}):
        track = Track()
        try:
            yield track
        finally:
            track.close()


def start_many(count: int) -> None:
    """Start runs that wait for the signals 0, 1, …"""
    durable.send_events(durable.Event("test/start", {"signal": str(number)}) for number in range(count))
    list(ingest_events())
    work(None)


@pytest.mark.needs("postgresql")
def test_of_two_senders_at_once_one_reaches_the_step(track: Track, asking: Callable[..., Run]) -> None:
    start_many(30)

    answers = [track.race(partial(send, str(n), "a"), partial(send, str(n), "b")) for n in range(30)]

    assert [sorted(each) for each in answers] == [[False, True]] * 30
    outputs = Step.objects.order_by("run_id").values_list("output", flat=True)
    assert [*outputs] == ['"a"' if first else '"b"' for first, _ in answers]
    assert Run.objects.filter(status="queued", wakes=1).count() == 30


@pytest.mark.needs("postgresql")
def test_of_two_runs_that_ask_for_a_name_at_once_one_gets_it(track: Track, asking: Callable[..., Run]) -> None:
    for number in range(20):
        durable.send_events([durable.Event("test/start", {"signal": str(number)})] * 2)
        list(ingest_events())
        track.race(partial(work, None), partial(work, None))

        assert Wait.objects.filter(name=str(number)).count() == 1

    assert Step.objects.filter(status="failed").count() == 20
