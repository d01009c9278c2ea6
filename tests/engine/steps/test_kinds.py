"""The table of step kinds: what a new kind needs, and that every kind is in it."""

from __future__ import annotations

import typing
from dataclasses import dataclass
from typing import Any

import pytest

import django_durable as durable
from django_durable.core import clock
from django_durable.core.functions.async_steps import AsyncStep
from django_durable.core.functions.steps import Step
from django_durable.core.replay import groups, operations
from django_durable.core.replay.operations import Memo, StepKind, StepRef, StepStatus
from django_durable.engine.steps.kinds import KINDS, Kind, at_its_moment
from django_durable.engine.steps.opening import PendingStep
from django_durable.engine.steps.turn_context import TurnContext
from django_durable.engine.store.rows import StepRow
from tests.engine.conftest import Engine


# Its operation, in core/replay/operations.py
@dataclass(frozen=True, slots=True)
class Doze:
    """Go on at the next full hour, with its number."""

    ref: StepRef
    kind = StepKind.RUN

    def result(self, memo: Memo) -> int:
        assert memo.next_at is not None
        return memo.next_at.hour


# Its method, in core/functions/steps.py and async_steps.py
def doze(step: Any, id: str) -> Any:
    return step._replay.call(id, Doze)


# Its file, in engine/steps
def begin(turn: TurnContext, op: Any, memo: Memo | None) -> Memo | PendingStep:
    now = clock.now()
    if memo is not None:
        return turn.lease.record(StepRow.of(op, StepStatus.COMPLETED, now, next_at=memo.next_at, finished_at=now))
    hour = now.replace(hour=(now.hour + 1) % 24, minute=0, second=0, microsecond=0)
    row = StepRow.of(op, StepStatus.WAITING, now, next_at=hour)
    return PendingStep(row=row, kind="doze", text=f"{hour:%H} o'clock")


@pytest.fixture
def dozing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Add the kind: its method and its row in the table."""
    for steps in (Step, AsyncStep):
        monkeypatch.setattr(steps, "doze", doze, raising=False)
    monkeypatch.setitem(KINDS, Doze, Kind(begin=begin, is_due=at_its_moment))  # type: ignore[arg-type]


def test_a_kind_with_an_operation_a_method_a_file_and_a_row_works_in_plain_handlers(
    engine: Engine, dozing: None
) -> None:
    @engine.function()
    def fn(event: durable.Event, step: Any) -> list[int]:
        return [step.run("before", lambda: 1), step.doze("nap"), step.run("after", lambda: 2)]

    run = engine.start()
    assert (run.status, run.waiting_kind) == ("waiting", "doze")
    hour = engine.step("nap").next_at.hour  # type: ignore[union-attr]

    run = engine.advance("1h")
    assert (run.status, run.output) == ("completed", f"[1,{hour},2]")


def test_a_kind_with_an_operation_a_method_a_file_and_a_row_works_in_async_handlers(
    engine: Engine, dozing: None
) -> None:
    @engine.function()
    async def fn(event: durable.Event, step: Any) -> list[int]:
        return [await step.run("before", lambda: 1), await step.doze("nap")]

    run = engine.start()
    assert (run.status, run.waiting_kind) == ("waiting", "doze")
    hour = engine.step("nap").next_at.hour  # type: ignore[union-attr]

    run = engine.advance("1h")
    assert (run.status, run.output) == ("completed", f"[1,{hour}]")


def test_every_operation_that_a_handler_can_ask_for_has_a_row() -> None:
    assert {*typing.get_args(groups.Op)} <= {*KINDS}


@pytest.mark.parametrize("operation", [operations.WaitForEvent, operations.WaitForSignal, operations.Invoke])
def test_what_others_settle_is_never_due_in_its_own_turn(operation: type) -> None:
    assert KINDS[operation].is_due is None
