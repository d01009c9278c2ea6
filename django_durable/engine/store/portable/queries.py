"""What the portable statements share: conditions, moments, and the rows that they work on."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from typing import Any
from uuid import UUID

from django.db import connections
from django.db.models import Case, F, Q, QuerySet, Value, When

from ....core.replay.operations import StepKind, StepStatus
from ....managers import DatabaseNow
from ....models import ENDED, Run, RunStatus, Step, StepAttempt
from ..contract import Store
from ..rows import MOST_CRASHES, STOPPING, AttemptRow, Claim
from ..stored_events import event_row

READY = Q(status=RunStatus.QUEUED, held_by=None, ready_at__lte=DatabaseNow())  #: a run that may be claimed
READY_BRANCH = Q(kind=StepKind.BRANCH, status=StepStatus.PLANNED, next_at__isnull=False)
OPEN = (StepStatus.PLANNED.value, StepStatus.RUNNING.value, StepStatus.WAITING.value)  #: of a branch that has not ended
DEAD = Q(status="running", next_at__lte=DatabaseNow())  #: a run or branch whose owner let the lease run out
CRASHED = Q(status="running") & ~Q(owner__endswith=STOPPING)  #: a run or branch whose takeover counts as a crash
ONE_CRASH = Case(When(CRASHED, then=Value(1)), default=Value(0))


#: What the end of a run changes, beside its status and payloads.
ENDING: dict[str, Any] = {
    "fence": F("fence") + 1,
    "next_at": None,
    "ready_at": None,
    "held_by": None,
    "finished_at": DatabaseNow(),
    "waiting_kind": "",
    "waiting_for": "",
    "owner": "",
}


def after_crash(rehint: datetime.timedelta, *, otherwise: datetime.timedelta = datetime.timedelta()) -> Case:
    """Return when a run or branch that is taken over starts: later after each crash but the first; else *otherwise*.

    The first crash may well be another run's fault; a row that goes on to crash must not keep workers busy dying.
    """
    pauses = [When(CRASHED, crashes=count, then=DatabaseNow(count * rehint)) for count in range(1, MOST_CRASHES)]
    most = When(CRASHED, crashes__gte=MOST_CRASHES, then=DatabaseNow(MOST_CRASHES * rehint))
    return Case(*pauses, most, default=DatabaseNow(otherwise))


def started_at() -> Case:
    """Return when a run or branch was claimed first: now, if it never was."""
    return Case(When(started_at=None, then=DatabaseNow()), default=F("started_at"))


def renewed(lease: datetime.timedelta) -> Case:
    """Return when a lease ends that is renewed only if less than half of it is left."""
    return Case(When(next_at__lt=DatabaseNow(lease / 2), then=DatabaseNow(lease)), default=F("next_at"))


def moment(value: datetime.datetime | None) -> Value:
    """Return that moment, or NULL, as an expression."""
    return Value(value, output_field=Run._meta.get_field("next_at"))


def claim_of(run: Any) -> Claim:
    """Return the claim that holds a run, whose row was read with its event and the time."""
    return Claim.of(run, run.now, event_row(run.event) if run.event else None)


class Queries(Store):
    """The rows that the portable statements work on."""

    def __init__(self, alias: str) -> None:
        self.alias = alias

    def _runs(self, run_ids: Iterable[UUID]) -> QuerySet[Run]:
        return Run.objects.using(self.alias).filter(id__in=list(run_ids))

    def _run(self, run_id: UUID) -> QuerySet[Run]:
        return self._runs([run_id])

    def _steps(self, run_id: UUID) -> QuerySet[Step]:
        return Step.objects.using(self.alias).filter(run_id=run_id)

    def _branches(self, run_ids: Iterable[UUID]) -> QuerySet[Step]:
        return Step.objects.using(self.alias).filter(run_id__in=run_ids, kind=StepKind.BRANCH)

    def _held(self, claim: Claim) -> Any:
        """Return the claimed row, run or branch, if the claim holds."""
        if claim.key is None:
            return self._run(claim.run_id).filter(fence=claim.fence, status=RunStatus.RUNNING)
        return self._steps(claim.run_id).filter(key=claim.key, fence=claim.fence, status=StepStatus.RUNNING)

    def _locked(self, rows: Any, order: str = "id") -> Any:
        return rows.order_by(order).select_for_update()

    def _with_event(self, run_id: UUID) -> Any:
        """Return the row of the run with what a claim on it needs."""
        return self._run(run_id).select_related("event").defer("output", "error").annotate(now=DatabaseNow())

    def _locked_run(self, run_id: UUID) -> Any:
        """Lock the run, and return it with what a claim on it needs; None if it has ended."""
        # MariaDB cannot leave the event out; locking it, too, harms nobody.
        only = ("self",) if connections[self.alias].features.has_select_for_update_of else ()
        return self._with_event(run_id).exclude(status__in=ENDED).select_for_update(of=only).first()

    def _lock_for_branch(self, claim: Claim) -> int | None:
        """Lock the run of a claimed branch, before the branch itself; return its number of steps, None if it ended."""
        runs = self._run(claim.run_id).exclude(status__in=ENDED).select_for_update()
        count: int | None = runs.values_list("steps", flat=True).first()
        return count

    def _write_attempt(self, claim: Claim, row: AttemptRow | None) -> None:
        if row is not None:
            values = {name: getattr(row, name) for name in row.__slots__}
            StepAttempt.objects.using(self.alias).create(run_id=claim.run_id, owner=claim.owner, **values)
