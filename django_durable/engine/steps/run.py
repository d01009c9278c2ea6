"""``step.run``: make one attempt of the step's function, and record its value or its failure."""

from __future__ import annotations

import asyncio
import datetime
import inspect
import reprlib
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeGuard

from asgiref.sync import async_to_sync, iscoroutinefunction, sync_to_async
from django.db import connections

from ... import signals
from ...codecs import headline
from ...core import clock, fault_points
from ...core.functions.middleware import StepContext
from ...core.replay.groups import Op
from ...core.replay.interrupts import LeaseLost
from ...core.replay.operations import Memo, RunStep, StepKind, StepRef, StepStatus, return_annotation
from ...core.replay.replay import in_body
from ...core.retries import RetryPolicy
from ...core.values import encoding
from ...core.values.errors import encode_error
from ...exceptions import StepTimeout
from ...models import StepAttempt
from ..store.rows import AttemptRow, StepRow
from ..store.transactions import REMEDY, alias, roll_back_open
from .opening import PendingStep
from .timeouts import limited, seconds_of
from .turn_context import TurnContext

LONGEST_CALL = 1_000  #: characters
LEFT_OPEN = f"The step's function left a transaction open; it was rolled back. {REMEDY}"


_summary = reprlib.Repr()
_summary.maxstring = _summary.maxother = 100


def begin(turn: TurnContext, op: RunStep, memo: Memo | None) -> Memo | PendingStep:
    """Make the next attempt of the step; return its memo, or how the one after it is waited for.

    Raises LeaseLost if the run is no longer this worker's: the value is kept for people, as discarded.
    """
    attempt = next_attempt(turn, op, memo)
    try:
        return record(attempt, attempt.call())
    except BodyFailed as failed:
        return fail(attempt, failed.error)


def next_attempt(turn: TurnContext, op: RunStep, memo: Memo | None) -> Attempt:
    """Return the next attempt of the step. Raises LeaseLost if somebody else may own the run by now."""
    turn.lease.check()
    return Attempt(turn=turn, op=op, number=memo.attempt + 1 if memo else 1, started_at=clock.now())


def runs_in_loop(op: Op) -> TypeGuard[RunStep]:
    """Tell whether the step's function runs beside the handler, in the event loop or in a thread of its own."""
    return isinstance(op, RunStep) and op.kind is StepKind.RUN and (is_async(op.fn) or op.options.thread)


