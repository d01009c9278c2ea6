"""Memos: what a turn finds recorded, on each implementation; what a branch sees stands in test_branches.py."""

from __future__ import annotations

from django_durable.core import clock
from django_durable.core.replay.operations import StepKind, StepStatus
from django_durable.engine.store.contract import Store

from ..conftest import (
    LEASE,
    claim_of,
    make_event,
    make_run,
    step_row,
)


def test_memos_come_back_as_they_were_written(store: Store) -> None:
    run = make_run("live")
    event, at = make_event(), clock.now().replace(microsecond=123456)
    text = '"\\u0000 é \\ud800"'
    store.record(claim_of(run), step_row("s", output=text, event_id=event.id, finished_at=at, attempt=2), lease=LEASE)
    store.record(claim_of(run), step_row("f", StepStatus.FAILED, error="{}", finished_at=at), lease=LEASE)

    memos = {memo.name: memo for memo in store.memos(claim_of(run))}

    assert (memos["s"].output, memos["s"].finished_at, memos["s"].attempt) == (text, at, 2)
    assert memos["s"].event is not None
    assert (memos["s"].event.id, memos["s"].event.data) == (str(event.id), {"a": [1, None]})
    assert (memos["f"].status, memos["f"].error, memos["f"].kind) == (StepStatus.FAILED, "{}", StepKind.RUN)
    assert (memos["open"].status, memos["open"].settled, memos["open"].kind) == ("waiting", False, StepKind.WAIT)
