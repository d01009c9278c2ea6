"""Runs: how they start, are cancelled, and end."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import F, Max

from ... import signals
from ...conf import get_settings
from ...core import fault_points
from ...core.functions.functions import DurableFunction
from ...core.ids import uuid7
from ...core.replay.operations import StepStatus
from ...core.values import encoding
from ...drivers.base import get_driver
from ...exceptions import RunNotFound
from ...managers import DatabaseNow
from ...middleware import get_hooks
from ...models import Run, RunStatus, Step, Wait
from ..store import stored_events
from ..store.portable.runs import claimed_from_the_start
from ..store.rows import BranchEnd, Claim, EndResult, EventRow, NextClaim, ReadyRun, Resolution
from ..store.stores import get_store
from ..store.transactions import alias, atomic, retried
from . import catalog
from .catalog import AnyFunction
from .end_events import FollowUp, RunEnd, follow_up_of, follow_ups_of_cancelled, store_end_event

_NO_COLUMNS = ("run_id", "now", "event", "key", "path")  #: what a claim has that is not as in the run's row
_TICK = datetime.timedelta(microseconds=1)  #: events of a batch are ingested one apart


def new_run(function: AnyFunction, **values: Any) -> Run:
    """Return a queued run of *function*, not stored yet."""
    return Run(
        id=uuid7(),
        function_id=function.id,
        queue=catalog.queue_of(function),
        code_version=function.code_version,
        ready_at=DatabaseNow(),
        next_at=DatabaseNow(get_settings().rehint),
        **{"created_at": DatabaseNow(), **values},
    )


def store_runs(runs: Iterable[Run]) -> list[ReadyRun]:
    """Insert new runs; one whose start key exists already was started before, and is left."""
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
    """Let the first of these new runs that is for that worker be its own from the start; return which that is."""
    first = next((run for run in runs if next_claim.queue in (None, run.queue)), None)
    return first and claimed_from_the_start(first, owner=next_claim.owner, lease=next_claim.lease)


def claim_of(run: Run, now: datetime.datetime, event: EventRow) -> Claim:
    """Return the claim on a run that its worker had from the start: from *now* on, by the database's time."""
    values = {name: getattr(run, name) for name in Claim.__slots__ if name not in _NO_COLUMNS}
    return Claim(**values, run_id=run.id, now=now, event=event)


def announce(ready: Iterable[ReadyRun]) -> None:
    """Have these runs worked on once the transaction, if one is open, has committed."""
    by_queue: dict[str, list[UUID]] = {}
    for each in ready:
        by_queue.setdefault(each.queue, []).append(each.run_id)
    for queue, run_ids in by_queue.items():
        transaction.on_commit(partial(get_driver().wake, queue, run_ids), using=alias(), robust=True)


@retried
def cancel(run_id: UUID, reason: str = "") -> bool:
    """Cancel a run and the children that it waits for; False if it had ended.

    *reason* is kept as the run's error. A body that runs right now is not interrupted: its value is kept, as discarded.
    A parent that waits for the run gets an InvokeError. Raises RunNotFound.
    """
    with atomic():
        run = Run.objects.using(alias()).only("parent_id", "parent_key").filter(id=run_id).first()
        if run is None:
            raise RunNotFound(run_id)
        store = get_store()
        store.lock([run.parent_id] if run.parent_id else [])
        cancelled = _cancel_tree([run_id], _error("Cancelled", reason or "The run was cancelled"))
        if cancelled and run.parent_id:
            end = RunEnd(run_id, RunStatus.CANCELLED, None, _error("Cancelled", reason or "The run was cancelled"))
            announce(_resolve_parent(run.parent_id, run.parent_key, end))
        return bool(cancelled)


def _cancel_tree(run_ids: Sequence[UUID], error: str) -> list[UUID]:
    """Cancel runs and then the children that they wait for: parents are locked before their children."""
    store = get_store()
    unfinished = store.lock(run_ids)
    children = _children(unfinished)
    store.cancel(unfinished, error)
    follow = [
        (each, RunEnd(id, RunStatus.CANCELLED, error=error), row)
        for each, row, id in follow_ups_of_cancelled(unfinished)
    ]
    announce(store_runs(run for each in follow for run in _runs_after(*each)))
    tell = partial(signals.tell, signals.run_ended, partial(_cancellations, unfinished))
    transaction.on_commit(tell, using=alias(), robust=True)
    if children:
        _cancel_tree(children, _error("Cancelled", "The run that invoked it was cancelled"))
    return unfinished


def _children(run_ids: Sequence[UUID]) -> list[UUID]:
    """Return the children that these runs wait for and that are cancelled with them."""
    waits = Wait.objects.using(alias()).filter(kind=Wait.Kind.INVOKE, run_id__in=run_ids)
    return [UUID(bytes=bytes(key)) for key in waits.values_list("match_key", flat=True) if any(key)]


def _cancellations(run_ids: Sequence[UUID]) -> list[dict[str, Any]]:
    runs = Run.objects.using(alias()).filter(id__in=run_ids).order_by("id").values("function_id", run_id=F("id"))
    return [{**run, "status": str(RunStatus.CANCELLED)} for run in runs]


