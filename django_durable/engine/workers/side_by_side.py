"""Async runs side by side: many turns in one event loop of one worker, with one database connection."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from functools import partial

from asgiref.sync import async_to_sync
from django.db import DatabaseError

from ..leases.crash_isolation import bulkhead
from ..leases.leases import Lease
from ..turns.async_turns import AsyncTurn, in_thread

logger = logging.getLogger("django_durable")

MOST = 1_000  #: runs in one loop
PAUSE = 0.2  #: seconds until a loop that found no further run looks again
OUTAGE_PAUSE = 5.0  #: seconds until it looks again after the database failed


def run_side_by_side(
    first: Lease,
    prepare: Callable[[Lease], AsyncTurn | None],
    claim: Callable[[], Lease | None],
    should_stop: Callable[[], bool],
) -> None:
    """Advance a claimed async run and, while its bodies run, those that *claim* gives; return when all turns are over.

    *prepare* makes the turn of a lease, if there is one to run. An error that breaks one run harms no other.
    """
    async_to_sync(_run_all)(first, partial(_advance_one, prepare=prepare, should_stop=should_stop), claim)


async def _run_all(
    first: Lease, play: Callable[[Lease], Coroutine[None, None, None]], claim: Callable[[], Lease | None]
) -> None:
    turns = {asyncio.create_task(play(first))}
    looks_at = time.monotonic()
    while turns:
        if len(turns) < MOST and time.monotonic() >= looks_at:
            pause = PAUSE
            try:
                lease = await in_thread(claim)
            except DatabaseError as error:
                # The runs in flight may outlast the outage.
                logger.warning("No further run could be taken: %s", error)
                lease, pause = None, OUTAGE_PAUSE
            if lease is not None:
                turns.add(asyncio.create_task(play(lease)))
                continue
            looks_at = time.monotonic() + pause
        _, turns = await asyncio.wait(turns, timeout=PAUSE, return_when=asyncio.FIRST_COMPLETED)


async def _advance_one(
    lease: Lease, *, prepare: Callable[[Lease], AsyncTurn | None], should_stop: Callable[[], bool]
) -> None:
    """Take one run as far as it goes."""
    try:
        if not await _is_admitted(lease, should_stop):
            return await in_thread(lease.give_back)
        turn = await in_thread(partial(prepare, lease))
        if turn is not None:
            await _within(turn)
    except Exception:
        logger.exception("Run %s could not go on; it is tried again later", lease.claim.run_id)
    finally:
        bulkhead().leave(lease)


async def _is_admitted(lease: Lease, should_stop: Callable[[], bool]) -> bool:
    """Wait until the bulkhead admits the run; False if the worker is told to stop first."""
    if bulkhead().admits(lease):
        return True
    lease.keep(should_stop)
    try:
        while not bulkhead().admits(lease):
            if should_stop():
                return False
            await asyncio.sleep(PAUSE)
        return True
    finally:
        lease.drop()


async def _within(turn: AsyncTurn) -> None:
    """Keep the turn's lease while it runs, as ``with turn`` does, in the thread that may use the database."""
    turn.keep()
    try:
        await turn.arun()
    except BaseException as error:
        if not await in_thread(partial(turn.__exit__, type(error), error, None)):
            raise
    else:
        turn.lease.drop()
