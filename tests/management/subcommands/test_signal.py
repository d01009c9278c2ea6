"""``durable signal``: data for a step that waits for them."""

from __future__ import annotations

import pytest

import django_durable
from django_durable.core.functions.functions import function
from django_durable.models import Run
from tests.management.conftest import Durable

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("shop")]


def asking() -> Run:
    """Return a run that waits for the signal ``approve-7``."""

    def ask(event: django_durable.Event, step: django_durable.Step) -> object:
        return step.wait_for_signal("approval", "approve-7", timeout="3d")

    return Run.objects.get(pk=function("shop/ask")(ask).start().id)


def test_a_signal_reaches_the_step_that_waits_for_it(durable: Durable) -> None:
    run = asking()

    answer = durable("signal", "approve-7", '{"approved": true}', "--json")

    run.refresh_from_db()
    assert (answer.code, answer.json) == (0, {"signal": "approve-7"})
    assert (run.status, run.output) == ("completed", '{"approved":true}')


def test_a_signal_without_data_gives_nothing(durable: Durable) -> None:
    run = asking()

    answer = durable("signal", "approve-7")

    run.refresh_from_db()
    assert answer.stdout == "The signal 'approve-7' was sent.\n"
    assert run.output == "null"


def test_a_signal_that_nobody_waits_for_is_refused(durable: Durable) -> None:
    run = asking()

    answer = durable("signal", "approve-8", "{}")

    run.refresh_from_db()
    assert answer.code == 1
    assert "No run waits for the signal 'approve-8'" in answer.stderr
    assert run.status == "waiting"


def test_a_name_that_no_signal_can_have_is_refused(durable: Durable) -> None:
    answer = durable("signal", "x" * 256)

    assert answer.code == 1
    assert "a signal's name is text of 1 to 255 characters" in answer.stderr
