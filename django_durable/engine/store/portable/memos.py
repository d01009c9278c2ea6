"""Memos: what a turn finds recorded."""

from __future__ import annotations

from operator import attrgetter
from typing import Any
from uuid import UUID

from ....core.replay.groups import groups_around, scopes_of
from ....core.replay.operations import Memo, StepKind
from ....models import Step
from ..rows import Claim
from ..stored_events import event_row
from ..stored_memos import COLUMNS, memo_of
from .queries import Queries


class Memos(Queries):
    """Memos, in portable ORM."""

    def memos(self, claim: Claim, *, after: int | None = None) -> list[Memo]:
        steps = self._steps(claim.run_id).filter(branch__in=scopes_of(claim.path))
        if claim.path:
            steps = steps.exclude(parent_key__in=groups_around(claim.path), kind=StepKind.BRANCH)
        return _memos_of(steps if after is None else steps.filter(seq__gt=after))

    def branch_memos(self, claim: Claim) -> list[Memo]:
        return _memos_of(self._steps(claim.run_id).filter(branch=claim.path))

    def history(self, run_id: UUID) -> list[Memo]:
        return _memos_of(self._steps(run_id))


_columns_of = attrgetter(*COLUMNS)


def _memos_of(steps: Any) -> list[Memo]:
    return [_memo_of(step) for step in steps.select_related("event").defer("input")]


def _memo_of(step: Step) -> Memo:
    return memo_of(*_columns_of(step), event=event_row(step.event) if step.event else None)
