"""The rows that statements give, as values."""

from __future__ import annotations

import json
from typing import Any

from django_durable.core import clock
from django_durable.core.ids import uuid7
from django_durable.engine.store.postgresql import results
from django_durable.engine.store.postgresql.expressions import EVENT, MEMO, RUN
from django_durable.engine.store.rows import CLAIM_COLUMNS, NextClaim, OpenWait, ReadyRun

NOW = clock.now()
DATA = {"n": 1}
STORED_EVENT: dict[str, Any] = {
    "id": uuid7(),
    "name": "a/b",
    "data": json.dumps(DATA),
    "user": None,
    "ts": NOW,
    "v": "",
    "received_at": NOW,
    "ingested_at": NOW,
}
EVENT_FOUND = [STORED_EVENT[name] for name in EVENT]
NO_EVENT = [None] * len(EVENT)
RUN_ID = uuid7()
RUN_FOUND = [RUN_ID, *(f"the {name}" for name in CLAIM_COLUMNS)]
LEASE = NOW - NOW


def test_a_claim_has_each_column_under_its_own_name() -> None:
    claim = results.claim([*RUN_FOUND, NOW, *NO_EVENT])
    assert {name: getattr(claim, name) for name in CLAIM_COLUMNS} == {name: f"the {name}" for name in CLAIM_COLUMNS}
    assert (claim.run_id, claim.now, claim.event, claim.key, claim.path) == (RUN_ID, NOW, None, None, "")
    assert len(RUN_FOUND) == len(RUN)


def test_an_event_is_read_with_its_data() -> None:
    row = results.event_row(EVENT_FOUND)
    assert row is not None
    assert (row.id, row.data, row.user, row.received_at) == (STORED_EVENT["id"], DATA, None, NOW)


def test_an_event_that_was_not_found_is_none() -> None:
    assert results.event_row(NO_EVENT) is None


def test_a_memo_has_the_event_that_settled_it() -> None:
    step = {"key": b"k", "name": "s", "kind": "wait", "status": "completed", "attempt": 0, "seq": 3}
    memo = results.memo([*(step.get(name) for name in MEMO), *EVENT_FOUND])
    assert (memo.key, memo.name, memo.seq, memo.event and memo.event.data) == (b"k", "s", 3, DATA)


def test_an_open_wait_has_each_column_under_its_own_name() -> None:
    names = [name for name in OpenWait.__slots__ if name != "event"]
    wait = results.open_wait([*names, *NO_EVENT])
    assert ([getattr(wait, name) for name in names], wait.event) == (names, None)


def test_the_end_of_a_branch_tells_what_is_ready_and_what_was_claimed() -> None:
    ended = results.claim([*RUN_FOUND, NOW, *NO_EVENT])
    result = results.end_result(ended, ["slow", True, False, b"k", "g#0/1", 8, 1, 0], NextClaim("me", LEASE))
    assert result.ready == [ReadyRun(RUN_ID, "slow")]
    assert result.claim is not None
    assert (result.claim.owner, result.claim.key, result.claim.path, result.claim.fence) == ("me", b"k", "g#0/1", 8)


def test_the_end_of_a_branch_may_leave_nothing_to_do() -> None:
    ended = results.claim([*RUN_FOUND, NOW, *NO_EVENT])
    result = results.end_result(ended, ["slow", False, False, None, None, None, None, None], NextClaim("me", LEASE))
    assert (result.ready, result.claim) == ([], None)
