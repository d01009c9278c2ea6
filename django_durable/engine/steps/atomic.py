"""``step.atomic``: run the step's function, and record its value, in one transaction."""

from __future__ import annotations

from django.db import DatabaseError

from ...core import fault_points
from ...core.replay.interrupts import LeaseLost
from ...core.replay.operations import AtomicStep, Memo
from ..store.transactions import atomic
from .opening import PendingStep
from .run import Attempt, BodyFailed, fail, next_attempt
from .turn_context import TurnContext


def begin(turn: TurnContext, op: AtomicStep, memo: Memo | None) -> Memo | PendingStep:
    """Make the next attempt of the step; return its memo, or how the one after it is waited for.

    Raises LeaseLost if the run is no longer this worker's: the value is kept for people, as discarded.
    """
    attempt = next_attempt(turn, op, memo)
    try:
        return _record_with_writes(attempt)
    except BodyFailed as failed:
        return fail(attempt, failed.error)


def _record_with_writes(attempt: Attempt) -> Memo | PendingStep:
    """Run the function and record its value in one transaction."""
    lease, row = attempt.turn.lease, None
    try:
        with atomic():
            # The transaction may have begun late: SQLite waits for the write lock, other databases may connect again.
            lease.check()
            row = attempt.completed(attempt.call())
            memo = lease.record(row)
    except LeaseLost:
        if row is not None:
            attempt.discard(row.output)
        raise
    except DatabaseError as error:
        # Whether the commit happened is unknown until the database is asked.
        seq = lease.store.recorded_as(lease.claim, row.key) if row is not None else None
        return fail(attempt, error) if row is None or seq is None else row.memo(seq)
    fault_points.point("step.after_commit")
    return memo
