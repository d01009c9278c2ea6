"""``step.wait_for_signal``: one wait with a name of its own, which a signal of that name settles."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from ...conf import get_settings
from ...core import clock
from ...core.functions.step_arguments import check_signal
from ...core.replay.operations import Memo, StepStatus, WaitForSignal
from ...core.values import encoding
from ...core.values.errors import encode_error
from ...exceptions import SignalTaken
from ...managers import DatabaseNow
from ...models import Wait
from ..runs.starting import announce
from ..store.rows import ReadyRun, Resolution, StepRow, WaitRow
from ..store.stores import get_store
from ..store.transactions import alias, atomic, retried
from .opening import PendingStep
from .turn_context import TurnContext


def lock_name(signal: str) -> str:
    """Return the name that is locked for a signal, among those of events."""
    return f"durable/signal/{signal}"


def begin(turn: TurnContext, op: WaitForSignal, memo: Memo | None) -> PendingStep:
    """Return how the signal is waited for."""
    now = clock.now()
    expires_at = now + op.timeout
    wait = WaitRow(
        key=op.ref.key,
        kind=Wait.Kind.SIGNAL,
        name=op.signal,
        match_key=bytes(16),
        created_at=now,
        expires_at=expires_at,
    )
    return PendingSignal(
        row=StepRow.of(op, StepStatus.WAITING, now, input=op.signal, next_at=expires_at),
        kind="signal",
        text=f"signal {op.signal}",
        waits=[wait],
        takes=frozenset({lock_name(op.signal)}),
        op=op,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingSignal(PendingStep):
    """A wait for a signal; only one step at a time may wait for its name."""

    op: WaitForSignal

    def settled_now(self, turn: TurnContext) -> Memo | None:
        """Make the signal's name free for the step; or record that it is taken, and return the memo."""
        taken = _waiting_for(self.op.signal)
        if not taken or self.op.replace:
            announce(_settle(taken, "null"))
            return None
        error = encode_error(SignalTaken(self.op.signal, str(taken[0][0])))
        return turn.lease.record(
            dataclasses.replace(self.row, status=StepStatus.FAILED, error=error, finished_at=clock.now(), next_at=None)
        )


@retried
def send(signal: str, data: Any = None) -> bool:
    """Settle the wait for *signal* with *data*, in the caller's transaction if one is open; False if nobody waits."""
    check_signal(signal)
    output = encoding.encode(data, root="data", limit=get_settings().max_payload, objects=False)
    with atomic(savepoint=False):
        get_store().lock_names([lock_name(signal)], shared=False)
        waiting = _waiting_for(signal, expires_at__gt=DatabaseNow())
        announce(_settle(waiting, output))
    return bool(waiting)


def _waiting_for(signal: str, **conditions: Any) -> list[tuple[UUID, Any]]:
    """Return the run and the key of the steps that wait for the signal."""
    waits = Wait.objects.using(alias()).filter(kind=Wait.Kind.SIGNAL, name=signal, **conditions)
    # MariaDB compares names without the blanks at their ends.
    return [(run_id, key) for run_id, key, name in waits.values_list("run_id", "key", "name") if name == signal]


def _settle(waiting: Iterable[tuple[UUID, Any]], output: str) -> list[ReadyRun]:
    resolutions = [Resolution(run_id=run_id, key=bytes(key), output=output) for run_id, key in waiting]
    return get_store().resolve(resolutions, rehint=get_settings().rehint) if resolutions else []
