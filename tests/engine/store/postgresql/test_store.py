"""What is hot takes one statement. What it does stands in the contract suite: test_contract.py and portable/."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from django_durable.core.replay.operations import StepStatus
from django_durable.engine.store.contract import Store
from django_durable.engine.store.rows import BranchEnd, Claim, NextClaim, Parking, Resolution
from django_durable.models import Run

from ..conftest import LEASE, REHINT, claim_of, failed_attempt, key, make_run, parking, step_row
from ..portable.test_branches import held, make_group

pytestmark = pytest.mark.needs("postgresql")

Operation = Callable[[Store, Run], Any]


def of_turn(operation: Callable[[Store, Claim], Any]) -> Operation:
    """Return the write of a turn, under the claim that holds the run."""
    return lambda store, run: operation(store, claim_of(run))


RUNNING: dict[str, Operation] = {
    "record": of_turn(lambda s, c: s.record(c, step_row("s"), lease=LEASE, failed=failed_attempt())),
    "park": of_turn(lambda s, c: s.park(c, parking(), rehint=REHINT)),
    "park without rows": of_turn(lambda s, c: s.park(c, Parking(next_at=None, kind="k", text="t"), rehint=REHINT)),
    "release": of_turn(lambda s, c: s.release(c, after=LEASE, rehint=REHINT)),
    "end": of_turn(lambda s, c: s.end(c, "completed", output="1")),
    "end, and claim": of_turn(lambda s, c: s.end(c, "completed", next_claim=NextClaim("me", LEASE))),
    "renew": of_turn(lambda s, c: s.renew([c], lease=LEASE)),
    "memos": of_turn(lambda s, c: s.memos(c)),
    "resolve": lambda s, run: s.resolve([Resolution(run_id=run.id, key=key("open"))], rehint=REHINT),
}
QUEUED: dict[str, Operation] = {
    "claim": lambda s, run: s.claim(run.id, owner="me", lease=LEASE),
    "claim_ready": lambda s, run: s.claim_ready(None, owner="me", lease=LEASE),
    "has_events_or_ready": lambda s, run: s.has_events_or_ready("default"),
    "hint_later": lambda s, run: s.hint_later([run.id], rehint=REHINT),
}


@pytest.fixture
def count(store: Store) -> Callable[[Operation, Run], int]:
    """Give a count of the statements that an operation of PostgreSQL's store takes."""
    if type(store).__name__ != "PostgreSQLStore":
        pytest.skip("the portable store takes as many as it needs")
    for _ in range(2):
        store.has_events()  # A new connection is looked at once, see prepared.py.

    def counted(operation: Operation, run: Run) -> int:
        with CaptureQueriesContext(connection) as captured:
            assert operation(store, run) is not False
        return len(captured)

    return counted


@pytest.mark.parametrize("name", RUNNING)
def test_an_operation_on_a_run_that_is_held_takes_one_statement(count: Callable[..., int], name: str) -> None:
    assert count(RUNNING[name], make_run("live")) == 1


@pytest.mark.parametrize("name", QUEUED)
def test_an_operation_on_a_ready_run_takes_one_statement(count: Callable[..., int], name: str) -> None:
    assert count(QUEUED[name], make_run("queued")) == 1


def test_the_end_of_a_branch_takes_one_statement(count: Callable[..., int]) -> None:
    run = make_group("live", "planned")
    claim, end = held(run), BranchEnd(status=StepStatus.COMPLETED, output="1")
    assert count(lambda store, run: store.end_branch(claim, end, rehint=REHINT), run) == 1
