"""The work of one message: ingest, then advance ready runs one after the other."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain
from uuid import UUID

from ...conf import get_settings
from ...core.functions import registry
from ...drivers.base import get_driver
from ..leases.crash_isolation import bulkhead
from ..leases.leases import Lease, leased, never, no_next_claim, worker_name
from ..runs.starting import announce
from ..store.rows import Claim, NextClaim
from ..store.stores import get_store
from .advance import advance, advance_async
from .ingest import ingest_events

logger = logging.getLogger("django_durable")


def work(
    queue: str | None,
    run_ids: Sequence[UUID] = (),
    *,
    ingest: bool = False,
    should_stop: Callable[[], bool] = never,
) -> None:
    """Ingest events if there may be some, then advance these runs and what else is ready in *queue* (None: any).

    Goes on until nothing is ready or the budget of a turn is spent. A worker that finds more ready than the run that it
    takes first wakes another worker, which does likewise: no ready run sits behind a slow step while a worker is idle.
    """
    worker = Worker(queue, should_stop)
    if worker.may_go_on():
        worker.work(run_ids, ingest)
    else:
        # This worker is on its way out: the message is for another one.
        get_driver().wake(queue or get_driver().default_queue(), run_ids, ingest=ingest)


class Worker:
    """A worker with one message, for as long as a turn may take."""

    def __init__(self, queue: str | None, should_stop: Callable[[], bool]) -> None:
        self._queue = queue
        self._should_stop = should_stop
        self._settings = get_settings()
        self._store = get_store()
        self._bulkhead = bulkhead()
        self._ends = time.monotonic() + self._settings.turn_budget.total_seconds()

    def may_go_on(self) -> bool:
        """Wait until this process may claim another run; False if the worker is told to stop."""
        return self._bulkhead.wait_until_open(self._should_stop)

    def work(self, run_ids: Sequence[UUID], ingest: bool) -> None:
        """Go from run to run until nothing is ready or the time is over."""
        ingested = self._ingested() if ingest else ()
        for position, lease in enumerate(chain(ingested, self._leases(run_ids))):
            if position == 0:
                self._call_help(lease.claim, ingest=ingest)
            self._advance(lease)
            if not self.may_go_on() or time.monotonic() > self._ends:
                if lease.successor is not None:
                    lease.successor.release()
                return self._call_help(lease.claim)

    def _is_over(self) -> bool:
        """Tell whether the worker claims nothing more."""
        return self._should_stop() or time.monotonic() > self._ends

    def _call_help(self, claim: Claim, *, ingest: bool = False) -> None:
        """Wake others for the runs that are left while this worker goes on; with *ingest*, for events, too."""
        store, driver = self._store, get_driver()
        if claim.key and store.has_branch(claim.run_id):
            driver.wake(claim.queue, [claim.run_id])
        events, ready = store.has_events_or_ready(self._queue) if ingest else (False, store.has_ready(self._queue))
        if events:
            driver.wake(driver.default_queue(), ingest=True)
        if ready:
            driver.wake(self._queue or claim.queue)

    def _ingested(self) -> Iterator[Lease]:
        """Ingest until the time is over; another message goes on, so that a flood of events delays no run.

        Yield the lease on a run that the last events made ready.
        """
        for position, batch in enumerate(ingest_events(self._next_claim)):
            # A run that is ready in the queue at hand needs no message.
            announce(each for each in batch.ready if each.needs_message(self._queue))
            if batch.lease is not None:
                yield from self._with_branches(batch.lease)
            elif self._is_over():
                return get_driver().wake(get_driver().default_queue(), ingest=True)
            elif position == 1 and self._queue is not None:
                # This worker is busy with events for a while: the runs that they started are for another one.
                get_driver().wake(self._queue)

    # Claims

    def _next_claim(self, run_id: UUID | None = None) -> NextClaim | None:
        """Return how to claim another run in the commit that ends one: this run if it is given, else a ready one."""
        if self._is_over() or not self._bulkhead.is_open():
            return None
        return NextClaim(worker_name(), self._settings.lease, self._queue, run_id)

    def _leases(self, run_ids: Sequence[UUID]) -> Iterator[Lease]:
        """Claim the hinted runs, then ready ones, each when the one before is done, or in the commit that ended it."""
        # A message that waited behind others names runs that were taken long ago: one look tells.
        hints = deque(run_ids if len(run_ids) < 2 else self._store.claimable(run_ids))
        while hints:
            run_id = hints.popleft()
            hinted = self._hinted(run_id)
            if hinted is None:
                yield from self._branches(run_id)
            while hinted is not None:
                hinted.next_claim = partial(self._next_claim, hints[0] if hints else None)
                yield from self._with_branches(hinted)
                hinted = hinted.successor
                if hinted is not None and hints:
                    hints.popleft()
        ready = self._first_ready()
        while ready is not None:
            ready.next_claim = self._next_claim
            yield from self._with_branches(ready)
            ready = ready.successor or self._first_ready()

    def _hinted(self, run_id: UUID) -> Lease | None:
        """Claim this run, if it is ready or its worker is dead."""
        since = time.monotonic()
        claim = self._store.claim(run_id, owner=worker_name(), lease=self._settings.lease)
        return None if claim is None else leased(claim, since)

    def _first_ready(self, functions: Sequence[str] | None = None) -> Lease | None:
        """Claim the first ready run of the queue, and of *functions* if given."""
        since = time.monotonic()
        claim = self._store.claim_ready(
            self._queue, owner=worker_name(), lease=self._settings.lease, functions=functions
        )
        return None if claim is None else leased(claim, since)

    def _with_branches(self, lease: Lease) -> Iterator[Lease]:
        """Claim, after the run's own turn, the branches that it left."""
        yield lease
        if lease.left_branches:
            yield from self._branches(lease.claim.run_id)

    def _branches(self, run_id: UUID) -> Iterator[Lease]:
        """Claim branches of the run; a turn goes through those of one group, so the next one is of another."""
        while True:
            since = time.monotonic()
            claim = self._store.claim_branch(run_id, owner=worker_name(), lease=self._settings.lease)
            if claim is None:
                return
            yield leased(claim, since)

    def _another_async(self) -> Lease | None:
        """Claim a further run of an async function, for as long as this message may take."""
        if self._is_over() or not self._bulkhead.is_open():
            return None
        return self._first_ready(registry.async_ids())

    # Turns

    def _advance(self, lease: Lease) -> None:
        """Advance one run, an async one with others beside it; an error that breaks it harms no other."""
        function = registry.get(lease.claim.function_id)
        try:
            if function is not None and function.is_async:
                lease.next_claim = (
                    no_next_claim  # Other runs go on beside it; a run that it claimed would wait for them.
                )
                advance_async(lease, self._another_async, self._should_stop)
            else:
                advance(lease, self._should_stop)
        except Exception:
            logger.exception("Run %s could not go on; it is tried again later", lease.claim.run_id)
