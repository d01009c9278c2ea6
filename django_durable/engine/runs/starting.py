"""How a run starts: its row, the claim that its worker has from the start, and the hint that others get."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any
from uuid import UUID

from django.db import transaction

from ...conf import get_settings
from ...core.ids import uuid7
from ...drivers.base import get_driver
from ...managers import NOW, DatabaseNow
from ...models import Run, RunStatus
from ..store.rows import NextClaim, ReadyRun
from ..store.stores import get_store
from ..store.transactions import alias
from . import catalog
from .catalog import AnyFunction


def new_run(function: AnyFunction, **values: Any) -> Run:
    """Return a queued run of *function*, not stored yet."""
    return Run(
        id=uuid7(),
        function_id=function.id,
        queue=catalog.queue_of(function),
        code_version=function.code_version,
        ready_at=NOW,
        next_at=DatabaseNow(get_settings().rehint),
        **{"created_at": NOW, **values},
    )


def store_runs(runs: Iterable[Run]) -> list[ReadyRun]:
    """Insert new runs; leave out a run whose start key exists already, because it was started before."""
    rows = list(runs)
    if not rows:
        return []
    catalog.ensure_rows_for(rows)
    if len(rows) == 1:
        get_store().insert(rows[0], ignore_conflicts=True)
    else:
        Run.objects.using(alias()).bulk_create(rows, batch_size=500, ignore_conflicts=True)
    return [ReadyRun(run.id, run.queue) for run in rows]


def take_one(runs: Iterable[Run], next_claim: NextClaim) -> Run | None:
    """Give the worker the first of these new runs that is for it, claimed from the start; return that run."""
    first = next((run for run in runs if next_claim.queue in (None, run.queue)), None)
    if first is not None:
        first.status, first.fence, first.owner = RunStatus.RUNNING, 1, next_claim.owner
        first.ready_at, first.next_at, first.started_at = None, DatabaseNow(next_claim.lease), DatabaseNow()
    return first


def announce(ready: Iterable[ReadyRun]) -> None:
    """Hint at these runs once the transaction, if one is open, has committed."""
    by_queue: dict[str, list[UUID]] = {}
    for each in ready:
        by_queue.setdefault(each.queue, []).append(each.run_id)
    for queue, run_ids in by_queue.items():
        transaction.on_commit(partial(get_driver().wake, queue, run_ids), using=alias(), robust=True)
