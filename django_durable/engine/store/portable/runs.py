"""The statements that must be fast, and every change of a run's status, in portable ORM.

One contract, two implementations: this one works on every database; :mod:`.postgresql` overrides the hot ones with
single statements. A run's status changes here and nowhere else:

=========  ======================================================  ====================================================
operation  condition                                               effect
=========  ======================================================  ====================================================
insert     its start key is new                                    queued; running, fence 1, if claimed from the start
claim      queued, not held, ready; or running with a dead lease   running, fence + 1, alarm = lease end
wake       waiting                                                 queued, wakes + 1
           running or queued                                       wakes + 1
park       running, fence as claimed                               waiting; queued if woken meanwhile
release    running, fence as claimed                               queued
expire     running with a dead lease                               queued, fence + 1, crashes + 1; with a pause after
                                                                   the second crash
forgive    taken over since the claim, not ended                   crashes - 1
put_off    waiting                                                 alarm later
end        running, fence as claimed                               completed, failed …; fence + 1, no alarm, no waits
cancel     queued, running or waiting                              cancelled; fence + 1, no alarm, no waits
=========  ======================================================  ====================================================

Every write of a turn names the claim's fence and locks the run's row, so that a stale owner's write changes nothing.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from django.db import connections
from django.db.models import Case, Exists, F, OuterRef, Q, Value, When

from ....codecs import open_text
from ....core import clock
from ....core.replay.groups import groups_around, scopes_of
from ....core.replay.operations import Memo, StepKind, StepStatus
from ....managers import DatabaseNow
from ....models import ENDED, Event, Lock, Run, RunStatus, Step, Wait
from .. import stored_events
from ..rows import (
    LONGEST_TEXT,
    AttemptRow,
    Claim,
    EndResult,
    EventRow,
    NextClaim,
    Parking,
    ReadyRun,
    Resolution,
    SchedulerView,
    StepRow,
    WaitRow,
)
from ..transactions import atomic, retried
from .branches import CRASHED, DEAD, READY_BRANCH, BranchStore, after_crash
from .lookups import Lookups

LEADER, DEPUTY = "scheduler", "scheduler deputy"  #: names of locks
SETTLED = (StepStatus.COMPLETED.value, StepStatus.FAILED.value)
READY = Q(status=RunStatus.QUEUED, held_by=None, ready_at__lte=DatabaseNow())
MOST_REHINTS = 60  #: times the first pause lies between two hints at most


def claimed_from_the_start(run: Run, *, owner: str, lease: datetime.timedelta) -> Run:
    """Return the new run as :meth:`Store.claim` would make it: running, in the hands of the worker that inserts it."""
    run.status, run.fence, run.owner = RunStatus.RUNNING, 1, owner
    run.ready_at, run.next_at, run.started_at = None, DatabaseNow(lease), DatabaseNow()
    return run


class Store(Lookups, BranchStore):
    """The contract, in portable ORM."""

    def __init__(self, alias: str) -> None:
        self.alias = alias

    def now(self) -> datetime.datetime:
        """Return the database's time; SQLite's is this host's."""
        return clock.now()

    # Claims

    @retried
    def claim(self, run_id: UUID, *, owner: str, lease: datetime.timedelta) -> Claim | None:
        """Claim that run, if it is ready or its owner's lease is dead."""
        return self._claim(READY | DEAD, run_id, owner, lease)

    @retried
    def claim_ready(
        self, queue: str | None, *, owner: str, lease: datetime.timedelta, functions: Sequence[str] | None = None
    ) -> Claim | None:
        """Claim the first ready run of *queue* (None: of any), and of *functions* if given; None if there is none."""
        while True:
            runs = self._ready(queue)
            found = runs if functions is None else runs.filter(function_id__in=functions)
            run_id = found.values_list("id", flat=True).first()
            if run_id is None:
                return None
            claim = self._claim(READY, run_id, owner, lease)
            if claim is not None:
                return claim

    def claimable(self, run_ids: Sequence[UUID]) -> list[UUID]:
        """Return which of these runs could be claimed now, or a branch of them."""
        branches = Step.objects.using(self.alias).filter(
            READY_BRANCH | DEAD, run_id=OuterRef("id"), kind=StepKind.BRANCH
        )
        found = set(self._runs(run_ids).filter(READY | DEAD | Exists(branches)).values_list("id", flat=True))
        return [run_id for run_id in run_ids if run_id in found]

    def has_ready(self, queue: str | None) -> bool:
        """Tell whether a run of *queue* (None: of any) could be claimed now."""
        return bool(self._ready(queue).exists())

    def has_events(self) -> bool:
        """Tell whether an event is due to be ingested."""
        return bool(Event.objects.using(self.alias).to_ingest().exists())

    def has_events_or_ready(self, queue: str | None) -> tuple[bool, bool]:
        """Tell both, see :meth:`has_events` and :meth:`has_ready`."""
        return self.has_events(), self.has_ready(queue)

    def _ready(self, queue: str | None) -> Any:
        ready = Run.objects.using(self.alias).filter(READY)
        return (ready if queue is None else ready.filter(queue=queue)).order_by("ready_at", "id")

    def _claim(self, condition: Q, run_id: UUID, owner: str, lease: datetime.timedelta) -> Claim | None:
        with atomic():
            claimed = (
                Run.objects.using(self.alias)
                .filter(condition, id=run_id)
                .update(
                    crashes=F("crashes") + Case(When(CRASHED, then=Value(1)), default=Value(0)),
                    status=RunStatus.RUNNING,
                    fence=F("fence") + 1,
                    owner=owner,
                    next_at=DatabaseNow(lease),
                    ready_at=None,
                    started_at=Case(When(started_at=None, then=DatabaseNow()), default=F("started_at")),
                    waiting_kind="",
                    waiting_for="",
                )
            )
            if not claimed:
                return None
            runs = Run.objects.using(self.alias).select_related("event").defer("output", "error")
            return self._claim_of(runs.annotate(now=DatabaseNow()).get(id=run_id))

    def memos(self, claim: Claim, *, after: int | None = None) -> list[Memo]:
        """Return what is recorded for this turn, in one query: what is settled and open, or was settled *after* a seq.

        A turn of the run sees its own steps and the branches of its groups, not what is inside these. A turn of a
        branch sees its own steps and those of the code around it, not the other branches of the groups that it is in.
        """
        steps = Step.objects.using(self.alias).filter(run_id=claim.run_id, branch__in=scopes_of(claim.path))
        if claim.path:
            steps = steps.exclude(parent_key__in=groups_around(claim.path), kind=StepKind.BRANCH)
        if after is not None:
            steps = steps.filter(seq__gt=after)
        return [_memo_of(step) for step in steps.select_related("event").defer("input")]

    def history(self, run_id: UUID) -> list[Memo]:
        """Return what is recorded of the run, with all that is inside its branches."""
        steps = Step.objects.using(self.alias).filter(run_id=run_id)
        return [_memo_of(step) for step in steps.select_related("event").defer("input")]

    def branch_memos(self, claim: Claim) -> list[Memo]:
        """Return what is recorded inside the claimed branch."""
        steps = Step.objects.using(self.alias).filter(run_id=claim.run_id, branch=claim.path)
        return [_memo_of(step) for step in steps.select_related("event").defer("input")]

    # Writes of a turn

    @retried
    def record(
        self, claim: Claim, step: StepRow, *, lease: datetime.timedelta, failed: AttemptRow | None = None
    ) -> int | None:
        """Write a memo, and let the turn go on; return its number in the run, None if the claim is lost.

        The lease is renewed when less than half of it is left.
        """
        with atomic():
            seq = self._count_step(claim, lease)
            if seq is not None:
                self._write_steps(claim.run_id, [step], seq=seq)
                self._write_attempt(claim, failed)
        return seq

    def recorded_as(self, claim: Claim, key: bytes) -> int | None:
        """Return the number of a step that is a memo, if the claim holds: a write of unknown outcome was committed."""
        steps = Step.objects.using(self.alias).filter(run_id=claim.run_id, key=key, status__in=SETTLED)
        number = steps.values_list("seq", flat=True).first()
        return number if number is not None and self._rows_held(claim).exists() else None

    @retried
    def plan(
        self, claim: Claim, steps: Sequence[StepRow], waits: Sequence[WaitRow], *, lease: datetime.timedelta
    ) -> bool:
        """Write open steps and their waits while the turn goes on; False if the claim is lost."""
        with atomic():
            held = self._rows_held(claim).update(next_at=_renewed(lease))
            if held:
                self._write_steps(claim.run_id, steps, seq=None)
                self._write_waits(claim.run_id, waits)
        return bool(held)

    @retried
    def park(self, claim: Claim, parking: Parking, *, rehint: datetime.timedelta) -> str | None:
        """Let the run or branch wait; return its status: queued if the run was woken since the claim. None if lost."""
        with atomic():
            status = self._park_branch(claim, parking) if claim.key else self._park_run(claim, parking, rehint)
            if status is not None:
                self._write_steps(claim.run_id, parking.steps, seq=None)
                self._write_waits(claim.run_id, parking.waits)
                self._write_attempt(claim, parking.failed)
            return status

    def _park_run(self, claim: Claim, parking: Parking, rehint: datetime.timedelta) -> str | None:
        woken = ~Q(wakes=claim.wakes)
        held = self._rows_held(claim).update(
            status=Case(When(woken, then=Value("queued")), default=Value("waiting")),
            next_at=Case(When(woken, then=DatabaseNow(rehint)), default=_moment(parking.next_at)),
            ready_at=Case(When(woken, then=DatabaseNow()), default=_moment(None)),
            waiting_kind=parking.kind,
            waiting_for=parking.text[:LONGEST_TEXT],
            attempt=parking.attempt,
            crashes=0,
            owner="",
        )
        return str(self._runs([claim.run_id]).values_list("status", flat=True).get()) if held else None

    def _park_branch(self, claim: Claim, parking: Parking) -> str | None:
        # What could wake it is written in this commit: nothing was waited for while it ran.
        if self._lock_for_branch(claim) is None:
            return None
        waiting = {"status": StepStatus.WAITING, "next_at": parking.next_at, "attempt": parking.attempt}
        held = self._rows_held(claim).update(**waiting, crashes=0, owner="")
        return "waiting" if held else None

    @retried
    def release(self, claim: Claim, *, after: datetime.timedelta, rehint: datetime.timedelta) -> bool:
        """Give the run or branch back, to start no earlier than *after*; False if the claim is lost."""
        if claim.key is None:
            released = self._rows_held(claim).update(
                status=RunStatus.QUEUED, next_at=DatabaseNow(after + rehint), ready_at=DatabaseNow(after), owner=""
            )
        else:
            status = StepStatus.WAITING if after else StepStatus.PLANNED
            released = self._rows_held(claim).update(status=status, next_at=DatabaseNow(after or rehint), owner="")
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
        """End the run; None if the claim, on the run or on a branch of it, is lost.

        A store may claim a ready run for *next_claim* in the same commit.
        """
        with atomic():
            if not self._rows_held(claim).exists():
                return None
            unended = self._runs([claim.run_id]).exclude(status__in=ENDED)
            ended = (unended if claim.key else self._rows_held(claim)).update(
                status=status, output=output, error=error, **self._ended()
            )
            if ended:
                Wait.objects.using(self.alias).filter(run_id=claim.run_id).delete()
                if claim.key:
                    self.close_branches([claim.run_id])
        return EndResult() if ended else None

    @retried
    def note_code(self, claim: Claim, **versions: str) -> bool:
        """Note which code the run starts or goes on with; False if the claim, on it or on a branch of it, is lost."""
        if claim.key is None:
            return bool(self._rows_held(claim).update(**versions))
        with atomic():
            held = self._lock_for_branch(claim) is not None and self._rows_held(claim).exists()
            return held and bool(self._runs([claim.run_id]).update(**versions))

    def mark_unused(self, run_id: UUID, keys: Sequence[bytes]) -> None:
        """Note for people which memos the handler did not ask for in its last pass."""
        if keys:
            Step.objects.using(self.alias).filter(run_id=run_id, key__in=keys).update(unused=True)

    def renew(self, claims: Sequence[Claim], *, lease: datetime.timedelta) -> list[Claim]:
        """Renew the leases of these claims, where they still hold; return which."""
        in_order = sorted(claims, key=lambda claim: (claim.run_id, claim.key or b""))
        return [claim for claim in in_order if self._rows_held(claim).update(next_at=DatabaseNow(lease))]

    def summarize(self, claim: Claim, text: str) -> None:
        """Show *text* with the run. Part of a transaction that records a step of it, which checks the claim."""
        self._runs([claim.run_id]).update(summary=text)

    def keep_attempt(self, claim: Claim, attempt: AttemptRow) -> None:
        """Keep an attempt for people, whoever owns the run by now."""
        self._write_attempt(claim, attempt)

    # Changes from outside

    def lock(self, run_ids: Sequence[UUID]) -> list[UUID]:
        """Lock these runs until the transaction ends; return those that have not ended."""
        return list(self._locked(self._runs(run_ids).exclude(status__in=ENDED)).values_list("id", flat=True))

    def cancel(self, run_ids: Sequence[UUID], error: str) -> None:
        """Cancel these runs, which :meth:`lock` returned."""
        self._runs(run_ids).update(status=RunStatus.CANCELLED, error=error, **self._ended())
        Wait.objects.using(self.alias).filter(run_id__in=run_ids).delete()
        self.close_branches(run_ids)

    @retried
    def resolve(self, resolutions: Sequence[Resolution], *, rehint: datetime.timedelta) -> list[ReadyRun]:
        """Settle open steps and wake their runs; return the runs that became ready. What is settled already is left."""
        with atomic():
            runs = Run.objects.using(self.alias).filter(id__in={each.run_id for each in resolutions})
            unfinished = self._locked(runs.exclude(status__in=ENDED))
            counts = dict(unfinished.values_list("id", "steps"))
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
                self._runs([run_id]).update(steps=counts[run_id])
            woken = self.wake_branches(sorted(branches_woken), rehint=rehint)
            return woken + self.wake(list(runs_woken), rehint=rehint, progress=True)

    def _settle(self, resolution: Resolution, seq: int) -> bytes | None:
        """Settle a step; return the key of its branch, empty if it is in none; None if it was settled already."""
        steps = Step.objects.using(self.alias).filter(run_id=resolution.run_id, key=resolution.key)
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
        """Wake these runs: waiting ones become ready and are returned; all count the wake-up.

        With *progress*, a step of theirs was recorded: failures of the handler's own code are forgotten.
        """
        with atomic():
            ready = []
            for run_id in sorted(set(run_ids)):
                run = self._runs([run_id])
                # Counted first, which locks the row: a run that parks at this moment then finds itself woken.
                run.exclude(status__in=ENDED).update(wakes=F("wakes") + 1)
                if run.filter(status=RunStatus.WAITING).update(**self._queued(rehint)):
                    ready.append(run_id)
                if progress:
                    run.update(attempt=0)
            return [ReadyRun(*row) for row in self._runs(ready).values_list("id", "queue")]

    def expire(self, run_ids: Sequence[UUID], *, rehint: datetime.timedelta) -> None:
        """Take these runs from owners whose leases are dead; what has crashed before starts after a pause."""
        dead = self._runs(run_ids).filter(status=RunStatus.RUNNING, next_at__lte=DatabaseNow())
        # MariaDB evaluates in this order, and each expression sees what those before it have set.
        dead.update(
            ready_at=after_crash(rehint),
            next_at=after_crash(rehint, otherwise=rehint),
            crashes=F("crashes") + Case(When(CRASHED, then=Value(1)), default=Value(0)),
            fence=F("fence") + 1,
            status=RunStatus.QUEUED,
            owner="",
        )

    def put_off(self, run_ids: Sequence[UUID], *, by: datetime.timedelta) -> None:
        """Let the alarms of these waiting runs ring again later, so that they hold up no others."""
        if run_ids:
            waiting = self._runs(run_ids).filter(status=RunStatus.WAITING, next_at__isnull=False)
            waiting.update(next_at=DatabaseNow(by))
            branches = Step.objects.using(self.alias).filter(run_id__in=run_ids, kind=StepKind.BRANCH)
            branches.filter(status=StepStatus.WAITING, next_at__lte=DatabaseNow()).update(next_at=DatabaseNow(by))

    @retried
    def hint_later(self, run_ids: Sequence[UUID], *, rehint: datetime.timedelta) -> None:
        """Put off the next hint of these queued runs: after *rehint* at first, then as long as they waited already."""
        if not run_ids:
            return
        with atomic():
            queued = self._runs(run_ids).filter(status=RunStatus.QUEUED).annotate(now=DatabaseNow())
            for run in (runs := list(self._locked(queued))):
                waited = run.now - run.ready_at if run.ready_at else datetime.timedelta()
                run.next_at = run.now + min(max(rehint, waited), MOST_REHINTS * rehint)
            Run.objects.using(self.alias).bulk_update(runs, ["next_at"], batch_size=100)

    def insert(self, row: Event | Run, *, ignore_conflicts: bool = False) -> None:
        """Insert a new row; with *ignore_conflicts*, if there is none with its key."""
        type(row).objects.using(self.alias).bulk_create([row], ignore_conflicts=ignore_conflicts)  # type: ignore[list-item]

    def store_ingested(self, batch: Sequence[EventRow], runs: Sequence[Run]) -> Mapping[UUID, datetime.datetime]:
        """Store when these events were ingested, and insert the runs that they start, where nothing started them yet.

        Return which runs are new, with the database's time.
        """
        marked = [Event(id=row.id, ingested_at=row.ingested_at) for row in batch]
        Event.objects.using(self.alias).bulk_update(marked, ["ingested_at"], batch_size=100)
        Run.objects.using(self.alias).bulk_create(runs, batch_size=500, ignore_conflicts=True)
        new = self._runs([run.id for run in runs]).annotate(now=DatabaseNow())
        return dict(new.values_list("id", "now")) if runs else {}

    # The scheduler

    @retried
    def look(self, name: str, *, leadership: datetime.timedelta, deputyship: datetime.timedelta) -> SchedulerView:
        """Lead, for so long, if nobody else does; else be the deputy if nobody else is. Return what is due first."""
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

    # Locks

    def lock_names(self, names: Iterable[str], *, shared: bool) -> None:
        """Lock event names until the transaction ends: registrars of waits share them, ingest excludes everybody.

        SQLite's transactions exclude one another anyway. Elsewhere a row per name is locked; rows cannot be shared.
        """
        if connections[self.alias].vendor != "sqlite":
            self._lock_rows([f"name:{name}" for name in names])

    def lock_ingest(self) -> bool:
        """Become the one who ingests until the transaction ends; False if somebody else does."""
        if connections[self.alias].vendor == "sqlite":
            return True
        self._lock_rows(["ingest"])
        return True

    def _lock_rows(self, names: list[str]) -> None:
        # Hashed, because a name may be as long as the column and collations may merge names: that only locks more.
        locks = [Lock(name=stored_events.digest(name).hex()) for name in sorted(set(names))]
        Lock.objects.using(self.alias).bulk_create(locks, ignore_conflicts=True)
        list(self._locked(Lock.objects.using(self.alias).filter(name__in=[lock.name for lock in locks]), "name"))

    # Parts

    def _locked(self, rows: Any, order: str = "id") -> Any:
        return rows.order_by(order).select_for_update()

    def _runs(self, run_ids: Iterable[UUID]) -> Any:
        return Run.objects.using(self.alias).filter(id__in=list(run_ids))

    def _rows_held(self, claim: Claim) -> Any:
        """Return the claimed row, run or branch, if it is still held."""
        if claim.key is None:
            return self._runs([claim.run_id]).filter(fence=claim.fence, status=RunStatus.RUNNING)
        steps = Step.objects.using(self.alias).filter(run_id=claim.run_id, key=claim.key)
        return steps.filter(fence=claim.fence, status=StepStatus.RUNNING)

    def _lock_for_branch(self, claim: Claim) -> int | None:
        """Lock the run of a claimed branch, before the branch itself; return its number of steps, None if it ended."""
        runs = self._runs([claim.run_id]).exclude(status__in=ENDED).select_for_update()
        count: int | None = runs.values_list("steps", flat=True).first()
        return count

    def _count_step(self, claim: Claim, lease: datetime.timedelta) -> int | None:
        """Count a step that is recorded under the claim; return its number, None if the claim is lost."""
        before = self._lock_for_branch(claim) if claim.key else None
        if claim.key and before is None:
            return None
        kept = {"attempt": 0, "crashes": 0, "next_at": _renewed(lease)}
        if not self._rows_held(claim).update(**kept if claim.key else {**kept, "steps": F("steps") + 1}):
            return None
        if before is not None:
            self._runs([claim.run_id]).update(steps=before + 1)
            return before + 1
        return int(self._runs([claim.run_id]).values_list("steps", flat=True).get())

    def _queued(self, rehint: datetime.timedelta) -> dict[str, Any]:
        return {"status": RunStatus.QUEUED, "ready_at": DatabaseNow(), "next_at": DatabaseNow(rehint)}

    def _ended(self) -> dict[str, Any]:
        return {
            "fence": F("fence") + 1,
            "next_at": None,
            "ready_at": None,
            "held_by": None,
            "finished_at": DatabaseNow(),
            "waiting_kind": "",
            "waiting_for": "",
            "owner": "",
        }

    def _claim_of(self, run: Any) -> Claim:
        """Return the claim that the row of a run is."""
        return Claim(
            run_id=run.id,
            function_id=run.function_id,
            owner=run.owner,
            fence=run.fence,
            wakes=run.wakes,
            attempt=run.attempt,
            steps=run.steps,
            crashes=run.crashes,
            depth=run.depth,
            queue=run.queue,
            input=run.input,
            parent_id=run.parent_id,
            parent_key=run.parent_key,
            created_at=run.created_at,
            looks_back_to=run.looks_back_to,
            code_version=run.code_version,
            last_code_version=run.last_code_version,
            now=run.now,
            event=stored_events.event_row(run.event) if run.event else None,
        )

    def _write_steps(self, run_id: UUID, rows: Sequence[StepRow], *, seq: int | None) -> None:
        """Insert steps, or change them where they are open already."""
        steps = Step.objects.using(self.alias).filter(run_id=run_id)
        known = set(steps.filter(key__in=[row.key for row in rows]).values_list("key", flat=True)) if rows else set()
        for row in rows:
            if row.key in known and row.kind is StepKind.GROUP:
                # The code has gained branches; those there were count on.
                steps.filter(key=row.key).update(status=row.status, open=F("open") + row.open, seq=None)
            elif row.key in known:
                values = {name: getattr(row, name) for name in _STEP_CHANGES} | {"seq": seq}
                steps.filter(key=row.key).exclude(status__in=SETTLED).update(**values)
        new = [Step(run_id=run_id, seq=seq, **_values(row)) for row in rows if row.key not in known]
        # One that is there all the same was written by a first try of this very write, whose outcome was unknown.
        Step.objects.using(self.alias).bulk_create(new, ignore_conflicts=True, batch_size=500)

    def _write_waits(self, run_id: UUID, rows: Sequence[WaitRow]) -> None:
        waits = [Wait(run_id=run_id, **_values(row)) for row in rows]
        Wait.objects.using(self.alias).bulk_create(waits, batch_size=500)


_STEP_CHANGES = (
    "status",
    "input",
    "output",
    "error",
    "attempt",
    "event_id",
    "started_at",
    "finished_at",
    "next_at",
    "open",
)


def _values(row: StepRow | WaitRow) -> dict[str, Any]:
    return {name: getattr(row, name) for name in row.__slots__}


def _renewed(lease: datetime.timedelta) -> Any:
    """Return when a lease ends that was renewed if less than half of it was left."""
    return Case(When(next_at__lt=DatabaseNow(lease / 2), then=DatabaseNow(lease)), default=F("next_at"))


def _moment(value: datetime.datetime | None) -> Any:
    return Value(value, output_field=Run._meta.get_field("next_at"))


def _memo_of(step: Step) -> Memo:
    return Memo(
        key=step.key,
        name=step.name,
        kind=StepKind(step.kind),
        status=StepStatus(step.status),
        output=open_text(step.output),
        error=open_text(step.error),
        attempt=step.attempt,
        next_at=step.next_at,
        finished_at=step.finished_at,
        event=stored_events.event_of(stored_events.event_row(step.event)) if step.event else None,
        seq=step.seq,
    )
