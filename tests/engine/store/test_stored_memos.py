"""Stored steps as memos: the columns that are read, and what becomes of them."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from django_durable.core import clock
from django_durable.core.ids import uuid7
from django_durable.core.replay.operations import Memo, StepKind, StepStatus
from django_durable.engine.store.rows import EventRow
from django_durable.engine.store.stored_memos import COLUMNS, memo_of
from django_durable.exceptions import CodecError
from django_durable.models import Step

NOW = clock.now()
STORED: dict[str, Any] = {
    "key": b"k" * 16,
    "name": "charge",
    "kind": "run",
    "status": "completed",
    "output": "1",
    "error": None,
    "attempt": 2,
    "next_at": None,
    "finished_at": NOW,
    "seq": 7,
}


def test_every_column_of_a_memo_is_read() -> None:
    assert {*COLUMNS, "event"} == {field.name for field in dataclasses.fields(Memo)}
    assert all(hasattr(Step, name) for name in COLUMNS)


def test_a_memo_has_what_is_stored_under_the_same_names() -> None:
    memo = memo_of(*(STORED[name] for name in COLUMNS), event=None)
    assert {name: getattr(memo, name) for name in COLUMNS} == STORED
    assert (memo.kind, memo.status, memo.event) == (StepKind.RUN, StepStatus.COMPLETED, None)


def test_a_memo_has_the_event_that_settled_it_as_handlers_see_it() -> None:
    event = EventRow(id=uuid7(), name="a/b", data={"n": 1}, user=None, ts=NOW, v="", received_at=NOW, ingested_at=NOW)
    memo = memo_of(*(STORED[name] for name in COLUMNS), event=event)
    assert memo.event is not None
    assert (memo.event.id, memo.event.data) == (str(event.id), {"n": 1})


def test_a_payload_that_cannot_be_decoded_here_is_an_error() -> None:
    sealed = STORED | {"output": "codec:1"}
    with pytest.raises(CodecError):
        memo_of(*(sealed[name] for name in COLUMNS), event=None)
