"""Groups of branches: in which order one worker takes them, and who won."""

from __future__ import annotations

from typing import Any

import pytest

import django_durable as durable
from django_durable.models import Step
from tests.engine.conftest import Engine

Log = list[Any]


def noting(step: durable.Step, log: Log, name: str) -> Any:
    """Return a branch that notes its name in a step."""
    return lambda: step.run(name, log.append, name)


def test_one_worker_takes_branches_in_their_order(engine: Engine) -> None:
    log: Log = []
    names = [f"branch-{number}" for number in range(12)]

    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        plain = [noting(step, log, name) for name in names]
        step.parallel(*plain, later=noting(step, log, "later"), last=noting(step, log, "last"))

    engine.start()

    assert log == [*names, "later", "last"]
    branches = Step.objects.filter(kind="branch").in_order()
    assert len({branch.planned_at for branch in branches}) == 14
    assert [branch.path.rpartition("/")[2] for branch in branches] == [*map(str, range(12)), "later", "last"]


@pytest.mark.parametrize("winner", [0, 1, 2])
def test_a_race_keeps_which_branch_won(engine: Engine, winner: int) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> list[Any]:
        waits = [lambda n=n: step.wait_for_signal("wait", f"signal-{n}", timeout="1d") for n in range(2)]
        first = step.race(*waits, label=lambda: step.wait_for_signal("wait", "signal-2", timeout="1d"))
        return [first.index, first.value]

    engine.start()
    durable.send_signal(f"signal-{winner}", "done")

    assert engine.run().output == f'[{winner},"done"]'
    assert engine.step("race").winner == winner
