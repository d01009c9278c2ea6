"""What groups of branches cost on PostgreSQL: statements, commits, messages and replays are counted, never timed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

import django_durable as durable
from django_durable.engine.workers.ingest import ingest_events
from django_durable.engine.workers.work import work
from tests.behaviours.test_costs import counted, noted_transactions, sent_hints
from tests.engine.conftest import Engine

__all__ = ["noted_transactions"]

pytestmark = pytest.mark.needs("postgresql")

WIDTHS = (20, 40, 80)


@dataclass
class Cost:
    """What one run cost from its claim to its end."""

    statements: int
    commits: int
    messages: int
    passes: int
    memo_reads: int


def cost(engine: Engine, passes: list[int], data: dict[str, Any]) -> Cost:
    """Run it on one worker, and count."""
    passes.clear()
    with sent_hints() as hints:
        durable.send_event("test/start", data)
        list(ingest_events())
        hints.clear()
        with counted() as count:
            work(None)
    assert engine.run().status == "completed"
    reads = count.matching("FROM django_durable_step step LEFT JOIN")
    return Cost(len(count.statements), count.commits, len(hints), len(passes), reads)


@pytest.fixture
def mapped(engine: Engine) -> list[int]:
    """Register a function with a map of n items; return a list that grows with every pass of its handler."""
    passes: list[int] = []

    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        passes.append(1)
        step.map("item", int, range(event.data["n"]), limit=event.data.get("limit"))

    return passes


@pytest.fixture
def branched(engine: Engine) -> list[int]:
    """Register a function with n branches of two steps each."""
    passes: list[int] = []

    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        def branch() -> int:
            return step.run("a", int, 1) + step.run("b", int, 2)

        passes.append(1)
        step.parallel(*[branch] * event.data["n"])

    return passes


@pytest.mark.parametrize("limit", [None, 5], ids=["no limit", "limit"])
def test_each_item_of_a_map_costs_the_same(engine: Engine, mapped: list[int], limit: int | None) -> None:
    few, more, many = (cost(engine, mapped, {"n": width, "limit": limit}) for width in WIDTHS)

    assert many.statements - more.statements == 2 * (more.statements - few.statements)
    assert many.commits - more.commits == 2 * (more.commits - few.commits)


def test_an_item_of_a_map_costs_one_commit_and_one_statement(engine: Engine, mapped: list[int]) -> None:
    few, more, _ = (cost(engine, mapped, {"n": width}) for width in WIDTHS)

    assert more.commits - few.commits == 20
    assert more.statements - few.statements == 20


def test_a_branch_of_two_steps_costs_three_commits_and_four_statements(engine: Engine, branched: list[int]) -> None:
    few, more, many = (cost(engine, branched, {"n": width}) for width in WIDTHS)

    assert more.commits - few.commits == 20 * 3
    assert many.commits - more.commits == 40 * 3
    assert many.statements - more.statements == 40 * 4


@pytest.mark.parametrize("kind", ["mapped", "branched"])
def test_one_worker_goes_through_a_group_of_any_width_in_one_pass(
    engine: Engine, kind: str, request: pytest.FixtureRequest
) -> None:
    passes = request.getfixturevalue(kind)
    for width in WIDTHS:
        # One pass plans the branches, one runs them all, one goes on after the group.
        assert cost(engine, passes, {"n": width}).passes == 3


def test_a_map_of_any_width_sends_at_most_two_messages(engine: Engine, mapped: list[int]) -> None:
    for width in WIDTHS:
        assert cost(engine, mapped, {"n": width}).messages <= 2


def test_the_items_of_a_map_read_no_memos(engine: Engine, mapped: list[int]) -> None:
    assert len({cost(engine, mapped, {"n": width}).memo_reads for width in WIDTHS}) == 1


def test_a_group_inside_a_branch_costs_a_pass_for_each_of_its_like(engine: Engine) -> None:
    passes: list[int] = []

    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        passes.append(1)
        step.parallel(*[lambda: step.map("item", int, range(3))] * event.data["n"])

    few, more, many = (cost(engine, passes, {"n": width}).passes for width in (2, 4, 8))

    # Each inner group is planned in the pass of its branch, run in one, and left in one.
    assert many - more == 2 * (more - few)
    assert more - few <= 2 * 3
