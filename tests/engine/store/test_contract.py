"""The contract of the stores: what the page promises, and its table of runs, row by row, on each implementation."""

from __future__ import annotations

import ast
import dataclasses
import datetime
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from django_durable.engine.store import contract
from django_durable.engine.store.contract import Store
from django_durable.engine.store.rows import STOPPING, Claim, Resolution

from .conftest import (
    LEASE,
    OPEN,
    QUEUED,
    REHINT,
    RUNNING,
    STATES,
    UNENDED,
    claim_of,
    columns,
    failed_attempt,
    key,
    make_run,
    parking,
    step_row,
)

AFTER = datetime.timedelta(seconds=300)
Row = dict[str, Any]


def _claimed(row: Row) -> Row:
    crashes = row["crashes"] + (row["status"] == "running")
    taken = {"status": "running", "fence": 8, "next_at": 100, "ready_at": None, "owner": "me", "crashes": crashes}
    return taken | {"waiting_kind": "", "waiting_for": ""}


def _woken(row: Row) -> Row:
    return {"wakes": 4} | ({"status": "queued", "ready_at": 0, "next_at": 1000} if row["status"] == "waiting" else {})


def _resolved(row: Row) -> Row:
    return _woken(row) | {"steps": 6, "attempt": 0, "waits": 0, "memos": [("open", "completed", 6)]}


def _recorded(row: Row) -> Row:
    next_at = 500 if row["next_at"] == 500 else 100
    memos = [OPEN, ("s", "completed", 6)]
    return {"steps": 6, "attempt": 0, "crashes": 0, "next_at": next_at, "memos": memos, "attempts": 1}


def _parked(row: Row) -> Row:
    written = {"attempt": 4, "crashes": 0, "owner": "", "memos": [OPEN, ("w", "waiting", None)], "waits": 2}
    row = {"status": "waiting", "next_at": 700, "waiting_kind": "event", "waiting_for": "a/c", "attempts": 1}
    return row | written


def _released(row: Row) -> Row:
    return {"status": "queued", "ready_at": 300, "next_at": 1300, "owner": ""}


def _expired(row: Row) -> Row:
    return {"status": "queued", "fence": 8, "crashes": 3, "ready_at": 2000, "next_at": 2000, "owner": ""}


def _ended(row: Row) -> Row:
    gone = {"next_at": None, "ready_at": None, "held_by": None, "owner": "", "waiting_kind": "", "waiting_for": ""}
    return gone | {"status": "completed", "fence": 8, "finished_at": 0, "waits": 0, "output": "2", "error": None}


def _cancelled(row: Row) -> Row:
    return _ended(row) | {"status": "cancelled", "output": None, "error": '"why"'}


@dataclass(frozen=True)
class Transition:
    """What an operation does to rows: which states it changes, and how; fenced ones need the right fence, too."""

    do: Callable[[Store, Claim], object]
    of: set[str]
    effect: Callable[[Row], Row]
    fenced: bool = False


