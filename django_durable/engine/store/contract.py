"""The contract of the stores: every statement that must be fast, and every change of a stored run's status.

The engine asks :func:`.stores.get_store` for the :class:`Store` of its database and knows no implementation: the one in
``portable`` works on every database, the one in ``postgresql`` does in single statements what is hot. The tables tell
when an operation changes a run or a branch, and how. Runs:

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

Branches:

===============  =====================================  ===============================================================
operation        condition                              effect
===============  =====================================  ===============================================================
claim_branch     planned, with an alarm; or running     running, fence + 1, alarm = lease end
                 with a dead lease
wake_branches    waiting                                planned
park             running, fence as claimed              waiting
release          running, fence as claimed              planned; waiting, if it is to start later
expire_branches  running with a dead lease              planned, fence + 1, crashes + 1; waiting after the second crash
forgive          taken over since the claim, not ended  crashes - 1
end_branch       running, fence as claimed              completed or failed; the group counts one less, and with the
                                                        last one, or the first of a race, it is completed and wakes
                                                        what waits for it
close_branches   planned, running or waiting            cancelled, fence + 1, no alarm
===============  =====================================  ===============================================================

The limit of a group holds back a planned branch without an alarm; each end of a branch lets one more in. An operation
that counts something in a run or a group locks the run's row first, which must not have ended, then those of groups and
branches: so their counts are right.
"""

from __future__ import annotations

import datetime
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol
from uuid import UUID

if TYPE_CHECKING:
    from ...core.replay.operations import Memo
    from ...models import Event, Run
    from .rows import (
        AttemptRow,
        BranchEnd,
        Claim,
        EndResult,
        EventRow,
        NextClaim,
        OpenWait,
        Parking,
        ReadyRun,
        Resolution,
        SchedulerView,
        StepRow,
        WaitRow,
    )
    from .stored_events import Place


