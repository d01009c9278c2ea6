"""Runs whose workers died again and again: they fail, and the error names the step that was under way.

Nothing is written when a step begins. So the run is replayed once more, by a pass that performs nothing: the first step
without a record is the one that it always came to. Should that pass die, too, the handler's own code is what kills.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from ...core.replay.async_replay import PendingCall
from ...core.replay.groups import Op
from ...core.replay.interrupts import Suspend
from ...core.replay.operations import Memo, RunStep
from ...core.replay.replay import Suspended
from ...core.values.errors import encode_error
from ...exceptions import WorkerDied
from ...models import RunStatus
from ..leases.leases import Lease
from ..runs.end_events import RunEnd
from ..store.step_names import title
from .async_turns import AsyncTurn
from .turns import Turn


def fail(lease: Lease, steps: Sequence[str] = ()) -> None:
    """Fail the run for these steps; where a branch is held, for that branch. Raises LeaseLost."""
    claim = lease.claim
    error = WorkerDied(claim.crashes, [claim.path] if claim.key else steps)
    lease.end(RunEnd(claim.run_id, RunStatus.FAILED, error=encode_error(error)))


class DiagnosingTurn(Turn):
    """A turn that fails the run at the first step that is not recorded."""

    def perform(self, op: Op, memo: Memo | None) -> Memo:
        """Perform nothing: let the handler unwind, and then fail the run."""
        raise Suspend(partial(fail, self.lease, [_name(op)]))


class AsyncDiagnosingTurn(AsyncTurn):
    """A turn of an async handler that fails the run for the steps whose functions may have been under way."""

    def _starts_body(self, call: PendingCall) -> bool:
        return False

    def _begin_asked(self) -> bool:
        steps = [each.op for each in self._asked if not each.is_given_up]
        self._asked.clear()
        if steps:
            bodies = [op for op in steps if isinstance(op, RunStep)]
            names = [_name(op) for op in bodies or steps]
            self._outcome = Suspended(Suspend(partial(fail, self.lease, names)))
        return bool(steps)


def _name(op: Op) -> str:
    return title(op.ref.name, op.ref.ordinal)
