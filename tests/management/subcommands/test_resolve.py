"""``durable resolve``, ``wake`` and ``retry``: what is settled by hand."""

from __future__ import annotations

import uuid

import pytest

import django_durable
from django_durable.core.functions.functions import function
from django_durable.models import Run, Step
from tests.management.conftest import Durable

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("shop")]


def ordered() -> Run:
    """Return the run of an order, which waits to be packed."""
    return Run.objects.get(event_id=django_durable.send_event("shop/order.paid", {}))


def test_a_wait_is_answered(durable: Durable) -> None:
    run = ordered()

    answer = durable("resolve", run.pk, "packed", '{"by": "Ada"}', "--json")

    event = Step.objects.select_related("event").get(name="packed").event
    assert (answer.code, answer.json["status"], event and event.data) == (0, "completed", {"by": "Ada"})


def test_a_wait_times_out(durable: Durable) -> None:
    run = ordered()

    assert durable("resolve", run.pk, "packed", "--time-out").code == 0

    assert Step.objects.get(name="packed").event is None
    assert Run.objects.get().status == "completed"


def test_a_wait_is_settled_once(durable: Durable) -> None:
    function("shop/slow", trigger="shop/order.paid")(lambda event, step: _wait_twice(step))
    run = Run.objects.get(event_id=django_durable.send_event("shop/order.paid", {}), function="shop/slow")
    durable("resolve", run.pk, "first")

    answer = durable("resolve", run.pk, "first")

    assert answer.code == 1
    assert f"Step 'first' was settled already; run {run.pk} is waiting" in answer.stderr


def _wait_twice(step: django_durable.Step) -> None:
    step.wait_for_event("first", "shop/never", timeout="1d")
    step.wait_for_event("second", "shop/never", timeout="1d")


@pytest.mark.parametrize(
    ("step", "hint"),
    [("pakced", "has no step 'pakced'; its steps are"), ("reserve", "was settled already")],
)
def test_a_step_that_does_not_wait_is_refused(durable: Durable, step: str, hint: str) -> None:
    answer = durable("resolve", ordered().pk, step)

    assert answer.code == 1
    assert hint in answer.stderr


def test_data_and_a_time_out_exclude_one_another(durable: Durable) -> None:
    assert durable("resolve", uuid.uuid4(), "packed", "{}", "--time-out").code == 2


def test_a_sleep_ends(durable: Durable) -> None:
    run_id = function("shop/nap")(lambda event, step: step.sleep("nap", "1d")).start().id

    answer = durable("wake", run_id, "--json")

    assert (answer.code, answer.json["status"]) == (0, "completed")


def test_the_next_attempt_starts_now(durable: Durable) -> None:
    run_id = function("shop/broken", retries=1)(lambda event, step: step.run("work", int, "no number")).start().id

    answer = durable("retry", run_id, "--json")

    assert (answer.code, answer.json["status"]) == (0, "failed")


@pytest.mark.parametrize("subcommand", ["wake", "retry"])
def test_a_run_that_does_not_wait_is_refused(durable: Durable, subcommand: str) -> None:
    run_id = function("shop/quick")(lambda event, step: None).start().id

    answer = durable(subcommand, run_id)

    assert answer.code == 1
    assert f"Run {run_id} does not wait: it is completed" in answer.stderr


@pytest.mark.parametrize("subcommand", ["wake", "retry"])
def test_a_run_that_waits_for_something_else_is_refused(durable: Durable, subcommand: str) -> None:
    answer = durable(subcommand, ordered().pk)

    assert answer.code == 1
    assert "it waits for event: event shop/order.packed" in answer.stderr
