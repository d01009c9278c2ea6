"""Signals: one wait, found by a name of its own, and settled by whoever sends to that name."""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from uuid import UUID

from ...conf import get_settings
from ...core import clock
from ...core.functions.steps import check_signal
from ...core.replay.operations import Memo, StepStatus, WaitForSignal
from ...core.values import encoding
from ...exceptions import SignalTaken
from ...managers import DatabaseNow
from ...models import Wait
from ..runs.ending import announce
from ..store.rows import PendingStep, ReadyRun, Resolution, StepRow, WaitRow
from ..store.stores import get_store
from ..store.transactions import alias, atomic, retried

if TYPE_CHECKING:
    from ..turns.turns import Turn


def lock_name(signal: str) -> str:
    """Return the name that is locked for a signal, among those of events."""
    return f"durable/signal/{signal}"


def opening(op: WaitForSignal, now: datetime.datetime) -> PendingStep:
    """Return the opening of a wait for a signal."""
    expires_at = now + op.timeout
    row = StepRow.of(op, StepStatus.WAITING, now, input=op.signal, next_at=expires_at)
    wait = WaitRow(
        key=op.ref.key,
        kind=Wait.Kind.SIGNAL,
        name=op.signal,
        match_key=bytes(16),
        created_at=now,
        expires_at=expires_at,
    )
    return PendingStep(row=row, kind="signal", text=f"signal {op.signal}", waits=[wait], op=op)


def take_name(turn: Turn, op: WaitForSignal, row: StepRow) -> Memo | None:
    """Make the signal's name free for *op*, with the name locked; or record that it is taken, and return the memo."""
    taken = _waiting_for(op.signal)
    if taken and not op.replace:
        error = SignalTaken(op.signal, str(taken[0][0]))
        text = json.dumps({"type": f"{SignalTaken.__module__}.SignalTaken", "message": str(error)})
        failed = dataclasses.replace(row, status=StepStatus.FAILED, error=text, finished_at=clock.now(), next_at=None)
        return turn.record(failed)
    announce(_settle(taken, "null"))
    return None


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
