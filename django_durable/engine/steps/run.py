"""One attempt of a step's function: run it, and record its value or its failure."""

from __future__ import annotations

import asyncio
import datetime
import inspect
import reprlib
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from asgiref.sync import async_to_sync, iscoroutinefunction, sync_to_async
from django.db import DatabaseError, connections

from ... import signals
from ...codecs import headline
from ...core import clock, fault_points
from ...core.functions.middleware import StepContext
from ...core.replay.operations import Memo, RunStep, StepKind, StepRef, StepStatus, return_annotation
from ...core.replay.replay import in_body
from ...core.values import encoding, errors
from ...exceptions import LeaseLost, StepTimeout
from ...models import StepAttempt
from ..leases.leases import memo_of
from ..store.rows import AttemptRow, PendingStep, StepRow
from ..store.stores import get_store
from ..store.transactions import REMEDY, atomic, connection, roll_back_open
from .timeouts import limited, seconds_of

if TYPE_CHECKING:
    from ...core.retries import RetryPolicy
    from ..turns.turns import Turn

LEFT_OPEN = f"The step's function left a transaction open; it was rolled back. {REMEDY}"

_summary = reprlib.Repr()
_summary.maxstring = _summary.maxother = 100
_LONGEST_SUMMARY = 1_000


class BodyFailed(Exception):
    """Carries an error of the step's function out of the transaction that it must roll back."""

    def __init__(self, error: Exception) -> None:
        self.error = error


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One attempt of a step."""

    turn: Turn
    op: RunStep
    number: int
    started_at: datetime.datetime

    def call(self) -> str:
        """Run the function; return its value as JSON text, or raise BodyFailed."""
        try:
            fault_points.point("step.body")
            fn = partial(as_plain(self.op.fn), *self.op.args, **self.op.kwargs)
            return self._encoded(guarded(self.turn, self.op.ref, fn, self.op.options.timeout, self._context))
        except Exception as error:
            raise BodyFailed(error) from None

    async def acall(self) -> str:
        """Await the async function, or run a plain one in a thread; the same as :meth:`call`."""
        try:
            with self.turn.hooks.around_step(self._context), in_body(self.op.ref):
                async with asyncio.timeout(seconds_of(self.op.options.timeout)) as limit:
                    value = await self._awaited()
        except TimeoutError as error:
            raise BodyFailed(StepTimeout(self.op.options.timeout) if limit.expired() else error) from None
        except Exception as error:
            raise BodyFailed(error) from None
        try:
            # A hook may use the database, which an event loop must not.
            in_thread = self.turn.hooks.change_values
            return await sync_to_async(self._encoded)(value) if in_thread else self._encoded(value)
        except Exception as error:
            raise BodyFailed(error) from None

    async def _awaited(self) -> Any:
        fault_points.point("step.body")
        fn = partial(self.op.fn, *self.op.args, **self.op.kwargs)
        value = fn() if is_async(self.op.fn) else await asyncio.to_thread(_with_own_connections, fn)
        return await value if inspect.isawaitable(value) else value

    def _encoded(self, value: object) -> str:
        recorded, limit, fn = self.turn.hooks.encode(value), self.turn.settings.max_payload, self.op.fn
        return encoding.encode(recorded, root="result", limit=limit, hint=lambda: return_annotation(fn))

    def _context(self) -> StepContext:
        return context_of(self.turn, self.op.ref, self.op.kind, self.number)

    def completed(self, output: str) -> StepRow:
        """Return the memo of the value."""
        return StepRow.of(
            self.op,
            StepStatus.COMPLETED,
            self.started_at,
            input=call_text(self.op.fn, self.op.args, self.op.kwargs),
            output=output,
            attempt=self.number - 1,
            started_at=self.started_at,
            finished_at=clock.now(),
        )

    def unfinished(self, status: str, **values: Any) -> AttemptRow:
        """Return the row of an attempt that did not become the memo."""
        return unfinished(self.op.ref, self.number, status, self.started_at, **values)

    def discard(self, output: str | None) -> None:
        """Keep for people what the function returned: its run was cancelled or taken over meanwhile."""
        get_store().keep_attempt(self.turn.claim, self.unfinished(StepAttempt.Status.DISCARDED, output=output))


def unfinished(ref: StepRef, number: int, status: str, started_at: datetime.datetime, **values: Any) -> AttemptRow:
    """Return the row of an attempt that did not become the memo."""
    return AttemptRow(
        key=ref.key,
        name=ref.name,
        number=number,
        status=status,
        started_at=started_at,
        finished_at=clock.now(),
        **values,
    )


def context_of(turn: Turn, ref: StepRef, kind: StepKind, number: int) -> StepContext:
    """Return an attempt as hooks see it."""
    return StepContext(run=turn.context, name=ref.name, ordinal=ref.ordinal, kind=kind.value, attempt=number)


def guarded(
    turn: Turn,
    ref: StepRef,
    fn: Callable[[], Any],
    timeout: datetime.timedelta | None,
    context: Callable[[], StepContext],
) -> Any:
    """Call the body of a step within the hooks; roll back a transaction left open, which is an error of its own."""
    depth, left_open = len(connection().atomic_blocks), False
    try:
        with turn.hooks.around_step(context), limited(timeout):
            value = turn.replay.call_body(ref, fn)
    finally:
        left_open = roll_back_open(depth)
    if left_open:
        raise RuntimeError(LEFT_OPEN)
    return value


def is_async(fn: Callable[..., Any]) -> bool:
    """Tell whether *fn* is an async function, or an object that is called like one."""
    return iscoroutinefunction(fn) or iscoroutinefunction(type(fn).__call__)


def as_plain(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that calls *fn* and, if it is async or returns what it got from async code, waits for that."""

    def call(*args: Any, **kwargs: Any) -> Any:
        value = fn(*args, **kwargs)
        return async_to_sync(_wait_for)(value) if inspect.isawaitable(value) else value

    return call


