"""Branches: claimed one by one, and what their end means for the group."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from django.db.models import Case, F, Q, Value, When

from ....core.replay.operations import StepKind, StepStatus
from ....managers import DatabaseNow
from ....models import Step, Wait
from ..rows import STOPPING, BranchEnd, Claim, EndResult, NextClaim, ReadyRun
from ..transactions import atomic, retried
from .queries import CRASHED, DEAD, OPEN, READY_BRANCH, Queries, after_crash, claim_of, started_at


class Branches(Queries):
    """Branches, in portable ORM."""

    @retried
    def claim_branch(
        self, run_id: UUID, *, owner: str, lease: datetime.timedelta, group: bytes | None = None
    ) -> Claim | None:
        with atomic():
            run = self._locked_run(run_id)
            if run is None:
                return None
            branches = self._steps(run_id).filter(READY_BRANCH | DEAD, kind=StepKind.BRANCH)
            found = branches.filter(**{"parent_key": group} if group else {}).order_by("ordinal", "planned_at").first()
            return self._claimed(run, found, owner, lease) if found else None

    def _claimed(self, run: Any, branch: Step, owner: str, lease: datetime.timedelta) -> Claim:
        is_crashed = branch.status == StepStatus.RUNNING and not branch.owner.endswith(STOPPING)
        crashes = branch.crashes + is_crashed
        self._steps(run.id).filter(key=branch.key).update(
            status=StepStatus.RUNNING,
            fence=branch.fence + 1,
            owner=owner,
            next_at=DatabaseNow(lease),
            crashes=crashes,
            started_at=started_at(),
        )
        return dataclasses.replace(
            claim_of(run),
            owner=owner,
            key=branch.key,
            path=branch.path,
            fence=branch.fence + 1,
            attempt=branch.attempt,
            crashes=crashes,
        )

    def has_branch(self, run_id: UUID) -> bool:
        return bool(self._steps(run_id).filter(READY_BRANCH).exists())

    @retried
    def end_branch(
        self, claim: Claim, end: BranchEnd, *, rehint: datetime.timedelta, next_claim: NextClaim | None = None
    ) -> EndResult | None:
        with atomic():
            run = self._locked_run(claim.run_id)
            if run is None or not self._settle_branch(claim, end, seq=run.steps + 1):
                return None
            self._write_attempt(claim, end.failed)
            steps = self._steps(run.id)
            group = steps.get(key=steps.values_list("parent_key", flat=True).get(key=claim.key))
            decided = end.race or group.open == 1
            if decided:
                self._decide(group, claim, end, seq=run.steps + 2)
            else:
                steps.filter(key=group.key).update(open=F("open") - 1)
                self._admit(group, 1 if end.limited else 0, rehint)
            self._run(run.id).update(steps=run.steps + 1 + decided)
            if decided:
                return EndResult(self._wake_around(group, rehint))
            return EndResult(claim=self._follow(claim, group.key, next_claim) if next_claim else None)

    def _follow(self, claim: Claim, group: bytes, next_claim: NextClaim) -> Claim | None:
        return self.claim_branch(claim.run_id, owner=next_claim.owner, lease=next_claim.lease, group=group)

    def _settle_branch(self, claim: Claim, end: BranchEnd, *, seq: int) -> bool:
        ended = self._held(claim).update(
            status=end.status,
            output=end.output,
            error=end.error,
            input=end.input,
            attempt=end.attempt,
            seq=seq,
            finished_at=DatabaseNow(),
            next_at=None,
            crashes=0,
            owner="",
        )
        return bool(ended)

    def _decide(self, group: Step, claim: Claim, end: BranchEnd, *, seq: int) -> None:
        steps = self._steps(claim.run_id)
        steps.filter(key=group.key).update(
            status=StepStatus.COMPLETED, open=0, winner=end.index, seq=seq, finished_at=DatabaseNow()
        )
        if end.race:
            self._close_losers(claim.run_id, end.prefix)

    def _close_losers(self, run_id: UUID, prefix: str) -> None:
        """Close the steps that are open in the branches of a race that has been won."""
        opened = self._steps(run_id).filter(status__in=OPEN).exclude(branch="", path="")
        rows = opened.values_list("key", "branch", "path")
        keys = [key for key, branch, path in rows if branch.startswith(prefix) or path.startswith(prefix)]
        Wait.objects.using(self.alias).filter(run_id=run_id, key__in=keys).delete()
        self._close(self._steps(run_id).filter(key__in=keys))

    def _admit(self, group: Step, count: int, rehint: datetime.timedelta) -> None:
        """Let the first *count* of the branches that the group's limit holds back go on."""
        held = self._steps(group.run_id).filter(parent_key=group.key, status=StepStatus.PLANNED, next_at=None)
        for key in list(held.order_by("ordinal").values_list("key", flat=True)[:count]):
            held.filter(key=key).update(next_at=DatabaseNow(rehint))

    def _wake_around(self, group: Step, rehint: datetime.timedelta) -> list[ReadyRun]:
        """Wake what waits for the group: the branch that it is in, or the run."""
        if group.parent_key:
            return self.wake_branches([(group.run_id, group.parent_key)], rehint=rehint)
        return self.wake([group.run_id], rehint=rehint, progress=True)

    def close_branches(self, run_ids: Sequence[UUID]) -> None:
        self._close(self._branches(run_ids).filter(status__in=OPEN))

    def _close(self, steps: Any) -> None:
        steps.update(status=StepStatus.CANCELLED, next_at=None, fence=F("fence") + 1, owner="")

    def wake_branches(self, branches: Iterable[tuple[UUID, bytes]], *, rehint: datetime.timedelta) -> list[ReadyRun]:
        planned = {"status": StepStatus.PLANNED, "next_at": DatabaseNow(rehint)}
        woken = {
            run_id
            for run_id, key in branches
            if self._steps(run_id).filter(key=key, status=StepStatus.WAITING).update(**planned)
        }
        queues = self._runs(woken).values_list("id", "queue")
        return [ReadyRun(run_id, queue, in_branch=True) for run_id, queue in queues]

    def expire_branches(self, run_ids: Sequence[UUID], *, rehint: datetime.timedelta) -> None:
        due = self._branches(run_ids).filter(next_at__lte=DatabaseNow())
        due.filter(status=StepStatus.PLANNED).update(next_at=DatabaseNow(rehint))
        again = When(CRASHED, crashes__gte=1, then=Value(StepStatus.WAITING.value))
        due.filter(status=StepStatus.RUNNING).update(
            next_at=after_crash(rehint, otherwise=rehint),
            fence=F("fence") + 1,
            status=Case(again, default=Value(StepStatus.PLANNED.value)),
            crashes=F("crashes") + Case(When(~Q(owner__endswith=STOPPING), then=Value(1)), default=Value(0)),
            owner="",
        )
