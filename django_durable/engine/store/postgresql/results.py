"""The rows that statements give, as the values of the contract."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from ....core.replay.operations import Memo
from ..rows import CLAIM_COLUMNS, Claim, EndResult, EventRow, NextClaim, OpenWait, ReadyRun
from ..stored_memos import memo_of
from .expressions import EVENT, MEMO, RUN

_OPEN_WAIT = tuple(name for name in OpenWait.__slots__ if name != "event")


def claim(row: Sequence[Any]) -> Claim:
    """Return the claim that a statement has made."""
    run_id, *run = row[: len(RUN)]
    now, *event = row[len(RUN) :]
    return Claim(run_id=run_id, now=now, event=event_row(event), **dict(zip(CLAIM_COLUMNS, run, strict=True)))


def event_row(row: Sequence[Any]) -> EventRow | None:
    """Return the event of these columns, None if they are those of an outer join that found none."""
    if row[0] is None:
        return None
    values = dict(zip(EVENT, row, strict=True))
    user = values["user"]
    return EventRow(**values | {"data": json.loads(values["data"]), "user": None if user is None else json.loads(user)})


def memo(row: Sequence[Any]) -> Memo:
    """Return the memo of a step that was read with the event that settled it."""
    return memo_of(*row[: len(MEMO)], event=event_row(row[len(MEMO) :]))


def open_wait(row: Sequence[Any]) -> OpenWait:
    """Return a wait that was read with what makes its run's trigger."""
    count = len(_OPEN_WAIT)
    return OpenWait(**dict(zip(_OPEN_WAIT, row[:count], strict=True)), event=event_row(row[count:]))


def end_result(ended: Claim, row: Sequence[Any], next_claim: NextClaim | None) -> EndResult:
    """Return what came of the end of the branch that was held by *ended*."""
    queue, is_ready, in_branch, key, path, fence, attempt, crashes = row
    ready = [ReadyRun(ended.run_id, queue, in_branch)] if is_ready or in_branch else []
    if key is None or next_claim is None:
        return EndResult(ready)
    taken = {"key": key, "path": path, "fence": fence, "attempt": attempt, "crashes": crashes}
    return EndResult(ready, dataclasses.replace(ended, owner=next_claim.owner, **taken))