class BodyFailed(Exception):
    """Carries an error of the step's function out of the transaction that it must roll back."""

    def __init__(self, error: Exception) -> None:
        self.error = error


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One attempt of a step."""

    turn: TurnContext
    op: RunStep
    number: int
    started_at: datetime.datetime

    def call(self) -> str:
        """Run the function; return its value as JSON text, or raise BodyFailed."""
        try:
            fault_points.point("step.body")
            fn = partial(call_plainly, self.op.fn, *self.op.args, **self.op.kwargs)
            return self._encoded(guarded(self.turn, self.op.ref, fn, self.op.options.timeout, self._context))
        except Exception as error:
            raise BodyFailed(error) from None

    async def acall(self) -> str:
        """Await the async function, or run a plain one in a thread; return its value as :meth:`call` does."""
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
        hooks, limit, fn = self.turn.hooks, self.turn.settings.max_payload, self.op.fn
        recorded = hooks.encode(value) if hooks.change_values else value
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
        """Keep for people the value of a function whose run was cancelled or taken over meanwhile."""
        discarded = self.unfinished(StepAttempt.Status.DISCARDED, output=output)
        self.turn.lease.store.keep_attempt(self.turn.lease.claim, discarded)


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


# How it is recorded


def record(attempt: Attempt, output: str) -> Memo:
    """Record the value of the function, or keep it as discarded and raise LeaseLost."""
    try:
        memo = attempt.turn.lease.record(attempt.completed(output))
    except LeaseLost:
        attempt.discard(output)
        raise
    fault_points.point("step.after_commit")
    return memo


def fail(attempt: Attempt, error: Exception) -> Memo | PendingStep:
    """Record that the attempt failed for good, or return how the next one is waited for."""
    turn, op, now = attempt.turn, attempt.op, clock.now()
    text = encode_error(error)
    failed = attempt.unfinished(StepAttempt.Status.FAILED, error=text)
    policy = turn.policy_of(op.options)
    next_at = policy.next_attempt(attempt.number, error, now)
    row = StepRow.of(
        op,
        StepStatus.FAILED if next_at is None else StepStatus.WAITING,
        attempt.started_at,
        input=call_text(op.fn, op.args, op.kwargs),
        error=text,
        attempt=attempt.number,
        started_at=attempt.started_at,
        finished_at=now if next_at is None else None,
        next_at=next_at,
    )
    if next_at is not None:
        waits_for = retry_text(attempt.number, policy, op.ref.name, error)
        return PendingStep(row=row, kind="retry", text=waits_for, failed=failed)
    memo = turn.lease.record(row, failed=failed)
    send_step_failed(turn, op.ref, attempt.number, error)
    return memo


def send_step_failed(turn: TurnContext, ref: StepRef, attempts: int, error: Exception) -> None:
    """Send the signal of a step whose last attempt failed, which is recorded."""
    claim = turn.lease.claim
    told = {"run_id": claim.run_id, "function_id": claim.function_id, "step": ref.name}
    signals.tell(signals.step_failed, lambda: [{**told, "attempts": attempts, "error": error}])


# What people read of an attempt


def retry_text(failed: int, policy: RetryPolicy, name: str, error: Exception) -> str:
    """Return which attempt a step waits for after *failed* ones, and why."""
    return f"attempt {failed + 1} of {policy.retries + 1} of {name}: {headline(error)}"


def call_text(fn: Any, args: Iterable[Any] = (), kwargs: Mapping[str, Any] | None = None) -> str:
    """Return the call of a step's function as people read it, shortened."""
    if isinstance(fn, partial):
        return call_text(fn.func, (*fn.args, *args), {**fn.keywords, **(kwargs or {})})
    parts = [_argument(value) for value in args]
    parts += [f"{name}={_argument(value)}" for name, value in (kwargs or {}).items()]
    name = getattr(fn, "__qualname__", type(fn).__qualname__)
    return f"{name}({', '.join(parts)})".replace("\0", "\\x00")[:LONGEST_CALL]


def _argument(value: object) -> str:
    try:
        text = _summary.repr(value)
    except Exception:  # An argument's own __repr__ must not fail the step.
        text = f"<{type(value).__name__}>"
    return text.encode("utf-8", "backslashreplace").decode()


# How a step's function is called


def context_of(turn: TurnContext, ref: StepRef, kind: StepKind, number: int) -> StepContext:
    """Return the attempt as hooks see it."""
    return StepContext(run=turn.context, name=ref.name, ordinal=ref.ordinal, kind=kind.value, attempt=number)


def guarded(
    turn: TurnContext,
    ref: StepRef,
    fn: Callable[[], Any],
    timeout: datetime.timedelta | None,
    context: Callable[[], StepContext],
) -> Any:
    """Call the body of a step within the hooks; roll back a transaction left open, which is an error of its own."""
    depth, left_open = len(connections[alias()].atomic_blocks), False
    try:
        within_hooks = turn.hooks.around_step(context) if turn.hooks.watch_steps else nullcontext()
        in_time = nullcontext() if timeout is None else limited(timeout)
        with within_hooks, in_time:
            value = turn.replay.call_body(ref, fn)
    finally:
        left_open = roll_back_open(depth)
    if left_open:
        raise RuntimeError(LEFT_OPEN)
    return value


def call_plainly(fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Call *fn* from plain code; if it is async, or returns an awaitable, wait for that."""
    value = fn(*args, **kwargs)
    return async_to_sync(_wait_for)(value) if inspect.isawaitable(value) else value


async def _wait_for(value: Awaitable[Any]) -> Any:
    return await value


def is_async(fn: Callable[..., Any]) -> bool:
    """Tell whether *fn* is an async function, or an object that is called like one."""
    return iscoroutinefunction(fn) or iscoroutinefunction(type(fn).__call__)


def _with_own_connections(fn: Callable[[], Any]) -> Any:
    try:
        return fn()
    finally:
        connections.close_all()
