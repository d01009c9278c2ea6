"""Claims: which run a worker takes, and how it keeps it."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from django.db.models import Exists, F, OuterRef, Q

from ....core.replay.operations import StepKind
from ....managers import DatabaseNow
from ....models import ENDED, Event, Run, RunStatus, Step
from ..rows import STOPPING, Claim
from ..transactions import atomic, retried
from .queries import DEAD, ONE_CRASH, OPEN, READY, READY_BRANCH, Queries, claim_of, started_at


class Claims(Queries):
    """Claims, in portable ORM."""

    @retried
    def claim(self, run_id: UUID, *, owner: str, lease: datetime.timedelta) -> Claim | None:
        return self._claim(READY | DEAD, run_id, owner, lease)

    @retried
    def claim_ready(
        self, queue: str | None, *, owner: str, lease: datetime.timedelta, functions: Sequence[str] | None = None
    ) -> Claim | None:
        while True:
            runs = self._ready(queue)
            found = runs if functions is None else runs.filter(function_id__in=functions)
            run_id = found.values_list("id", flat=True).first()
            if run_id is None:
                return None
            claim = self._claim(READY, run_id, owner, lease)
            if claim is not None:
                return claim

    def _claim(self, condition: Q, run_id: UUID, owner: str, lease: datetime.timedelta) -> Claim | None:
        with atomic():
            is_claimed = (
                self._run(run_id)
                .filter(condition)
                .update(
                    crashes=F("crashes") + ONE_CRASH,
                    status=RunStatus.RUNNING,
                    fence=F("fence") + 1,
                    owner=owner,
                    next_at=DatabaseNow(lease),
                    ready_at=None,
                    started_at=started_at(),
                    waiting_kind="",
                    waiting_for="",
                )
            )
            return claim_of(self._with_event(run_id).get()) if is_claimed else None

    def claimable(self, run_ids: Sequence[UUID]) -> list[UUID]:
        branches = Step.objects.using(self.alias).filter(
            READY_BRANCH | DEAD, run_id=OuterRef("id"), kind=StepKind.BRANCH
        )
        found = set(self._runs(run_ids).filter(READY | DEAD | Exists(branches)).values_list("id", flat=True))
        return [run_id for run_id in run_ids if run_id in found]

    def has_ready(self, queue: str | None) -> bool:
        return bool(self._ready(queue).exists())

    def has_events(self) -> bool:
        return bool(Event.objects.using(self.alias).to_ingest().exists())

    def has_events_or_ready(self, queue: str | None) -> tuple[bool, bool]:
        return self.has_events(), self.has_ready(queue)

    def _ready(self, queue: str | None) -> Any:
        ready = Run.objects.using(self.alias).filter(READY)
        return (ready if queue is None else ready.filter(queue=queue)).order_by("ready_at", "id")

    def renew(self, claims: Sequence[Claim], *, lease: datetime.timedelta) -> list[Claim]:
        in_order = sorted(claims, key=lambda claim: (claim.run_id, claim.key or b""))
        return [claim for claim in in_order if self._held(claim).update(next_at=DatabaseNow(lease))]

    def mark_stopping(self, claims: Iterable[Claim]) -> None:
        for owner, held in _by_owner(claims).items():
            run_ids = {claim.run_id for claim in held}
            for rows in (self._runs(run_ids), self._branches(run_ids)):
                rows.filter(owner=owner, status="running").update(owner=f"{owner}{STOPPING}")

    @retried
    def forgive(self, claim: Claim) -> bool:
        run, branch = self._run(claim.run_id).exclude(status__in=ENDED), self._steps(claim.run_id).filter(key=claim.key)
        rows: Any = branch.filter(status__in=OPEN) if claim.key else run
        return bool(rows.filter(fence__gt=claim.fence, crashes__gt=0).update(crashes=F("crashes") - 1))


def _by_owner(claims: Iterable[Claim]) -> dict[str, list[Claim]]:
    """Return the claims of each owner, which are a thread of a process and own nothing else."""
    found: dict[str, list[Claim]] = {}
    for claim in claims:
        found.setdefault(claim.owner, []).append(claim)
    return found
