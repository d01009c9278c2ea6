"""Each invariant is seen to be broken where it is: rows and ledgers that no engine would leave."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from django_durable.core.ids import uuid7
from django_durable.models import Event, Function, Run, RunStatus, Step, StepKind, StepStatus, Wait

from . import invariants

pytestmark = pytest.mark.django_db(transaction=True)

NOW = timezone.now()

Make = Callable[..., Run]


@pytest.fixture
def make() -> Make:
    """Store runs as they should be, but for what is given."""
    function = Function.objects.create(id="tests/fn", slug="fn", first_seen=NOW, last_seen=NOW)

    def make(**values: Any) -> Run:
        ended = {"status": RunStatus.COMPLETED, "output": "1", "fence": 2, "finished_at": NOW}
        chosen = {**ended, **values}
        if chosen["status"] != RunStatus.COMPLETED:
            chosen["finished_at"] = None
        return Run.objects.create(function=function, created_at=NOW, queue="celery", **chosen)

    return make


def memo(run: Run, name: str, seq: int, **values: Any) -> Step:
    """Store a memo of the run."""
    recorded = {"kind": StepKind.RUN, "status": StepStatus.COMPLETED, "output": "1", "finished_at": NOW}
    key = f"{name}-{seq}".encode().ljust(16, b"-")[:16]
    return Step.objects.create(run=run, key=key, name=name, seq=seq, planned_at=NOW, **{**recorded, **values})


def began(run: Run, step: str, later: float = -1.0, pid: int = 1) -> dict[str, Any]:
    """Return the line of a body that began so many seconds after now."""
    return {"run": str(run.id), "step": step, "ordinal": 0, "time": NOW.timestamp() + later, "pid": pid}


def broken(found: list[str]) -> list[str]:
    """Return the numbers of what was found."""
    return [each.partition(" ")[0] for each in found]


def test_nothing_is_found_where_all_is_well(make: Make) -> None:
    run = make()
    memo(run, "one", 1)
    make(status=RunStatus.WAITING, next_at=NOW)

    assert invariants.violations([began(run, "one")], outputs={str(run.id): 1}, before=invariants.settled()) == []


def wait_of(run: Run) -> None:
    """Open a wait of the run."""
    Wait.objects.create(run=run, key=b"0" * 16, kind=Wait.Kind.EVENT, match_key=b"0" * 16, created_at=NOW)


def test_1_a_run_that_nothing_leads_to_is_found(make: Make) -> None:
    make(status=RunStatus.WAITING)

    assert broken(invariants.violations([])) == ["I1"]


def test_1_an_ended_run_that_still_waits_is_found(make: Make) -> None:
    wait_of(make())

    assert broken(invariants.violations([])) == ["I1"]


def test_1_a_wait_leads_to_a_run(make: Make) -> None:
    wait_of(make(status=RunStatus.WAITING))

    assert invariants.violations([]) == []


def test_2_two_memos_of_one_number_are_found(make: Make) -> None:
    run = make()
    memo(run, "one", 1)
    memo(run, "two", 1)

    assert broken(invariants.violations([])) == ["I2"]


def test_3_a_body_that_begins_after_its_memo_is_found(make: Make) -> None:
    run = make()
    memo(run, "one", 1)

    assert broken(invariants.violations([began(run, "one"), began(run, "one", later=5)])) == ["I3"]


def test_4_memos_that_change_hands_more_often_than_the_run_are_found(make: Make) -> None:
    run = make()
    ledger = []
    for seq, pid in enumerate([1, 2, 1], 1):
        memo(run, f"step {seq}", seq)
        ledger.append(began(run, f"step {seq}", pid=pid))

    assert broken(invariants.violations(ledger)) == ["I4"]


def test_4_a_memo_without_a_body_is_found(make: Make) -> None:
    run = make()
    memo(run, "one", 1)
    memo(run, "two", 2)

    assert broken(invariants.violations([began(run, "one")])) == ["I4"]


@pytest.mark.parametrize("model", [Run, Step])
def test_5_a_memo_and_an_end_that_change_are_found(make: Make, model: Any) -> None:
    memo(make(), "one", 1)
    before = invariants.settled()

    model.objects.update(output="2")

    assert broken(invariants.violations([], before=before)) == ["I2/I5"]


def test_6_an_event_that_resolves_a_wait_twice_is_found(make: Make) -> None:
    event = Event.objects.create(id=uuid7(), name="a", data={}, ts=NOW, received_at=NOW, ingest_at=NOW, ingested_at=NOW)
    run = make()
    for number in (1, 2):
        memo(run, "reply", number, ordinal=number, kind=StepKind.WAIT, event=event)

    assert broken(invariants.violations([])) == ["I6"]


def test_7_another_output_is_found(make: Make) -> None:
    assert broken(invariants.violations([], outputs={str(make().id): 2})) == ["I7"]


@pytest.mark.needs("postgresql")
def test_8_a_transaction_that_is_left_open_and_a_connection_too_many_are_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(invariants, "IDLE", 0.0)
    other = connection.copy()
    try:
        other.set_autocommit(False)
        other.cursor().execute("SELECT 1")

        assert broken(invariants.violations([], most_connections=0)) == ["I8", "I8"]
    finally:
        other.close()
