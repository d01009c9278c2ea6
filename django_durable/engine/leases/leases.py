"""A worker's hold on a run or a branch: every write of its turn goes through it; a heartbeat keeps long turns alive."""

from __future__ import annotations

import datetime
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from django.db import Error, transaction

from ...conf import get_settings
from ...core import clock, fault_points
from ...core.processes import per_process
from ...core.replay.interrupts import LeaseLost
from ...core.replay.operations import Memo
from ...drivers.base import get_driver
from ..runs import ending
from ..runs.end_events import RunEnd
from ..runs.starting import announce
from ..store.rows import AttemptRow, BranchEnd, Claim, EndResult, NextClaim, Parking, ReadyRun, StepRow, WaitRow
from ..store.stores import get_store
from ..store.transactions import alias, connection
from .near_timers import NEAR, near_timers

if TYPE_CHECKING:
    from ...core.events.events import Event

logger = logging.getLogger("django_durable")

BEAT = 1.0  #: seconds between two looks of the heartbeat, at most


def never() -> bool:
    """Say that the worker is not told to stop."""
    return False


def worker_name() -> str:
    """Return who works here, for people: host, process and thread."""
    return f"{socket.gethostname()}:{os.getpid()}:{threading.get_native_id()}"


class Lease:
    """This worker's hold on one run or branch; *since* is ``time.monotonic()`` from before the claim was asked for."""

    def __init__(self, claim: Claim, since: float) -> None:
        self.claim = claim
        self.store = get_store()
        self.left_branches = False  #: whether the worker should go on with branches of the run
        self.next_claim: Callable[[], NextClaim | None] = no_next_claim  #: gives the run to claim when this one ends
        self.successor: Lease | None = None  #: the run that was claimed when this one ended
        self.attempt = claim.attempt  #: failures of the handler's own code, or of the branch's, since the last memo
        self.crashes = claim.crashes  #: deaths of its workers since the last memo
        self.recorded = 0  #: memos that this turn has written
        self.recorded_bytes = 0  #: JSON recorded of the run, as far as this turn knows
        self.should_stop: Callable[[], bool] = never
        self.is_marked = False  #: whether its row says that its owner was told to stop
        self._is_forgiven = False
        self._settings = get_settings()
        self._length = self._settings.lease.total_seconds()
        self.since = since
        self._until = since + self._length

    def continue_from(self, former: Lease) -> None:
        """Take over the counts of *former*: the turn goes from its branch to the one held here."""
        self.left_branches = former.left_branches
        self.recorded, self.recorded_bytes = former.recorded, former.recorded_bytes

    def check(self) -> None:
        """Raise LeaseLost if somebody else may own the run by now: no body may start then."""
        if time.monotonic() >= self._until:
            raise LeaseLost

    # Writes of the turn

    def record(self, step: StepRow, *, failed: AttemptRow | None = None, event: Event | None = None) -> Memo:
        """Write a memo in its own commit, or in the caller's, and return it; *event* settled it. Raises LeaseLost."""
        fault_points.point("step.before_commit")
        asked = time.monotonic()
        seq = self.store.record(self.claim, step, lease=self._settings.lease, failed=failed)
        if seq is None:
            seq = self.store.recorded_as(self.claim, step.key)
        if seq is None:
            raise LeaseLost
        # The statement leaves at least half a lease, see Store.record.
        self._until = max(self._until, asked + self._length / 2)
        self.progressed(len(step.output or "") + len(step.error or ""))
        return step.memo(seq, event)

    def progressed(self, size: int = 0) -> None:
        """Note that *size* bytes of JSON were recorded: failures and crashes before that no longer count."""
        self.attempt = self.crashes = 0
        self.recorded += 1
        self.recorded_bytes += size

    def plan(self, steps: Sequence[StepRow], waits: Sequence[WaitRow]) -> None:
        """Write open steps and their waits while the turn goes on. Raises LeaseLost."""
        if not self.store.plan(self.claim, steps, waits, lease=self._settings.lease):
            raise LeaseLost

    def park(self, parking: Parking) -> None:
        """Let the run wait, or go back to its queue if it was woken meanwhile. Raises LeaseLost."""
        fault_points.point("park.before")
        if self.store.park(self.claim, parking, rehint=self._settings.rehint) is None:
            raise LeaseLost
        fault_points.point("park.after")
        if parking.next_at is not None and get_driver().keeps_timers:
            self._keep_timer((parking.next_at - clock.now()).total_seconds())

    def _keep_timer(self, seconds: float) -> None:
        if seconds < NEAR:
            transaction.on_commit(partial(near_timers().set, self.claim.run_id, seconds), using=alias())

    def end(self, end: RunEnd) -> None:
        """End the run, and claim the next one in that commit if the worker may go on. Raises LeaseLost."""
        asked = time.monotonic()
        result = ending.end_run(self.claim, end, self.next_claim())
        if result is None:
            raise LeaseLost
        if result.claim is not None:
            self.successor = leased(result.claim, asked)

    def end_branch(self, end: BranchEnd, next_claim: NextClaim | None) -> EndResult | None:
        """End the branch, and claim another one of its group for *next_claim*; None if it is lost."""
        result = ending.end_branch(self.claim, end, next_claim)
        if result is not None:
            self.announce(result.ready)
            # A group around this one may go on: the worker looks for branches of that group, too.
            self.left_branches |= bool(result.ready)
        return result

    def announce(self, ready: Iterable[ReadyRun]) -> None:
        """Hint at branches and at runs of other queues; this worker finds the runs of its own queue by itself."""
        announce(each for each in ready if each.needs_message(self.claim.queue))

    # Giving it back

    def release(self, *, after: datetime.timedelta = datetime.timedelta()) -> bool:
        """Give the run back to its queue, to start no earlier than *after*; False if the claim is lost."""
        fault_points.point("release.before")
        return self.store.release(self.claim, after=after, rehint=self._settings.rehint)

    def give_back(self, *, after: datetime.timedelta = datetime.timedelta()) -> None:
        """Give the run back, or take back the crash that was counted while this worker was silent; now, or later.

        Never raises: where the database is away, the heartbeat goes on trying, so that no outage counts as a crash.
        """
        try:
            self.settle(after)
        except Error as error:
            logger.warning("Run %s is given back when the database answers: %s", self.claim.run_id, error)
            _heartbeat().settle_later(self, after)

    def settle(self, after: datetime.timedelta = datetime.timedelta()) -> None:
        """Give the run back if it is still held; if it was taken over, its worker did not crash."""
        if not self.release(after=after):
            self.forgive()

    def forgive(self) -> None:
        """Take back the crash that was counted when the run was taken over: this worker lives."""
        if not self._is_forgiven:
            self._is_forgiven = self.store.forgive(self.claim)

    # Keeping it

    def renewed(self, asked: float) -> None:
        """Note that the heartbeat renewed the lease by a statement sent at *asked*."""
        self.since = asked
        self._until = max(self._until, asked + self._length)

    def keep(self, should_stop: Callable[[], bool] = never) -> None:
        """Have the lease renewed for as long as it is needed, and its row say so when the worker is told to stop."""
        self.should_stop = should_stop
        _heartbeat().keep(self)

    def drop(self) -> None:
        """Let the lease run out."""
        _heartbeat().drop(self)


