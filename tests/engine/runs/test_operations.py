"""The table of operations: who may do what to a run, when, and what it says when it is too late."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest
from django.apps import apps
from django.contrib.auth import get_permission_codename

import django_durable as durable
from django_durable.engine.runs.operations import (
    CANCEL,
    OPERATIONS,
    REPLAY,
    RESOLVE,
    RETRY,
    TIME_OUT,
    WAKE,
    Operation,
    TooLate,
    useful,
)
from django_durable.exceptions import RunNotFound
from django_durable.models import Run
from tests.engine.conftest import Engine

Handler = Callable[[durable.Event, durable.Step], Any]


def _models() -> list[Any]:
    return list(apps.get_app_config("django_durable").get_models())


def test_an_operation_without_a_permission_cannot_be_declared() -> None:
    row = {field.name: getattr(WAKE, field.name) for field in fields(WAKE)}
    del row["permission"]

    with pytest.raises(TypeError, match="permission"):
        Operation(**row)


def test_each_operation_needs_a_permission_that_a_model_has() -> None:
    own = {codename for model in _models() for codename, _ in model._meta.permissions}
    usual = {
        get_permission_codename(action, model._meta)
        for model in _models()
        for action in model._meta.default_permissions
    }

    needed = {operation.permission for operation in OPERATIONS.values()}

    assert needed <= {f"django_durable.{codename}" for codename in own | usual}


def test_each_permission_that_a_model_adds_is_needed_by_an_operation() -> None:
    own = {f"django_durable.{codename}" for model in _models() for codename, _ in model._meta.permissions}

    assert own <= {operation.permission for operation in OPERATIONS.values()}


def test_the_table_knows_each_operation_by_its_name() -> None:
    assert {name: operation.name for name, operation in OPERATIONS.items()} == {name: name for name in OPERATIONS}


# Doing


def _asks(event: durable.Event, step: durable.Step) -> Any:
    return step.wait_for_event("answer", "test/answer", timeout="1h")


def _sleeps(event: durable.Event, step: durable.Step) -> None:
    step.sleep("nap", "1d")


def _fails(event: durable.Event, step: durable.Step) -> None:
    step.run("work", int, "not a number")


def _ends(event: durable.Event, step: durable.Step) -> str:
    return "done"


ARGUMENTS: dict[str, dict[str, Any]] = {"resolve": {"step": "answer", "data": {}}, "time_out": {"step": "answer"}}
IN_TIME: list[tuple[Operation, Handler]] = [
    (RESOLVE, _asks),
    (TIME_OUT, _asks),
    (WAKE, _sleeps),
    (RETRY, _fails),
    (CANCEL, _sleeps),
]


def run_of(engine: Engine, handler: Handler) -> Run:
    """Return a run of the handler, which has gone as far as it can."""
    engine.function(retries=1)(handler)
    return engine.start()


@pytest.mark.parametrize(("operation", "handler"), IN_TIME, ids=lambda each: getattr(each, "name", ""))
def test_an_operation_in_time_returns_its_run(engine: Engine, operation: Operation, handler: Handler) -> None:
    run = run_of(engine, handler)

    assert operation.do(str(run.id), **ARGUMENTS.get(operation.name, {})) == run.id

    assert engine.run().status in ("completed", "failed", "cancelled")


def test_a_replay_returns_the_new_run(engine: Engine) -> None:
    run = run_of(engine, _ends)

    assert REPLAY.do(run.id) == Run.objects.get(replay_of=run).id


@pytest.mark.parametrize(
    ("operation", "text"),
    [
        (RESOLVE, "Step 'answer' was settled already; run {} is completed"),
        (TIME_OUT, "Step 'answer' was settled already; run {} is completed"),
        (WAKE, "Run {} does not wait: it is completed"),
        (RETRY, "Run {} does not wait: it is completed"),
        (CANCEL, "Run {} had ended already: it is completed"),
    ],
    ids=lambda each: getattr(each, "name", ""),
)
def test_an_operation_that_is_too_late_says_why(engine: Engine, operation: Operation, text: str) -> None:
    run = run_of(engine, _asks)
    RESOLVE.do(run.id, step="answer")
    arguments = ARGUMENTS.get(operation.name, {})

    assert operation.do(run.id, **arguments) is None
    with pytest.raises(TooLate) as late:
        operation.do_or_raise(run.id, **arguments)
    assert str(late.value) == text.format(run.id)


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=lambda operation: operation.name)
@pytest.mark.parametrize("run_id", ["7", "0199a1b2-0000-7000-8000-000000000000"])
def test_an_operation_on_no_run_says_so(engine: Engine, operation: Operation, run_id: str) -> None:
    with pytest.raises(RunNotFound, match=run_id):
        operation.do(run_id, **ARGUMENTS.get(operation.name, {}))


# Offering


@pytest.mark.parametrize(
    ("handler", "offered"),
    [
        (_asks, [RESOLVE, TIME_OUT, CANCEL, REPLAY]),
        (_sleeps, [WAKE, CANCEL, REPLAY]),
        (_fails, [RETRY, CANCEL, REPLAY]),
        (_ends, [REPLAY]),
    ],
)
def test_a_run_is_offered_the_operations_that_fit_it(
    engine: Engine, handler: Handler, offered: list[Operation]
) -> None:
    assert useful(run_of(engine, handler)) == offered


def test_a_handler_that_is_tried_again_is_offered_a_retry(engine: Engine) -> None:
    assert useful(run_of(engine, lambda event, step: int("not a number"))) == [RETRY, CANCEL, REPLAY]
