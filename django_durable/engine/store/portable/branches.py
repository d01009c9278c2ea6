"""The rows of branches: claimed one by one, and what their end means for the group.

=========  =======================================  ===================================================================
operation  condition                                effect
=========  =======================================  ===================================================================
claim      planned, with an alarm; or running with  running, fence + 1, alarm = lease end
           a dead lease
park       running, fence as claimed                waiting
release    running, fence as claimed                planned; waiting, if it is to start later
finish     running, fence as claimed                completed or failed; the group counts one less, and with the last
                                                    one, or the first of a race, it is completed and wakes what waits
wake       waiting                                  planned
expire     running with a dead lease                planned, fence + 1, crashes + 1; waiting after the second crash
forgive    taken over since the claim, not settled  crashes - 1
close      planned, running or waiting              cancelled, fence + 1, no alarm
=========  =======================================  ===================================================================

A planned branch without an alarm is held back by the limit of its group; each end lets one more in. Every change locks
the row of the run, which must not have ended, then those of its groups and branches: so their counts are right.
"""

from __future__ import annotations

import dataclasses
import datetime
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from django.db import connections
from django.db.models import Case, F, Q, Value, When

from ....core.replay.operations import StepKind, StepStatus
from ....managers import DatabaseNow
from ....models import ENDED, Run, Step, StepAttempt, Wait
from ..rows import MOST_CRASHES, STOPPING, AttemptRow, BranchEnd, Claim, EndResult, NextClaim, ReadyRun
from ..transactions import atomic, retried

OPEN = (StepStatus.PLANNED.value, StepStatus.RUNNING.value, StepStatus.WAITING.value)
READY_BRANCH = Q(kind=StepKind.BRANCH, status=StepStatus.PLANNED, next_at__isnull=False)
DEAD = Q(status="running", next_at__lte=DatabaseNow())  #: a run or branch whose owner let the lease run out
CRASHED = Q(status="running") & ~Q(owner__endswith=STOPPING)  #: of a run or branch that is taken over


def after_crash(rehint: datetime.timedelta, *, otherwise: datetime.timedelta = datetime.timedelta()) -> Case:
    """Return when a run or branch that is taken over starts: later after each crash but the first; else *otherwise*.

    The first may well have been the fault of another; a row that goes on to crash must not keep workers busy dying.
    """
    pauses = [When(CRASHED, crashes=count, then=DatabaseNow(count * rehint)) for count in range(1, MOST_CRASHES)]
    most = When(CRASHED, crashes__gte=MOST_CRASHES, then=DatabaseNow(MOST_CRASHES * rehint))
    return Case(*pauses, most, default=DatabaseNow(otherwise))


