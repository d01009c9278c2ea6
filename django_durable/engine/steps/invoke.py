"""``step.invoke``: a child run, and a parent that waits for its end."""

from __future__ import annotations

from ...core import clock
from ...core.functions import registry
from ...core.replay.operations import Invoke, Memo, StepStatus
from ...core.values.errors import encode_message
from ...exceptions import ConfigurationError, InvokeError
from ...models import Run, Wait
from ..runs.starting import new_run
from ..store.rows import Claim, StepRow, WaitRow
from ..store.stored_events import digest
from .opening import PendingStep
from .turn_context import TurnContext

DEEPEST = 50  #: runs that invoked one another


def begin(turn: TurnContext, op: Invoke, memo: Memo | None) -> Memo | PendingStep:
    """Return how the child starts and is waited for; or record at once why it cannot start."""
    refusal = _refusal(op.function_id, turn.lease.claim.depth)
    if refusal is None:
        return _pending(turn.lease.claim, op)
    now, error = clock.now(), encode_message(InvokeError, refusal)
    return turn.lease.record(
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


def _pending(claim: Claim, op: Invoke) -> PendingStep:
    now, child = clock.now(), _child(claim, op)
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


def _child(claim: Claim, op: Invoke) -> Run:
    return new_run(
        registry.find(op.function_id),
        input=op.data,
        parent_id=claim.run_id,
        parent_key=op.ref.key,
        depth=claim.depth + 1,
        start_key=digest(claim.run_id.hex, op.ref.key.hex()),
    )