def no_next_claim() -> None:
    """Return no claim for the end of a run."""


def leased(claim: Claim, since: float) -> Lease:
    """Return the lease of a claim that was asked for at *since*, and follow the database's clock."""
    fault_points.point("claim.after")
    if connection().vendor != "sqlite":  # SQLite's time is this process's: to follow it would add up delays.
        clock.follow(claim.now - clock.shifted_by)
    return Lease(claim, since)


class Heartbeat:
    """Renews the leases of this process's turns that outlast half a lease, in one statement, from a thread of its own.

    The thread starts with the first turn and only looks at the clock while turns are short. It also sees to it that
    only a death that is a run's own doing counts as its crash: it marks the runs of a worker that was told to stop, and
    takes back crashes that were counted while this process was frozen or had no database.
    """

    def __init__(self) -> None:
        self._leases: set[Lease] = set()
        self._to_settle: dict[Lease, datetime.timedelta] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def keep(self, lease: Lease) -> None:
        """Renew this lease from half its length on."""
        with self._lock:
            self._leases.add(lease)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="durable-heartbeat", daemon=True)
                self._thread.start()

    def keeps_any(self) -> bool:
        """Tell whether a turn of this process is under way."""
        return bool(self._leases)

    def drop(self, lease: Lease) -> None:
        """Stop renewing this lease."""
        with self._lock:
            self._leases.discard(lease)

    def settle_later(self, lease: Lease, after: datetime.timedelta) -> None:
        """Go on trying to give back a run that could not be given back."""
        with self._lock:
            self._to_settle[lease] = after

    def _run(self) -> None:
        while True:
            time.sleep(min(BEAT, get_settings().lease.total_seconds() / 8))
            self.beat()

    def beat(self) -> None:
        """Renew, mark and settle the leases that need it; the next beat tries again where the database refuses."""
        length = get_settings().lease.total_seconds()
        with self._lock:
            leases, to_settle = list(self._leases), dict(self._to_settle)
        old = [each for each in leases if time.monotonic() - each.since >= length / 2]
        stopping = [each for each in leases if not each.is_marked and each.should_stop()]
        if not (old or stopping or to_settle):
            return
        try:
            self._renew(old)
            self._mark(stopping)
            self._settle(to_settle)
        except Exception as error:
            # Without any renewal the leases run out, and Lease.check stops their turns.
            logger.warning("The leases of %d turns could not be renewed: %s", len(leases), error)
        finally:
            connection().close()

    def _renew(self, leases: list[Lease]) -> None:
        if not leases:
            return
        fault_points.point("lease.before_renewal")
        asked = time.monotonic()
        renewed = get_store().renew([each.claim for each in leases], lease=get_settings().lease)
        kept = {(claim.run_id, claim.key) for claim in renewed}
        for lease in leases:
            if (lease.claim.run_id, lease.claim.key) in kept:
                lease.renewed(asked)
            else:
                lease.forgive()

    def _mark(self, leases: list[Lease]) -> None:
        get_store().mark_stopping([each.claim for each in leases])
        for lease in leases:
            lease.is_marked = True

    def _settle(self, leases: dict[Lease, datetime.timedelta]) -> None:
        for lease, after in leases.items():
            lease.settle(after)
            with self._lock:
                self._to_settle.pop(lease)


def turns_are_under_way() -> bool:
    """Tell whether this process holds a run now."""
    return _heartbeat().keeps_any()


@per_process
def _heartbeat() -> Heartbeat:
    """Return the heartbeat of this process."""
    return Heartbeat()
