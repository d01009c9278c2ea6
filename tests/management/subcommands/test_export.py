"""``durable export``: the history of a run, for tests."""

from __future__ import annotations

import json

import pytest

import django_durable
from django_durable.models import Run
from django_durable.testing import replay_history
from tests.management.conftest import Durable

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("shop")]


@pytest.mark.parametrize("arguments", [[], ["--json"]])
def test_what_is_printed_can_be_replayed(durable: Durable, arguments: list[str]) -> None:
    django_durable.send_event("shop/order.paid", {"seat": "b2"})
    run = Run.objects.get()

    answer = durable("export", run.pk, *arguments)

    assert answer.code == 0
    assert json.loads(answer.stdout) == django_durable.export_history(run.pk)
    step = replay_history(answer.stdout).step
    assert (step and step.name, step and step.recorded) == ("packed", True)
