"""``durable replay``: from a step, with other data, and where the function asks for a confirmation."""

from __future__ import annotations

import pytest

import django_durable
from django_durable.core.functions.functions import function
from django_durable.models import Run, Step
from tests.management.conftest import Durable

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("shop")]


def ordered(**data: object) -> Run:
    """Return the run of an order, which waits to be packed."""
    return Run.objects.get(event_id=django_durable.send_event("shop/order.paid", data))


def test_a_replay_from_a_step_keeps_what_was_before(durable: Durable) -> None:
    run = ordered(seat="b2")

    answer = durable("replay", run.pk, "--from-step", "charge", "--data", '{"seat": "c3"}', "--json")

    assert answer.code == 0
    assert Step.objects.get(run_id=answer.json["id"], name="reserve").output == '"B2"'


def test_a_replay_takes_other_data(durable: Durable) -> None:
    run = ordered(seat="b2")

    new_id = durable("replay", run.pk, "--data", '{"seat": "c3"}', "--json").json["id"]

    assert Step.objects.get(run_id=new_id, name="reserve").output == '"C3"'


@pytest.mark.parametrize(
    ("arguments", "code", "hint"),
    [
        (["--from-step", "chrage"], 1, "has no step 'chrage'; its steps are 'reserve', 'charge', 'packed'"),
        (["--data", "{"], 2, "this is no JSON"),
    ],
)
def test_what_cannot_be_is_refused(durable: Durable, arguments: list[str], code: int, hint: str) -> None:
    answer = durable("replay", ordered().pk, *arguments)

    assert (answer.code, Run.objects.count()) == (code, 1)
    assert hint in answer.stderr


def test_a_function_that_asks_for_it_is_replayed_with_yes(durable: Durable) -> None:
    run_id = function("shop/pay-out", replay="confirm")(lambda event, step: None).start().id

    refused = durable("replay", run_id)
    assert (refused.code, Run.objects.count()) == (1, 1)
    assert "--yes" in refused.stderr

    assert durable("replay", run_id, "--yes").code == 0
    assert Run.objects.count() == 2