class BranchStore(ABC):
    """The part of the store that is about branches."""

    alias: str

    @abstractmethod
    def wake(self, run_ids: Sequence[UUID], *, rehint: datetime.timedelta, progress: bool = False) -> list[ReadyRun]:
        """Wake these runs."""

    @abstractmethod
    def _claim_of(self, run: Any) -> Claim:
        """Return the claim that the row of a run is."""

    @retried
    def claim_branch(
        self, run_id: UUID, *, owner: str, lease: datetime.timedelta, group: bytes | None = None
    ) -> Claim | None:
        """Claim a branch of the run, or of one of its groups, that may go on or whose owner's lease is dead."""
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
            started_at=Case(When(started_at=None, then=DatabaseNow()), default=F("started_at")),
        )
        return dataclasses.replace(
            self._claim_of(run),
            owner=owner,
            key=branch.key,
            path=branch.path,
            fence=branch.fence + 1,
            attempt=branch.attempt,
            crashes=crashes,
        )

    def has_branch(self, run_id: UUID) -> bool:
        """Tell whether a branch of the run could be claimed now."""
        return bool(self._steps(run_id).filter(READY_BRANCH).exists())

    @retried
    def finish_branch(
        self, claim: Claim, end: BranchEnd, *, rehint: datetime.timedelta, next_claim: NextClaim | None = None
    ) -> EndResult | None:
        """End a branch, and its group if that is decided now, and claim another one for *next_claim*, in one commit.

        Return None if the claim is lost.
        """
        with atomic():
            run = self._locked_run(claim.run_id)
            if run is None or not self._end_branch(claim, end, seq=run.steps + 1):
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
            Run.objects.using(self.alias).filter(id=run.id).update(steps=run.steps + 1 + decided)
            if decided:
                return EndResult(self._wake_around(group, rehint))
            return EndResult(claim=self._follow(claim, group.key, next_claim) if next_claim else None)

    def _follow(self, claim: Claim, group: bytes, next_claim: NextClaim) -> Claim | None:
        return self.claim_branch(claim.run_id, owner=next_claim.owner, lease=next_claim.lease, group=group)

    def _end_branch(self, claim: Claim, end: BranchEnd, *, seq: int) -> bool:
        held = self._steps(claim.run_id).filter(key=claim.key, fence=claim.fence, status=StepStatus.RUNNING)
        ended = held.update(
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
        """Close what is open in the branches of a race that is won."""
        opened = self._steps(run_id).filter(status__in=OPEN).exclude(branch="", path="")
        rows = opened.values_list("key", "branch", "path")
        keys = [key for key, branch, path in rows if branch.startswith(prefix) or path.startswith(prefix)]
        Wait.objects.using(self.alias).filter(run_id=run_id, key__in=keys).delete()
        self._close(self._steps(run_id).filter(key__in=keys))

    def _admit(self, group: Step, count: int, rehint: datetime.timedelta) -> None:
        """Let so many branches go on that the group's limit holds back."""
        held = self._steps(group.run_id).filter(parent_key=group.key, status=StepStatus.PLANNED, next_at=None)
        for key in list(held.order_by("ordinal").values_list("key", flat=True)[:count]):
            held.filter(key=key).update(next_at=DatabaseNow(rehint))

    def _wake_around(self, group: Step, rehint: datetime.timedelta) -> list[ReadyRun]:
        """Wake what waits for the group: the branch that it is in, or the run."""
        if group.parent_key:
            return self.wake_branches([(group.run_id, group.parent_key)], rehint=rehint)
        return self.wake([group.run_id], rehint=rehint, progress=True)

    def close_branches(self, run_ids: Sequence[UUID]) -> None:
        """Close the branches that are open in these runs, which have ended."""
        branches = Step.objects.using(self.alias).filter(run_id__in=run_ids, kind=StepKind.BRANCH)
        self._close(branches.filter(status__in=OPEN))

    def _close(self, steps: Any) -> None:
        steps.update(status=StepStatus.CANCELLED, next_at=None, fence=F("fence") + 1, owner="")

    def wake_branches(self, branches: Iterable[tuple[UUID, bytes]], *, rehint: datetime.timedelta) -> list[ReadyRun]:
        """Let waiting branches go on, whose runs the caller has locked; return their runs, for a worker to look at."""
        planned = {"status": StepStatus.PLANNED, "next_at": DatabaseNow(rehint)}
        woken = {
            run_id
            for run_id, key in branches
            if self._steps(run_id).filter(key=key, status=StepStatus.WAITING).update(**planned)
        }
        runs = Run.objects.using(self.alias).filter(id__in=woken)
        return [ReadyRun(run_id, queue, in_branch=True) for run_id, queue in runs.values_list("id", "queue")]

    def expire_branches(self, run_ids: Sequence[UUID], *, rehint: datetime.timedelta) -> None:
        """Take branches of these runs from owners whose leases are dead, and put off the next hint of the others."""
        branches = Step.objects.using(self.alias).filter(run_id__in=run_ids, kind=StepKind.BRANCH)
        due = branches.filter(next_at__lte=DatabaseNow())
        due.filter(status=StepStatus.PLANNED).update(next_at=DatabaseNow(rehint))
        again = When(CRASHED, crashes__gte=1, then=Value(StepStatus.WAITING.value))
        due.filter(status=StepStatus.RUNNING).update(
            next_at=after_crash(rehint, otherwise=rehint),
            fence=F("fence") + 1,
            status=Case(again, default=Value(StepStatus.PLANNED.value)),
            crashes=F("crashes") + Case(When(~Q(owner__endswith=STOPPING), then=Value(1)), default=Value(0)),
            owner="",
        )

    # Deaths that are nobody's fault

    def mark_stopping(self, claims: Iterable[Claim]) -> None:
        """Note that the owners of these claims were told to stop: if they die all the same, it is no crash."""
        for owner, held in _by_owner(claims).items():
            run_ids = {claim.run_id for claim in held}
            branches = Step.objects.using(self.alias).filter(run_id__in=run_ids, kind=StepKind.BRANCH)
            for rows in (Run.objects.using(self.alias).filter(id__in=run_ids), branches):
                rows.filter(owner=owner, status="running").update(owner=f"{owner}{STOPPING}")

    @retried
    def forgive(self, claim: Claim) -> bool:
        """Take back the crash that was counted when the claim's lease ran out: its owner lives. False if none was."""
        if claim.key is None:
            rows = Run.objects.using(self.alias).filter(id=claim.run_id).exclude(status__in=ENDED)
        else:
            rows = self._steps(claim.run_id).filter(key=claim.key, status__in=OPEN)
        return bool(rows.filter(fence__gt=claim.fence, crashes__gt=0).update(crashes=F("crashes") - 1))

    # Parts

    def _steps(self, run_id: UUID) -> Any:
        return Step.objects.using(self.alias).filter(run_id=run_id)

    def _locked_run(self, run_id: UUID) -> Any:
        """Lock the run and return it with the time and its event, None if it has ended."""
        unfinished = Run.objects.using(self.alias).exclude(status__in=ENDED).filter(id=run_id)
        runs = unfinished.select_related("event").defer("output", "error").annotate(now=DatabaseNow())
        # MariaDB cannot leave the event out; locking it, too, harms nobody.
        only = ("self",) if connections[self.alias].features.has_select_for_update_of else ()
        return runs.select_for_update(of=only).first()

    def _write_attempt(self, claim: Claim, row: AttemptRow | None) -> None:
        if row is not None:
            values = {name: getattr(row, name) for name in row.__slots__}
            StepAttempt.objects.using(self.alias).create(run_id=claim.run_id, owner=claim.owner, **values)


def _by_owner(claims: Iterable[Claim]) -> dict[str, list[Claim]]:
    """Return the claims of each owner: that is a thread of a process, and owns nothing else."""
    found: dict[str, list[Claim]] = {}
    for claim in claims:
        found.setdefault(claim.owner, []).append(claim)
    return found