TRANSITIONS = {
    "claim": Transition(lambda s, c: s.claim(c.run_id, owner="me", lease=LEASE), {"queued", "dead"}, _claimed),
    "claim_ready": Transition(lambda s, c: s.claim_ready(None, owner="me", lease=LEASE), {"queued"}, _claimed),
    "claim_ready of a queue": Transition(
        lambda s, c: s.claim_ready("default", owner="me", lease=LEASE), {"queued"}, _claimed
    ),
    "claim_ready of another queue": Transition(
        lambda s, c: s.claim_ready("other", owner="me", lease=LEASE), set(), _claimed
    ),
    "wake": Transition(lambda s, c: s.wake([c.run_id], rehint=REHINT), UNENDED, _woken),
    "resolve": Transition(
        lambda s, c: s.resolve([Resolution(run_id=c.run_id, key=key("open"))], rehint=REHINT), UNENDED, _resolved
    ),
    "record": Transition(
        lambda s, c: s.record(c, step_row("s"), lease=LEASE, failed=failed_attempt()), RUNNING, _recorded, fenced=True
    ),
    "park": Transition(lambda s, c: s.park(c, parking(), rehint=REHINT), RUNNING, _parked, fenced=True),
    "release": Transition(lambda s, c: s.release(c, after=AFTER, rehint=REHINT), RUNNING, _released, fenced=True),
    "expire": Transition(lambda s, c: s.expire([c.run_id], rehint=REHINT), {"dead"}, _expired),
    "forgive": Transition(lambda s, c: s.forgive(dataclasses.replace(c, fence=6)), UNENDED, lambda row: {"crashes": 1}),
    "forgive what was not taken over": Transition(lambda s, c: s.forgive(c), set(), lambda row: {}),
    "mark_stopping": Transition(lambda s, c: s.mark_stopping([c]), RUNNING, lambda row: {"owner": f"worker{STOPPING}"}),
    "end": Transition(lambda s, c: s.end(c, "completed", output="2"), RUNNING, _ended, fenced=True),
    "cancel": Transition(lambda s, c: s.cancel(s.lock([c.run_id]), '"why"'), UNENDED, _cancelled),
    "renew": Transition(lambda s, c: s.renew([c], lease=LEASE), RUNNING, lambda row: {"next_at": 100}, fenced=True),
    "put_off": Transition(lambda s, c: s.put_off([c.run_id], by=AFTER), {"waiting"}, lambda row: {"next_at": 300}),
    "hint_later": Transition(
        lambda s, c: s.hint_later([c.run_id], rehint=REHINT), QUEUED, lambda row: {"next_at": 1000}
    ),
}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("operation", TRANSITIONS)
def test_an_operation_changes_rows_as_the_table_says_and_no_others(store: Store, operation: str, state: str) -> None:
    run = make_run(state)
    before = columns(run)
    transition = TRANSITIONS[operation]

    transition.do(store, claim_of(run))

    assert columns(run) == (before | transition.effect(before) if state in transition.of else before)


@pytest.mark.parametrize("fence", [6, 8])
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("operation", [name for name, each in TRANSITIONS.items() if each.fenced])
def test_a_write_of_a_turn_with_another_fence_changes_nothing(
    store: Store, operation: str, state: str, fence: int
) -> None:
    run = make_run(state)
    before = columns(run)

    assert not TRANSITIONS[operation].do(store, claim_of(run, fence=fence))

    assert columns(run) == before


# The page


OPERATIONS = {name: operation for name, operation in vars(Store).items() if name[0] != "_" and callable(operation)}
ENGINE = Path(contract.__file__).parent.parent


def own_operations(of: type) -> dict[str, Any]:
    """Return the public methods that the class itself defines."""
    return {name: each for name, each in vars(of).items() if name[0] != "_" and inspect.isfunction(each)}


def test_a_store_does_what_the_page_says_and_nothing_else(store: Store) -> None:
    classes = [each for each in type(store).__mro__ if each is not Store]
    assert {name for each in classes for name in own_operations(each)} == set(OPERATIONS)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_store_is_called_as_the_page_says(store: Store, operation: str) -> None:
    given = inspect.signature(getattr(type(store), operation)).parameters
    assert list(given.values()) == list(inspect.signature(OPERATIONS[operation]).parameters.values())


@pytest.mark.parametrize("operation", OPERATIONS)
def test_the_page_alone_documents_an_operation(store: Store, operation: str) -> None:
    classes = [each for each in type(store).__mro__ if each is not Store]
    assert OPERATIONS[operation].__doc__
    assert not any(own_operations(each)[operation].__doc__ for each in classes if operation in own_operations(each))


def test_the_engine_asks_for_each_operation() -> None:
    files = [file for file in ENGINE.rglob("*.py") if "store" not in file.relative_to(ENGINE).parts]
    nodes = [node for file in files for node in ast.walk(ast.parse(file.read_text()))]
    asked = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    assert set(OPERATIONS) - asked == set()


def test_the_tables_name_operations() -> None:
    rows = [line.split() for line in (contract.__doc__ or "").splitlines() if re.match(r"[a-z_]+  ", line)]
    assert len(rows) > 15
    assert {row[0] for row in rows} - {"operation"} <= set(OPERATIONS)


def test_portable_statements_are_the_orms_own() -> None:
    sources = {file.name: file.read_text() for file in (ENGINE / "store" / "portable").glob("*.py")}
    assert sources
    assert [
        name for name, source in sources.items() if re.search(r"SELECT|UPDATE |INSERT |\.cursor\(|RawSQL", source)
    ] == []
