"""Changes from outside the turn of a run."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from uuid import UUID

from django.db.models import F

from ....core.replay.operations import SETTLED
from ....managers import DatabaseNow
from ....models import ENDED, Event, Run, RunStatus, Wait
from ..rows import EventRow, ReadyRun, Resolution
from ..transactions import atomic, retried
from .queries import ENDING, Queries


class Changes(Queries):
    """Changes from outside, in portable ORM."""

    def insert(self, row: Event | Run, *, ignore_conflicts: bool = False) -> None:
        type(row).objects.using(self.alias).bulk_create([row], ignore_conflicts=ignore_conflicts)  # type: ignore[list-item]

    def store_ingested(self, batch: Sequence[EventRow], runs: Sequence[Run]) -> Mapping[UUID, datetime.datetime]:
        marked = [Event(id=row.id, ingested_at=row.ingested_at) for row in batch]
        Event.objects.using(self.alias).bulk_update(marked, ["ingested_at"], batch_size=100)
        Run.objects.using(self.alias).bulk_create(runs, batch_size=500, ignore_conflicts=True)
        new = self._runs([run.id for run in runs]).annotate(now=DatabaseNow())
        return dict(new.values_list("id", "now")) if runs else {}

    def lock(self, run_ids: Sequence[UUID]) -> list[UUID]:
        return list(self._locked(self._runs(run_ids).exclude(status__in=ENDED)).values_list("id", flat=True))

    def cancel(self, run_ids: Sequence[UUID], error: str) -> None:
        self._runs(run_ids).update(status=RunStatus.CANCELLED, error=error, **ENDING)
        Wait.objects.using(self.alias).filter(run_id__in=run_ids).delete()
        self.close_branches(run_ids)

    @retried
    def resolve(self, resolutions: Sequence[Resolution], *, rehint: datetime.timedelta) -> list[ReadyRun]:
        with atomic():
            unended = self._runs({each.run_id for each in resolutions}).exclude(status__in=ENDED)
            counts = dict(self._locked(unended).values_list("id", "steps"))
            runs_woken: set[UUID] = set()
            branches_woken: set[tuple[UUID, bytes]] = set()
            for each in resolutions:
                step = self._settle(each, counts[each.run_id] + 1) if each.run_id in counts else None
                if step is not None:
                    counts[each.run_id] += 1
                    if step:
                        branches_woken.add((each.run_id, step))
                    else:
                        runs_woken.add(each.run_id)
            for run_id in runs_woken.union(run_id for run_id, _ in branches_woken):
                self._run(run_id).update(steps=counts[run_id])
            woken = self.wake_branches(sorted(branches_woken), rehint=rehint)
            return woken + self.wake(list(runs_woken), rehint=rehint, progress=True)

    def _settle(self, resolution: Resolution, seq: int) -> bytes | None:
        """Settle a step; return the key of its branch, empty if it is in none; None if it was settled already."""
        steps = self._steps(resolution.run_id).filter(key=resolution.key)
        settled = steps.exclude(status__in=SETTLED).update(
            status=resolution.status,
            output=resolution.output,
            error=resolution.error,
            event_id=resolution.event_id,
            finished_at=DatabaseNow(),
            seq=seq,
        )
        Wait.objects.using(self.alias).filter(run_id=resolution.run_id, key=resolution.key).delete()
        return bytes(steps.values_list("parent_key", flat=True).get() or b"") if settled else None

    @retried
    def wake(self, run_ids: Sequence[UUID], *, rehint: datetime.timedelta, progress: bool = False) -> list[ReadyRun]:
        with atomic():
            ready, queued = [], {"status": RunStatus.QUEUED, "ready_at": DatabaseNow(), "next_at": DatabaseNow(rehint)}
            for run_id in sorted(set(run_ids)):
                run = self._run(run_id)
                # Counted first, which locks the row: a run that parks at this moment then finds itself woken.
                run.exclude(status__in=ENDED).update(wakes=F("wakes") + 1)
                if run.filter(status=RunStatus.WAITING).update(**queued):
                    ready.append(run_id)
                if progress:
                    run.update(attempt=0)
            return [ReadyRun(*row) for row in self._runs(ready).values_list("id", "queue")]