async def _wait_for(value: Awaitable[Any]) -> Any:
    return await value


def _with_own_connections(fn: Callable[[], Any]) -> Any:
    try:
        return fn()
    finally:
        connections.close_all()


def begin(turn: Turn, op: RunStep, memo: Memo | None) -> Attempt:
    """Return the next attempt of the step. Raises LeaseLost if somebody else may own the run by now."""
    turn.lease.check()
    return Attempt(turn=turn, op=op, number=memo.attempt + 1 if memo else 1, started_at=clock.now())


def run(turn: Turn, op: RunStep, memo: Memo | None) -> Memo | PendingStep:
    """Make the next attempt of the step; return its memo, or how the one after it is waited for.

    Raises LeaseLost if the run is not this worker's any more: the value is kept for people, as discarded.
    """
    attempt = begin(turn, op, memo)
    try:
        return _record_with_writes(attempt) if op.atomic else record(attempt, attempt.call())
    except BodyFailed as failed:
        return fail(attempt, failed.error)


def record(attempt: Attempt, output: str) -> Memo:
    """Record what the function returned, or keep it as discarded and raise LeaseLost."""
    try:
        memo = attempt.turn.record(attempt.completed(output))
    except LeaseLost:
        attempt.discard(output)
        raise
    fault_points.point("step.after_commit")
    return memo


def _record_with_writes(attempt: Attempt) -> Memo | PendingStep:
    """Run the function and record its value in one transaction."""
    row: StepRow | None = None
    try:
        with atomic():
            # To begin may have taken long: SQLite waits for the write lock, others connect again.
            attempt.turn.lease.check()
            row = attempt.completed(attempt.call())
            memo = attempt.turn.record(row)
    except LeaseLost:
        if row is not None:
            attempt.discard(row.output)
        raise
    except DatabaseError as error:
        # Whether the commit happened is unknown until the database is asked.
        seq = get_store().recorded_as(attempt.turn.claim, row.key) if row is not None else None
        return fail(attempt, error) if row is None or seq is None else memo_of(row, seq)
    fault_points.point("step.after_commit")
    return memo


def fail(attempt: Attempt, error: Exception) -> Memo | PendingStep:
    """Record that the attempt failed for good, or return how the next one is waited for."""
    turn, now, name = attempt.turn, clock.now(), attempt.op.ref.name
    text = errors.encode_error(error)
    kept = attempt.unfinished(StepAttempt.Status.FAILED, error=text)
    policy = turn.policy_of(attempt.op.options)
    next_at = policy.next_attempt(attempt.number, error, now)
    row = StepRow.of(
        attempt.op,
        StepStatus.FAILED if next_at is None else StepStatus.WAITING,
        attempt.started_at,
        input=call_text(attempt.op.fn, attempt.op.args, attempt.op.kwargs),
        error=text,
        attempt=attempt.number,
        started_at=attempt.started_at,
        finished_at=now if next_at is None else None,
        next_at=next_at,
    )
    if next_at is None:
        recorded = turn.record(row, failed=kept)
        tell_of_failure(turn, attempt.op.ref, attempt.number, error)
        return recorded
    return PendingStep(row=row, kind="retry", text=retry_text(attempt.number, policy, name, error), failed=kept)


def tell_of_failure(turn: Turn, ref: StepRef, attempts: int, error: Exception) -> None:
    """Send the signal of a step whose last attempt failed, which is recorded."""
    told = {"run_id": turn.claim.run_id, "function_id": turn.claim.function_id, "step": ref.name}
    signals.tell(signals.step_failed, lambda: [{**told, "attempts": attempts, "error": error}])


def retry_text(failed: int, policy: RetryPolicy, name: str, error: Exception) -> str:
    """Return which attempt is waited for, and why, for people."""
    return f"attempt {failed + 1} of {policy.retries + 1} of {name}: {headline(error)}"


def call_text(fn: Any, args: Iterable[Any] = (), kwargs: Mapping[str, Any] | None = None) -> str:
    """Return the call as people read it, shortened."""
    if isinstance(fn, partial):
        return call_text(fn.func, (*fn.args, *args), {**fn.keywords, **(kwargs or {})})
    parts = [_argument(value) for value in args]
    parts += [f"{name}={_argument(value)}" for name, value in (kwargs or {}).items()]
    name = getattr(fn, "__qualname__", type(fn).__qualname__)
    return f"{name}({', '.join(parts)})".replace("\0", "\\x00")[:_LONGEST_SUMMARY]


def _argument(value: object) -> str:
    try:
        text = _summary.repr(value)
    except Exception:  # An argument's own __repr__ must not fail the step.
        text = f"<{type(value).__name__}>"
    return text.encode("utf-8", "backslashreplace").decode()
