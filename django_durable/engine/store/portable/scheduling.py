"""The scheduler's statements: who leads, what is due, and what dead owners left."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Sequence
from uuid import UUID

from django.db.models import F, Q

from ....core.replay.operations import StepKind, StepStatus
from ....managers import DatabaseNow
from ....models import Event, Lock, Run, RunStatus, Step
from ..rows import SchedulerView
from ..transactions import atomic, retried
from .queries import DEAD, ONE_CRASH, Queries, after_crash

LEADER, DEPUTY = "scheduler", "scheduler deputy"  #: names of locks
MOST_REHINTS = 60  #: times the first pause lies between two hints at most


class Scheduling(Queries):
    """The scheduler's statements, in portable ORM."""

    @retried
    def look(self, name: str, *, leadership: datetime.timedelta, deputyship: datetime.timedelta) -> SchedulerView:
        leads = self._hold(LEADER, name, leadership)
        is_deputy = not leads and self._hold(DEPUTY, name, deputyship)
        locks = Lock.objects.using(self.alias).annotate(now=DatabaseNow())
        watched = locks.get(name=LEADER if leads or is_deputy else DEPUTY)
        patience = (watched.expires_at - watched.now).total_seconds() if watched.expires_at else 0.0
        seen = SchedulerView(leads=leads, is_deputy=is_deputy, patience=patience, now=watched.now)
        return self._with_dues(seen) if leads else seen

    def _with_dues(self, seen: SchedulerView) -> SchedulerView:
        runs = Run.objects.using(self.alias).filter(next_at__isnull=False)
        branches = Step.objects.using(self.alias).filter(kind=StepKind.BRANCH, next_at__isnull=False)
        events = Event.objects.using(self.alias).filter(ingested_at=None).order_by("ingest_at", "id")
        run_at, branch_at = (rows.order_by("next_at").values_list("next_at").first() for rows in (runs, branches))
        event_at, event_id = events.values_list("ingest_at", "id").first() or (None, None)
        return dataclasses.replace(
            seen,
            run_at=run_at and run_at[0],
            branch_at=branch_at and branch_at[0],
            event_at=event_at,
            event_id=event_id,
        )

    def _hold(self, role: str, name: str, length: datetime.timedelta) -> bool:
        locks, until = Lock.objects.using(self.alias), DatabaseNow(length)
        free = Q(owner=name) | Q(expires_at__lte=DatabaseNow())
        if locks.filter(free, name=role).update(owner=name, expires_at=until):
            return True
        if not locks.filter(name=role).exists():
            locks.bulk_create([Lock(name=role, owner=name, expires_at=until)], ignore_conflicts=True)
        return locks.filter(name=role, owner=name, expires_at__gt=DatabaseNow()).exists()

    def expire(self, run_ids: Sequence[UUID], *, rehint: datetime.timedelta) -> None:
        # MariaDB evaluates in this order, and each expression sees what those before it have set.
        self._runs(run_ids).filter(DEAD).update(
            ready_at=after_crash(rehint),
            next_at=after_crash(rehint, otherwise=rehint),
            crashes=F("crashes") + ONE_CRASH,
            fence=F("fence") + 1,
            status=RunStatus.QUEUED,
            owner="",
        )

    def put_off(self, run_ids: Sequence[UUID], *, by: datetime.timedelta) -> None:
        if run_ids:
            waiting = self._runs(run_ids).filter(status=RunStatus.WAITING, next_at__isnull=False)
            waiting.update(next_at=DatabaseNow(by))
            branches = self._branches(run_ids).filter(status=StepStatus.WAITING, next_at__lte=DatabaseNow())
            branches.update(next_at=DatabaseNow(by))

    @retried
    def hint_later(self, run_ids: Sequence[UUID], *, rehint: datetime.timedelta) -> None:
        if not run_ids:
            return
        with atomic():
            queued = self._runs(run_ids).filter(status=RunStatus.QUEUED).annotate(now=DatabaseNow())
            for run in (runs := list(self._locked(queued))):
                waited = run.now - run.ready_at if run.ready_at else datetime.timedelta()
                run.next_at = run.now + min(max(rehint, waited), MOST_REHINTS * rehint)
            Run.objects.using(self.alias).bulk_update(runs, ["next_at"], batch_size=100)
