"""``step.parallel``, ``step.race`` and ``step.map``: groups of branches, planned in one commit.

As many workers as are free work through the branches, see :mod:`..turns.branch_turn`.
"""

from __future__ import annotations

import datetime

from ...conf import get_settings
from ...core import clock
from ...core.replay.groups import Branch, Group
from ...core.replay.operations import Memo, StepKind, StepStatus
from ..store.rows import StepRow
from .opening import PendingStep
from .turn_context import TurnContext

_MICROSECOND = datetime.timedelta(microseconds=1)


def begin(turn: TurnContext, op: Group, memo: Memo | None) -> PendingStep:
    """Return how a group is opened, or the branches that the code has gained since."""
    now, missing = clock.now(), op.missing(turn.history)
    return PendingStep(
        row=StepRow.of(op, StepStatus.WAITING, now, input=str(op.mode), open=len(missing), started_at=now),
        kind="group",
        text=f"{op.ref.name}: {len(missing)} of {len(op.branches)} branches",
        branches=[_planned(op, branch, index, now) for index, branch in enumerate(missing)],
    )


def has_new_branches(turn: TurnContext, op: Group, memo: Memo) -> bool:
    """Tell whether the code has gained branches since the group was opened."""
    return bool(op.missing(turn.history))


def count(turn: TurnContext, op: Group) -> int:
    """Return how many steps a group is: itself, and the branches that are not recorded."""
    return len(op.missing(turn.history)) + 1


def _planned(op: Group, branch: Branch, index: int, now: datetime.datetime) -> StepRow:
    is_held = op.limit is not None and index >= op.limit
    return StepRow(
        key=branch.ref.key,
        name=branch.ref.name,
        ordinal=branch.ref.ordinal,
        kind=StepKind.BRANCH,
        status=StepStatus.PLANNED,
        planned_at=now + (index + 1) * _MICROSECOND,  # so that they are claimed, and shown, in their order
        branch=branch.ref.branch,
        parent_key=op.ref.key,
        path=branch.path,
        next_at=None if is_held else now + get_settings().rehint,
    )
