"""``durable show``: a run and its steps."""

from __future__ import annotations

import pytest

import django_durable
from tests.management.conftest import Durable, ordered

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("shop")]

RUN_KEYS = {"id", "function", "status", "waiting_for", "event", "output", "error", "created_at", "finished_at"}
STEP_KEYS = {"id", "ordinal", "kind", "status", "attempt", "unused", "output", "error"}


def test_show_prints_the_run_and_its_steps(durable: Durable) -> None:
    run = ordered(seat="b2")

    document = durable("show", run.pk, "--json").json

    assert set(document) == RUN_KEYS | {"steps"}
    assert document["status"] == "waiting"
    assert [(step["id"], step["kind"], step["status"]) for step in document["steps"]] == [
        ("reserve", "run", "completed"),
        ("charge", "run", "completed"),
        ("packed", "wait", "waiting"),
    ]
    assert set(document["steps"][0]) == STEP_KEYS
    assert document["steps"][0]["output"] == "B2"


def test_show_prints_a_table_of_steps_for_people(durable: Durable) -> None:
    text = durable("show", ordered(seat="b2").pk).stdout

    assert "waiting for  event shop/order.packed" in text
    assert text.isascii()
    assert any(line.split() == ["reserve", "run", "completed", "0", '"B2"'] for line in text.splitlines())


def test_a_run_shows_its_output_once_it_is_done(durable: Durable) -> None:
    run = ordered(seat="b2")
    django_durable.send_event("shop/order.packed", {})

    document = durable("show", run.pk, "--json").json

    assert (document["status"], document["output"], document["waiting_for"]) == ("completed", "seat B2", None)
