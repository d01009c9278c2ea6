"""Invoking another function: a child run, and a parent that waits for it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from ...core import clock
from ...core.functions import registry
from ...core.replay.operations import Invoke, Memo, StepStatus
from ...exceptions import ConfigurationError
from ...models import Run, Wait
from ..runs.ending import new_run
from ..store.rows import PendingStep, StepRow, WaitRow
from ..store.stored_events import digest

if TYPE_CHECKING:
    from ..turns.turns import Turn

DEEPEST = 50  #: runs that invoked one another


def invoke(turn: Turn, op: Invoke) -> Memo | PendingStep:
    """Return how the child starts and is waited for; or record at once why it cannot start."""
    refusal = _refusal(op.function_id, turn.claim.depth)
    if refusal is None:
        return _opening(turn, op)
    now = clock.now()
    error = json.dumps({"type": "django_durable.exceptions.InvokeError", "message": refusal})
    return turn.record(
        StepRow.of(op, StepStatus.FAILED, now, input=op.function_id, output="{}", error=error, finished_at=now)
    )


def _refusal(function_id: str, depth: int) -> str | None:
    try:
        registry.find(function_id)
    except ConfigurationError as error:
        return str(error)
    if depth >= DEEPEST:
        return f"{function_id} would be number {depth + 1} of runs that invoke one another; the limit is {DEEPEST}"
    return None


def _opening(turn: Turn, op: Invoke) -> PendingStep:
    now = clock.now()
    child = _child(turn, op)
    expires_at = now + op.timeout if op.timeout is not None else None
    wait = WaitRow(
        key=op.ref.key,
        kind=Wait.Kind.INVOKE,
        name=op.function_id,
        # Cancelling the run cancels the children that its waits name.
        match_key=child.id.bytes if op.cancel_children else bytes(16),
        created_at=now,
        expires_at=expires_at,
    )
    row = StepRow.of(op, StepStatus.WAITING, now, input=op.function_id, started_at=now, next_at=expires_at)
    return PendingStep(row=row, kind="invoke", text=f"{op.function_id} {child.id}", waits=[wait], child=child)


def _child(turn: Turn, op: Invoke) -> Run:
    claim = turn.claim
    return new_run(
        registry.find(op.function_id),
        input=op.data,
        parent_id=claim.run_id,
        parent_key=op.ref.key,
        depth=claim.depth + 1,
        start_key=digest(claim.run_id.hex, op.ref.key.hex()),
    )
