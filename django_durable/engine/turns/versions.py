"""Versions: the code that a run goes on with, where its function is missing or has changed since the run started.

A run starts with the code of the worker that takes it, not of the worker that ingested its event. From then on the
option ``on_code_change`` of its function decides.
"""

from __future__ import annotations

import datetime
from typing import Any

from ...conf import get_settings
from ...core import clock
from ...core.functions.definitions import FunctionDefinition
from ...core.replay.interrupts import LeaseLost
from ...core.values.errors import encode_error
from ...exceptions import CodeChanged
from ...models import RunStatus
from ..leases.leases import Lease
from ..runs import catalog
from ..runs.end_events import RunEnd
from ..store.rows import Parking

PAUSE = datetime.timedelta(minutes=1)  #: until the next worker checks whether it has the code
SHORT_PAUSE = datetime.timedelta(
    seconds=5
)  #: until the next worker checks, where some worker is known to have the code


def leave_to_others(lease: Lease) -> None:
    """Park a run whose function this code lacks, until a worker that has it takes the run; nothing has failed."""
    function_id = lease.claim.function_id
    pause = SHORT_PAUSE if function_id in catalog.foreign() else PAUSE
    _park(lease, pause, f"a worker whose code has {function_id}")


def may_go_on(lease: Lease, function: FunctionDefinition[Any, Any]) -> bool:
    """Tell whether the run may go on with this code; if not, it was parked or failed as its function asks.

    Raises LeaseLost.
    """
    claim, current = lease.claim, function.code_version
    if current == (claim.last_code_version or claim.code_version):
        return True
    if claim.fence == 1 and not claim.key:
        _note(lease, code_version=current)
        return True
    policy = function.on_code_change or get_settings().on_code_change
    if policy == "continue" or current == claim.code_version:
        _note(lease, last_code_version=current)
        return True
    if policy == "pin":
        _park(lease, PAUSE, f"a worker with version {claim.code_version} of {function.id}; here it is {current}")
        return False
    error = encode_error(CodeChanged(function.id, claim.code_version, current))
    lease.end(RunEnd(claim.run_id, RunStatus.FAILED, error=error))
    return False


def _note(lease: Lease, **versions: str) -> None:
    # A statement of its own: it costs one for each run and deployment, and the statements of every turn nothing.
    if not lease.store.note_code(lease.claim, **versions):
        raise LeaseLost


def _park(lease: Lease, pause: datetime.timedelta, text: str) -> None:
    if lease.claim.key:
        lease.release(after=pause)
        return
    lease.park(Parking(next_at=clock.now() + pause, kind="code", text=text, attempt=lease.claim.attempt))