class Store(Protocol):
    """What the engine asks of its database. Implementations inherit these docstrings, and add none."""

    alias: str  #: of the database, in Django's settings

    # Claims. Workers take runs, and their heartbeat keeps them. A statement locks the rows that it changes; on
    # PostgreSQL, claims and renewals of runs pass over rows that another transaction has locked.

    def claim(self, run_id: UUID, *, owner: str, lease: datetime.timedelta) -> Claim | None:
        """Claim the run that a hint names or that ingest made ready; None unless it is ready or its lease is dead."""

    def claim_ready(
        self, queue: str | None, *, owner: str, lease: datetime.timedelta, functions: Sequence[str] | None = None
    ) -> Claim | None:
        """Claim the first ready run of *queue* (None: of any), and of *functions* if given; None if there is none."""

    def claimable(self, run_ids: Sequence[UUID]) -> list[UUID]:
        """Return which of the runs that hints name could be claimed now, themselves or a branch of theirs."""

    def has_ready(self, queue: str | None) -> bool:
        """Tell a worker whether to call another one for a run of *queue* (None: of any) that could be claimed now."""

    def has_events(self) -> bool:
        """Tell a worker whether an event is due to be ingested."""

    def has_events_or_ready(self, queue: str | None) -> tuple[bool, bool]:
        """Tell a worker, in one look, what :meth:`has_events` and :meth:`has_ready` tell."""

    def renew(self, claims: Sequence[Claim], *, lease: datetime.timedelta) -> list[Claim]:
        """Renew the leases of these claims, where they still hold, for the heartbeat; return which."""

    def mark_stopping(self, claims: Iterable[Claim]) -> None:
        """Note for the heartbeat that the owners of these claims are told to stop: if they die, it is not a crash."""

    def forgive(self, claim: Claim) -> bool:
        """Take back the crash that was counted when the claim's lease ran out: its owner lives. False if none was."""

    # Memos. A turn reads what is recorded; nothing is locked.

    def memos(self, claim: Claim, *, after: int | None = None) -> list[Memo]:
        """Return what is recorded for this turn, in one query: what is settled and open, or was settled *after* a seq.

        A turn of the run sees its own steps and the branches of its groups, not what is inside these. A turn of a
        branch sees its own steps and those of the code around it, not the other branches of the groups that it is in.
        """

    def branch_memos(self, claim: Claim) -> list[Memo]:
        """Return what is recorded inside the claimed branch, for a turn that goes on with it."""

    def history(self, run_id: UUID) -> list[Memo]:
        """Return what is recorded of the run, with all that is inside its branches, for an export."""

    # Writes of a turn. They go through its lease. Those that may find the claim lost lock the claimed row first: if its
    # fence is not the claim's any more, they change nothing.

    def record(
        self, claim: Claim, step: StepRow, *, lease: datetime.timedelta, failed: AttemptRow | None = None
    ) -> int | None:
        """Write a memo, and renew the lease if less than half of it is left; return its number, None if lost.

        The run numbers its memos: of a branch, the run's row is locked first.
        """

    def recorded_as(self, claim: Claim, key: bytes) -> int | None:
        """Return the number of a memo whose write had an unknown outcome; None if nothing was committed, or if lost."""

    def plan(
        self, claim: Claim, steps: Sequence[StepRow], waits: Sequence[WaitRow], *, lease: datetime.timedelta
    ) -> bool:
        """Write open steps and their waits while the turn goes on, renewing the lease as a memo does; False if lost."""

    def park(self, claim: Claim, parking: Parking, *, rehint: datetime.timedelta) -> str | None:
        """Let the run wait, or queue it if it was woken since the claim, or let the branch wait; return its status.

        None if lost. Of a branch, the run's row is locked first.
        """

    def release(self, claim: Claim, *, after: datetime.timedelta, rehint: datetime.timedelta) -> bool:
        """Give the run or branch back, to start no earlier than *after*; False if lost."""

    def end(
        self,
        claim: Claim,
        status: str,
        *,
        output: str | None = None,
        error: str | None = None,
        next_claim: NextClaim | None = None,
    ) -> EndResult | None:
        """End the run, also under the claim of a branch of it; None if lost.

        A store may claim a ready run for *next_claim* in the same commit.
        """

    def note_code(self, claim: Claim, **versions: str) -> bool:
        """Note which code the run starts or goes on with, also under the claim of a branch of it; False if lost."""

    def mark_unused(self, run_id: UUID, keys: Sequence[bytes]) -> None:
        """Note for people which memos the handler did not ask for in its last pass, in the transaction of its end."""

    def summarize(self, claim: Claim, text: str) -> None:
        """Show *text* with the run, in the transaction that records the step and so checks the claim."""

    def keep_attempt(self, claim: Claim, attempt: AttemptRow) -> None:
        """Keep an attempt for people, whoever owns the run by now; it locks nothing."""

    # Changes from outside. Senders, ingest, timers, people and other runs make them. Each locks the runs that it
    # changes, in the order of their ids.

    def insert(self, row: Event | Run, *, ignore_conflicts: bool = False) -> None:
        """Insert an event that is sent or a run that starts; with *ignore_conflicts*, only if its key is new."""

    def store_ingested(self, batch: Sequence[EventRow], runs: Sequence[Run]) -> Mapping[UUID, datetime.datetime]:
        """Store when ingest took these events, and insert the runs that they start, where nothing started them yet.

        Return which runs are new, with the database's time.
        """

    def lock(self, run_ids: Sequence[UUID]) -> list[UUID]:
        """Lock these runs until the transaction ends; return those that have not ended."""

    def cancel(self, run_ids: Sequence[UUID], error: str) -> None:
        """Cancel these runs, which the caller has locked, and close their branches."""

    def resolve(self, resolutions: Sequence[Resolution], *, rehint: datetime.timedelta) -> list[ReadyRun]:
        """Settle open steps and wake what waits for them; return the runs that became ready.

        A step that is settled already, and one of a run that has ended, stay as they are.
        """

    def wake(self, run_ids: Sequence[UUID], *, rehint: datetime.timedelta, progress: bool = False) -> list[ReadyRun]:
        """Wake these runs: each counts the wake-up, and those that wait become ready and are returned.

        With *progress*, a step of theirs was recorded: failures of the handler's own code are forgotten.
        """

    # Scheduler. The one that leads looks after every row that has an alarm. A statement locks the rows that it changes.

    def look(self, name: str, *, leadership: datetime.timedelta, deputyship: datetime.timedelta) -> SchedulerView:
        """Lead, for so long, if nobody else does, or else be the deputy if nobody else is; return what is due first.

        Only the one that leads sees what is due.
        """

    def hint_later(self, run_ids: Sequence[UUID], *, rehint: datetime.timedelta) -> None:
        """Put off the next hint of these queued runs: after *rehint* at first, then as long as they waited already."""

    def expire(self, run_ids: Sequence[UUID], *, rehint: datetime.timedelta) -> None:
        """Take these runs from owners whose leases are dead; what has crashed before starts after a pause."""

    def put_off(self, run_ids: Sequence[UUID], *, by: datetime.timedelta) -> None:
        """Let the alarms of these waiting runs, which timers have locked, ring later: they must hold up no others."""

    # Locks. They are held until the transaction ends that the caller has opened.

    def lock_names(self, names: Iterable[str], *, shared: bool) -> None:
        """Lock names of events and signals: steps that wait for events share them, all others exclude each other."""

    def lock_ingest(self) -> bool:
        """Become the one who ingests; False if somebody else does."""

    # Look-ups. Ingest, and a wait that looks back, read a few rows among millions; nothing is locked.

    def due_events(self, *, limit: int) -> list[EventRow]:
        """Return the first events that are due and fit into memory; they are ingested now, by the database's time."""

    def match_paths(self, names: Collection[str]) -> list[tuple[str, str, int]]:
        """Return the name, the path and the id of each match path of these names and wildcards."""

    def store_keys(self, keys: Sequence[tuple[int, bytes, datetime.datetime, UUID]]) -> None:
        """Store keys of events: match path, key, moment of the ingest and event; those that exist are left."""

    def open_waits(
        self, wanted: Collection[tuple[str, bytes]], *, after: int, limit: int
    ) -> tuple[Sequence[OpenWait], bool]:
        """Return a page of the open waits for events under these names and keys, and whether more come.

        They come in the order of their ids, from *after* on.
        """

    def stored_under(
        self, patterns: Sequence[str], path: str, keys: Sequence[bytes], *, after: Place, limit: int
    ) -> tuple[Sequence[EventRow], bool]:
        """Return a page of the events that are ingested under these keys of a match path, and whether more come.

        They come in the order of their ingest, from *after* on.
        """

    def foreign_functions(self, own: Collection[str]) -> list[tuple[str, str, Mapping[str, Any]]]:
        """Return the id, the version and the configuration of each function that only the code of others has."""

    # Branches. What a branch changes in its run or its group, it changes under the lock of the run's row.

    def claim_branch(
        self, run_id: UUID, *, owner: str, lease: datetime.timedelta, group: bytes | None = None
    ) -> Claim | None:
        """Claim for a worker the first branch of the run, or of that *group*, that may go on or whose lease is dead.

        It locks the run's row. None if there is no such branch, or the run has ended.
        """

    def has_branch(self, run_id: UUID) -> bool:
        """Tell a worker whether to call another one for a branch of the run that could be claimed now."""

    def end_branch(
        self, claim: Claim, end: BranchEnd, *, rehint: datetime.timedelta, next_claim: NextClaim | None = None
    ) -> EndResult | None:
        """End the branch of a turn, and its group if that is decided now, and claim another branch for *next_claim*.

        All of it is one commit, which locks the run's row, then those of the group and its branches. None if lost.
        """

    def wake_branches(self, branches: Iterable[tuple[UUID, bytes]], *, rehint: datetime.timedelta) -> list[ReadyRun]:
        """Let waiting branches of runs that the caller has locked go on; return their runs, for workers to look at."""

    def close_branches(self, run_ids: Sequence[UUID]) -> None:
        """Close the branches that are open in these runs, in the transaction that ends them."""

    def expire_branches(self, run_ids: Sequence[UUID], *, rehint: datetime.timedelta) -> None:
        """Take branches of these runs from owners whose leases are dead, and put off the hints for planned ones.

        The scheduler that leads calls it; it locks these branches alone.
        """
