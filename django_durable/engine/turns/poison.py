"""Runs whose workers died again and again: they fail, and the error names the step that was under way.

Nothing is written when a step begins. So the run is replayed once more, by a pass that performs nothing: the first step
without a record is the one that it always came to. Should that pass die, too, it is the handler's own code that kills.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from ...core.replay.async_replay import PendingCall
from ...core.replay.operations import Memo, Op, RunStep
from ...core.replay.replay import Suspended
from ...core.values import errors
from ...exceptions import LeaseLost, Suspend, WorkerDied
from ...models import RunStatus
from ..runs.end_events import RunEnd
from ..runs.ending import finish
from ..store.rows import Claim
from ..store.step_names import title
from .async_turns import AsyncTurn
from .turns import Turn


def fail(claim: Claim, steps: Sequence[str] = ()) -> None:
    """Fail the run for these steps; of a branch, for itself. Raises LeaseLost."""
    error = WorkerDied(claim.crashes, [claim.path] if claim.key else steps)
    if not finish(claim, RunEnd(claim.run_id, RunStatus.FAILED, error=errors.encode_error(error))):
        raise LeaseLost


class DiagnosingTurn(Turn):
    """A turn that fails the run at the first step that is not recorded."""

    def perform(self, op: Op, memo: Memo | None) -> Memo:
        """Perform nothing: let the handler unwind, and then fail the run."""
        raise Suspend(partial(fail, self.claim, [_name(op)]))


class AsyncDiagnosingTurn(AsyncTurn):
    """The same for an async handler: any of the steps whose functions were under way may be the cause."""

    def _begins_body(self, asked: PendingCall) -> bool:
        return False

    def _begin_asked(self) -> bool:
        steps = [each.op for each in self._asked if not each.is_given_up]
        self._asked.clear()
        if steps:
            bodies = [op for op in steps if isinstance(op, RunStep)]
            names = [_name(op) for op in bodies or steps]
            self._outcome = Suspended(Suspend(partial(fail, self.claim, names)))
        return bool(steps)


def _name(op: Op) -> str:
    return title(op.ref.name, op.ref.ordinal)
