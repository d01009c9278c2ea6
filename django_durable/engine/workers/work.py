"""What one message makes a worker do: ingest, then advance ready runs one after the other."""

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

_Follow = Callable[[UUID | None], NextClaim | None]  #: with this run if given, else with a ready one of the queue


def work(
    queue: str | None,
    run_ids: Sequence[UUID] = (),
    *,
    ingest: bool = False,
    should_stop: Callable[[], bool] = never,
) -> None:
    """Ingest events if there may be some, then advance these runs and what else is ready in *queue* (None: any).

    Goes on until nothing is ready or the budget of a turn is spent. A worker that finds more ready than the run that it
    takes first wakes another one, which does the same: so no ready run sits behind a slow step while a worker is idle.
    """
    if not bulkhead().wait_until_open(should_stop):
        # What this worker was told on its way out is for another one.
        get_driver().wake(queue or get_driver().default_queue(), run_ids, ingest=ingest)
        return
    ends = time.monotonic() + get_settings().turn_budget.total_seconds()
    next_claim = partial(_next_claim, queue, should_stop, ends)
    ingested = _ingested(queue, should_stop, ends, next_claim) if ingest else ()
    for position, lease in enumerate(chain(ingested, _leases(queue, run_ids, next_claim))):
        if position == 0:
            _call_help(queue, lease.claim, ingest=ingest)
        _advance(queue, lease, should_stop, ends)
        if not bulkhead().wait_until_open(should_stop) or time.monotonic() > ends:
            if lease.successor is not None:
                lease.successor.release()
            return _call_help(queue, lease.claim)


def _call_help(queue: str | None, claim: Claim, *, ingest: bool = False) -> None:
    """Wake others for what is left while this worker goes on with the claim; with *ingest*, for events, too."""
    store, driver = get_store(), get_driver()
    if claim.key and store.has_branch(claim.run_id):
        driver.wake(claim.queue, [claim.run_id])
    events, ready = store.has_events_or_ready(queue) if ingest else (False, store.has_ready(queue))
    if events:
        driver.wake(driver.default_queue(), ingest=True)
    if ready:
        driver.wake(queue or claim.queue)


def _ingested(queue: str | None, should_stop: Callable[[], bool], ends: float, follow: _Follow) -> Iterator[Lease]:
    """Ingest for as long as a turn may take; another message goes on, so that a flood of events delays no run.

    Yield the claim on a run that the last events made ready.
    """
    for position, batch in enumerate(ingest_events(partial(follow, None))):
        # What is ready in the queue that is worked on needs no message.
        announce(each for each in batch.ready if each.needs_message(queue))
        if batch.lease is not None:
            yield from _with_branches(batch.lease)
        elif should_stop() or time.monotonic() > ends:
            return get_driver().wake(get_driver().default_queue(), ingest=True)
        elif position == 1 and queue is not None:
            # This worker is busy with events for a while: what they started is for another one.
            get_driver().wake(queue)


def _next_claim(
    queue: str | None, should_stop: Callable[[], bool], ends: float, run_id: UUID | None
) -> NextClaim | None:
    """Return who goes on when a run has ended, for as long as this worker's message may take."""
    if should_stop() or time.monotonic() > ends or not bulkhead().is_open():
        return None
    return NextClaim(worker_name(), get_settings().lease, queue, run_id)


def _leases(queue: str | None, run_ids: Sequence[UUID], follow: _Follow) -> Iterator[Lease]:
    """Claim the hinted runs, then ready ones, each when the one before is done, or in the commit that ended it."""
    # A message that waited behind others names runs that were taken long ago: one look tells.
    hints = deque(run_ids if len(run_ids) < 2 else get_store().claimable(run_ids))
    while hints:
        run_id = hints.popleft()
        hinted = _hinted(run_id)
        if hinted is None:
            yield from _branches(run_id)
        while hinted is not None:
            hinted.next_claim = partial(follow, hints[0] if hints else None)
            yield from _with_branches(hinted)
            hinted = hinted.successor
            if hinted is not None and hints:
                hints.popleft()
    ready = _first_ready(queue)
    while ready is not None:
        ready.next_claim = partial(follow, None)
        yield from _with_branches(ready)
        ready = ready.successor or _first_ready(queue)


def _hinted(run_id: UUID) -> Lease | None:
    """Claim this run, if it is ready or its worker is dead."""
    since = time.monotonic()
    claim = get_store().claim(run_id, owner=worker_name(), lease=get_settings().lease)
    return None if claim is None else leased(claim, since)


def _first_ready(queue: str | None, functions: Sequence[str] | None = None) -> Lease | None:
    """Claim the first ready run of the queue, and of *functions* if given."""
    since, length = time.monotonic(), get_settings().lease
    claim = get_store().claim_ready(queue, owner=worker_name(), lease=length, functions=functions)
    return None if claim is None else leased(claim, since)


def _with_branches(lease: Lease) -> Iterator[Lease]:
    """Claim, after the run's own turn, the branches that it left."""
    yield lease
    if lease.left_branches:
        yield from _branches(lease.claim.run_id)


def _branches(run_id: UUID) -> Iterator[Lease]:
    """Claim branches of the run; a turn goes through those of one group, so the next one is of another."""
    while True:
        since = time.monotonic()
        claim = get_store().claim_branch(run_id, owner=worker_name(), lease=get_settings().lease)
        if claim is None:
            return
        yield leased(claim, since)


def _another_async(queue: str | None, should_stop: Callable[[], bool], ends: float) -> Lease | None:
    """Claim a further run of an async function, for as long as this worker's message may take."""
    if should_stop() or time.monotonic() > ends or not bulkhead().is_open():
        return None
    return _first_ready(queue, registry.async_ids())


def _advance(queue: str | None, lease: Lease, should_stop: Callable[[], bool], ends: float) -> None:
    """Advance one run, an async one with others beside it; what breaks it harms no other."""
    function = registry.get(lease.claim.function_id)
    try:
        if function is not None and function.is_async:
            lease.next_claim = no_next_claim  # Other runs go on beside it; what it claimed would wait for them.
            advance_async(lease, partial(_another_async, queue, should_stop, ends), should_stop)
        else:
            advance(lease, should_stop)
    except Exception:
        logger.exception("Run %s could not go on; it is tried again later", lease.claim.run_id)