def finish(claim: Claim, end: RunEnd, next_claim: NextClaim | None = None) -> EndResult | None:
    """End a claimed run with all that follows; None if the claim is lost.

    Where nothing follows, a ready run may be claimed for *next_claim* in the same commit.
    """
    fault_points.point("run.before_finish")
    ended = _finish(claim, end, next_claim)
    if ended:
        fault_points.point("run.after_finish")
        told = {"run_id": claim.run_id, "function_id": claim.function_id, "status": str(end.status)}
        signals.tell(signals.run_ended, lambda: [told])
    return ended


@retried
def _finish(claim: Claim, end: RunEnd, next_claim: NextClaim | None) -> EndResult | None:
    """End a claimed run and, in the same commit, settle its parent's step and start what follows."""
    follow_up = follow_up_of(claim.function_id, end.status, claim.event.name if claim.event else None)
    store = get_store()
    if claim.parent_id is None and follow_up is None and not end.unused and not end.has_branches:
        return store.end(claim, end.status, output=end.output, error=end.error, next_claim=next_claim)
    with atomic():
        store.lock([claim.parent_id] if claim.parent_id else [])
        if not store.end(claim, end.status, output=end.output, error=end.error):
            return None
        if end.has_branches:
            store.close_branches([claim.run_id])
        store.mark_unused(claim.run_id, end.unused)
        ready = _resolve_parent(claim.parent_id, claim.parent_key, end) if claim.parent_id else []
        ready += store_runs(_runs_after(follow_up, end, stored_events.trigger_of(claim)) if follow_up else [])
        # The worker that ended this run goes on with what is ready in the same queue.
        announce(each for each in ready if each.needs_message(claim.queue))
    return EndResult()


@retried
def finish_branch(claim: Claim, end: BranchEnd, next_claim: NextClaim | None) -> EndResult | None:
    """End a branch, and claim another one of its group for *next_claim*; None if the claim is lost.

    Where that decides a race, the others are closed, and the children that they wait for cancelled.
    """
    store, rehint = get_store(), get_settings().rehint
    if not end.race:
        return store.finish_branch(claim, end, rehint=rehint, next_claim=next_claim)
    with atomic():
        store.lock([claim.run_id])
        children = set(_children([claim.run_id]))
        finished = store.finish_branch(claim, end, rehint=rehint)
        lost = children - set(_children([claim.run_id]))
        if lost:
            _cancel_tree(sorted(lost), _error("Cancelled", "The branch that invoked it lost a race"))
        return finished


@retried
def continue_as_new(claim: Claim, function: DurableFunction[Any, Any], data: str) -> bool:
    """End a claimed run, and start one of the same function with other data in its place; False if the claim is lost.

    A parent waits for the new run from then on. Its waits see the events that came since the last one that this run
    used: none is lost between the two. The work has not ended: no ``on_complete`` runs, no event and no signal
    tells of an end, until the last of these runs ends.
    """
    store = get_store()
    new = new_run(
        function,
        event_id=claim.event.id if claim.event else None,
        input=data,
        parent_id=claim.parent_id,
        parent_key=claim.parent_key,
        depth=claim.depth,
        start_key=stored_events.digest(claim.run_id.hex, "continued"),
        looks_back_to=_seen_until(claim),
    )
    output = encoding.encode(get_hooks().encode({"continued_as": str(new.id)}))
    with atomic():
        store.lock([claim.parent_id] if claim.parent_id else [])
        if not store.end(claim, RunStatus.COMPLETED, output=output):
            return False
        ready = store_runs([new])
        if claim.parent_id:
            waits = Wait.objects.using(alias()).filter(run_id=claim.parent_id, key=claim.parent_key)
            waits.filter(kind=Wait.Kind.INVOKE, match_key=claim.run_id.bytes).update(match_key=new.id.bytes)
        announce(each for each in ready if each.needs_message(claim.queue))
    return True


def _seen_until(claim: Claim) -> datetime.datetime:
    """Return from when on the run has used no event in a wait."""
    used = Step.objects.using(alias()).filter(run_id=claim.run_id, event__isnull=False)
    last = used.aggregate(last=Max("event__ingested_at"))["last"]
    start = claim.looks_back_to or claim.created_at
    return max(start, last + _TICK) if last else start


def _runs_after(follow_up: FollowUp, end: RunEnd, trigger: EventRow) -> list[Run]:
    """Tell of a run's end; return the run of what handles it, with the start key that ingest would give it."""
    event, handler = store_end_event(follow_up, end, trigger), follow_up.handler
    return (
        [new_run(handler, event_id=event.id, start_key=stored_events.digest(handler.id, event.id.hex))]
        if handler
        else []
    )


def _resolve_parent(parent_id: UUID, parent_key: bytes | None, end: RunEnd) -> list[ReadyRun]:
    resolution = Resolution(run_id=parent_id, key=parent_key or b"", output=end.output)
    if end.status != RunStatus.COMPLETED:
        resolution = Resolution(
            run_id=parent_id,
            key=parent_key or b"",
            status=StepStatus.FAILED,
            output=json.dumps({"run_id": str(end.run_id), "status": str(end.status)}),
            error=end.error,
        )
    return get_store().resolve([resolution], rehint=get_settings().rehint)


def _error(type: str, message: str) -> str:
    return json.dumps({"type": type, "message": message})
