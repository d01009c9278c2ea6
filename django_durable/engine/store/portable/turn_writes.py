"""Writes of a turn: what it records, how it parks, and how it ends."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from django.db.models import Case, F, Q, Value, When

from ....core.replay.operations import SETTLED, StepKind, StepStatus
from ....managers import DatabaseNow
from ....models import ENDED, RunStatus, Step, Wait
from ..rows import LONGEST_TEXT, AttemptRow, Claim, EndResult, NextClaim, Parking, StepRow, WaitRow
from ..transactions import atomic, retried
from .queries import ENDING, Queries, moment, renewed

#: What a write changes of a step that is open already.
STEP_CHANGES = (
    *("status", "input", "output", "error", "attempt", "event_id", "started_at", "finished_at", "next_at"),
    "open",  # of a group alone
)


class TurnWrites(Queries):
    """Writes of a turn, in portable ORM."""

    @retried
    def record(
        self, claim: Claim, step: StepRow, *, lease: datetime.timedelta, failed: AttemptRow | None = None
    ) -> int | None:
        with atomic():
            seq = self._count_step(claim, lease)
            if seq is not None:
                self._write_steps(claim.run_id, [step], seq=seq)
                self._write_attempt(claim, failed)
        return seq

    def recorded_as(self, claim: Claim, key: bytes) -> int | None:
        steps = self._steps(claim.run_id).filter(key=key, status__in=SETTLED)
        number = steps.values_list("seq", flat=True).first()
        return number if number is not None and self._held(claim).exists() else None

    @retried
    def plan(
        self, claim: Claim, steps: Sequence[StepRow], waits: Sequence[WaitRow], *, lease: datetime.timedelta
    ) -> bool:
        with atomic():
            held = self._held(claim).update(next_at=renewed(lease))
            if held:
                self._write_steps(claim.run_id, steps, seq=None)
                self._write_waits(claim.run_id, waits)
        return bool(held)

    @retried
    def park(self, claim: Claim, parking: Parking, *, rehint: datetime.timedelta) -> str | None:
        with atomic():
            status = self._park_branch(claim, parking) if claim.key else self._park_run(claim, parking, rehint)
            if status is not None:
                self._write_steps(claim.run_id, parking.steps, seq=None)
                self._write_waits(claim.run_id, parking.waits)
                self._write_attempt(claim, parking.failed)
            return status

    def _park_run(self, claim: Claim, parking: Parking, rehint: datetime.timedelta) -> str | None:
        woken = ~Q(wakes=claim.wakes)
        held = self._held(claim).update(
            status=Case(When(woken, then=Value("queued")), default=Value("waiting")),
            next_at=Case(When(woken, then=DatabaseNow(rehint)), default=moment(parking.next_at)),
            ready_at=Case(When(woken, then=DatabaseNow()), default=moment(None)),
            waiting_kind=parking.kind,
            waiting_for=parking.text[:LONGEST_TEXT],
            attempt=parking.attempt,
            crashes=0,
            owner="",
        )
        return str(self._run(claim.run_id).values_list("status", flat=True).get()) if held else None

    def _park_branch(self, claim: Claim, parking: Parking) -> str | None:
        # All that can wake the branch is written in this commit: while it ran, it waited for nothing.
        if self._lock_for_branch(claim) is None:
            return None
        waiting = {"status": StepStatus.WAITING, "next_at": parking.next_at, "attempt": parking.attempt}
        held = self._held(claim).update(**waiting, crashes=0, owner="")
        return "waiting" if held else None

    @retried
    def release(self, claim: Claim, *, after: datetime.timedelta, rehint: datetime.timedelta) -> bool:
        if claim.key is None:
            released = self._held(claim).update(
                status=RunStatus.QUEUED, next_at=DatabaseNow(after + rehint), ready_at=DatabaseNow(after), owner=""
            )
        else:
            status = StepStatus.WAITING if after else StepStatus.PLANNED
            released = self._held(claim).update(status=status, next_at=DatabaseNow(after or rehint), owner="")
        return bool(released)

    @retried
    def end(
        self,
        claim: Claim,
        status: str,
        *,
        output: str | None = None,
        error: str | None = None,
        next_claim: NextClaim | None = None,
    ) -> EndResult | None:
        with atomic():
            if not self._held(claim).exists():
                return None
            unended = self._run(claim.run_id).exclude(status__in=ENDED)
            ended = (unended if claim.key else self._held(claim)).update(
                status=status, output=output, error=error, **ENDING
            )
            if ended:
                Wait.objects.using(self.alias).filter(run_id=claim.run_id).delete()
                if claim.key:
                    self.close_branches([claim.run_id])
        return EndResult() if ended else None

    @retried
    def note_code(self, claim: Claim, **versions: str) -> bool:
        if claim.key is None:
            return bool(self._held(claim).update(**versions))
        with atomic():
            held = self._lock_for_branch(claim) is not None and self._held(claim).exists()
            return held and bool(self._run(claim.run_id).update(**versions))

    def mark_unused(self, run_id: UUID, keys: Sequence[bytes]) -> None:
        if keys:
            self._steps(run_id).filter(key__in=keys).update(unused=True)

    def summarize(self, claim: Claim, text: str) -> None:
        self._run(claim.run_id).update(summary=text)

    def keep_attempt(self, claim: Claim, attempt: AttemptRow) -> None:
        self._write_attempt(claim, attempt)

    def _count_step(self, claim: Claim, lease: datetime.timedelta) -> int | None:
        """Count a step that is recorded under the claim; return its number, None if the claim is lost."""
        before = self._lock_for_branch(claim) if claim.key else None
        if claim.key and before is None:
            return None
        kept = {"attempt": 0, "crashes": 0, "next_at": renewed(lease)}
        if not self._held(claim).update(**kept if claim.key else {**kept, "steps": F("steps") + 1}):
            return None
        if before is not None:
            self._run(claim.run_id).update(steps=before + 1)
            return before + 1
        return int(self._run(claim.run_id).values_list("steps", flat=True).get())

    def _write_steps(self, run_id: UUID, rows: Sequence[StepRow], *, seq: int | None) -> None:
        """Insert steps, or change them where they are open already."""
        steps = self._steps(run_id)
        known = set(steps.filter(key__in=[row.key for row in rows]).values_list("key", flat=True)) if rows else set()
        for row in rows:
            if row.key in known and row.kind is StepKind.GROUP:
                # The code has gained branches; those that were there still count.
                steps.filter(key=row.key).update(status=row.status, open=F("open") + row.open, seq=None)
            elif row.key in known:
                values = {name: getattr(row, name) for name in STEP_CHANGES} | {"seq": seq}
                steps.filter(key=row.key).exclude(status__in=SETTLED).update(**values)
        new = [Step(run_id=run_id, seq=seq, **_values(row)) for row in rows if row.key not in known]
        # A step that is there nevertheless was written by the first try of this write, whose outcome was unknown.
        Step.objects.using(self.alias).bulk_create(new, ignore_conflicts=True, batch_size=500)

    def _write_waits(self, run_id: UUID, rows: Sequence[WaitRow]) -> None:
        waits = [Wait(run_id=run_id, **_values(row)) for row in rows]
        Wait.objects.using(self.alias).bulk_create(waits, batch_size=500)


def _values(row: StepRow | WaitRow) -> dict[str, Any]:
    return {name: getattr(row, name) for name in row.__slots__}
