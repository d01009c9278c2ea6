"""The rows of functions follow the code."""

from __future__ import annotations

import pytest
from django.db import transaction
from django.test import override_settings

import django_durable as durable
from django_durable.core.functions import registry
from django_durable.engine.runs import catalog
from django_durable.models import Function, Run
from tests.engine.conftest import Engine


def nothing(event: durable.Event, step: durable.Step) -> None:
    """Do nothing."""


def test_sync_writes_what_the_code_has(engine: Engine) -> None:
    fn = durable.function(
        "shop/fulfil", trigger=["app/paid", durable.On("app/test", if_="true")], retries=2, queue="slow"
    )(nothing)
    fn.on_failure(nothing)

    catalog.sync()

    row = Function.objects.get(id="shop/fulfil")
    assert (row.slug, row.in_code, row.code_version) == ("fulfil", True, fn.code_version)
    assert row.config == {
        "triggers": [{"event": "app/paid", "if": None}, {"event": "app/test", "if": "true"}],
        "retries": 2,
        "queue": "slow",
        "checkpoint": None,
        "on_code_change": None,
        "on_failure": "shop/fulfil.on_failure",
        "on_cancel": None,
        "on_complete": None,
        "replay": "allow",
        "place": fn.place,
    }
    assert Function.objects.filter(id="shop/fulfil.on_failure").exists()


def test_sync_again_writes_what_changed_and_keeps_the_first_sight(engine: Engine) -> None:
    durable.function("fn", retries=1)(nothing)
    catalog.sync()
    first = Function.objects.get()

    registry._functions.clear()
    durable.function("fn", retries=7)(nothing)
    catalog.sync()

    row = Function.objects.get()
    assert (row.config["retries"], row.first_seen) == (7, first.first_seen)
    assert row.last_seen > first.last_seen


def test_a_function_that_the_code_lost_stays_and_says_so(engine: Engine) -> None:
    fn = durable.function("fn")(nothing)
    catalog.sync()
    registry._functions.clear()

    catalog.sync()
    assert Function.objects.get().in_code is False

    registry.add(fn)
    catalog.sync()
    assert Function.objects.get().in_code is True


def test_sync_of_nothing_is_fine(engine: Engine) -> None:
    catalog.sync()

    assert not Function.objects.exists()


def test_sync_survives_a_failure_function_that_is_not_there(engine: Engine) -> None:
    durable.function("fn", on_failure="nowhere")(nothing)

    catalog.sync()

    assert Function.objects.get().config["on_failure"] == "project/nowhere"


def test_a_function_gets_its_row_with_its_first_run(engine: Engine) -> None:
    engine.function()(nothing)
    assert not Function.objects.exists()

    assert engine.start().function_id == "project/fn"
    assert Function.objects.get().in_code is True


def test_a_row_that_was_rolled_back_is_written_again(engine: Engine) -> None:
    fn = engine.function()(nothing)

    with transaction.atomic():
        catalog.ensure([fn])
        transaction.set_rollback(True)
    assert not Function.objects.exists()

    assert engine.start().status == "completed"


def test_ensuring_twice_costs_nothing(engine: Engine, django_assert_num_queries: pytest.FixtureRequest) -> None:
    fn = engine.function()(nothing)
    catalog.ensure([fn])

    with django_assert_num_queries(0):  # type: ignore[operator]
        catalog.ensure([fn])


def test_runs_go_to_the_queue_of_their_function_or_the_default_one(engine: Engine) -> None:
    durable.function("slow", trigger="test/start", queue="slow")(nothing)
    durable.function("usual", trigger="test/start")(nothing)

    with override_settings(DURABLE={"DRIVER": "inline", "QUEUE": "ours"}):
        durable.send_event("test/start")

    assert dict(Run.objects.values_list("function", "queue")) == {"project/slow": "slow", "project/usual": "ours"}


def test_a_run_keeps_the_version_of_the_code_that_it_started_with(engine: Engine) -> None:
    fn = engine.function()(nothing)

    assert engine.start().code_version == fn.code_version
