"""How a run ends, or a branch of it: by its handler, by somebody who cancels it, or by a run that takes its place.

Each end is one commit with all that follows it: it settles the step of a parent that waits, and starts the function
that handles the end. Cancelling a run cancels the children that it waits for, which end in turn: that is why cancelling
and ending stand in one file.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from functools import partial
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import F, Max

from ... import signals
from ...conf import get_settings
from ...core import fault_points
from ...core.functions.definitions import FunctionDefinition
from ...core.replay.operations import StepStatus
from ...core.values import encoding
from ...core.values.errors import encode_message
from ...exceptions import RunCancelled, RunNotFound
from ...middleware import get_hooks
from ...models import Run, RunStatus, Step, Wait
from ..store import stored_events
from ..store.rows import BranchEnd, Claim, EndResult, EventRow, NextClaim, ReadyRun, Resolution
from ..store.stores import get_store
from ..store.transactions import alias, atomic, retried
from .end_events import FollowUp, RunEnd, follow_up_of, follow_ups_of_cancelled, store_end_event
from .starting import announce, new_run, store_runs

_TICK = datetime.timedelta(microseconds=1)  #: events of a batch are ingested one apart


def end_run(claim: Claim, end: RunEnd, next_claim: NextClaim | None = None) -> EndResult | None:
    """End a claimed run with all that follows; None if the claim is lost.

    Where nothing follows, a ready run may be claimed for *next_claim* in that commit.
    """
    fault_points.point("run.before_end")
    follow_up = follow_up_of(claim.function_id, end.status, claim.event.name if claim.event else None)
    if claim.parent_id or follow_up or end.unused or end.has_branches:
        result = _end_with_all_that_follows(claim, end, follow_up)
    else:
        result = get_store().end(claim, end.status, output=end.output, error=end.error, next_claim=next_claim)
    if result:
        fault_points.point("run.after_end")
        told = {"run_id": claim.run_id, "function_id": claim.function_id, "status": str(end.status)}
        signals.tell(signals.run_ended, lambda: [told])
    return result


@retried
def _end_with_all_that_follows(claim: Claim, end: RunEnd, follow_up: FollowUp | None) -> EndResult | None:
    store = get_store()
    with atomic():
        store.lock([claim.parent_id] if claim.parent_id else [])
        if not store.end(claim, end.status, output=end.output, error=end.error):
            return None
        if end.has_branches:
            store.close_branches([claim.run_id])
        store.mark_unused(claim.run_id, end.unused)
        ready = _resolve_parent(claim.parent_id, claim.parent_key, end) if claim.parent_id else []
        ready += store_runs(_runs_after(follow_up, end, stored_events.trigger_of(claim)) if follow_up else [])
        # The worker that ended this run goes on with the runs that are ready in the same queue.
        announce(each for each in ready if each.needs_message(claim.queue))
    return EndResult()


@retried
def end_branch(claim: Claim, end: BranchEnd, next_claim: NextClaim | None) -> EndResult | None:
    """End a branch, and claim another one of its group for *next_claim*; None if the claim is lost.

    Where that decides a race, the other branches are closed, and the children that they wait for cancelled.
    """
    store, rehint = get_store(), get_settings().rehint
    if not end.race:
        return store.end_branch(claim, end, rehint=rehint, next_claim=next_claim)
    with atomic():
        store.lock([claim.run_id])
        children = set(_children([claim.run_id]))
        result = store.end_branch(claim, end, rehint=rehint)
        lost = children - set(_children([claim.run_id]))
        if lost:
            _cancel_tree(sorted(lost), "The branch that invoked it lost a race")
        return result


@retried
def continue_as_new(claim: Claim, function: FunctionDefinition[Any, Any], data: str) -> bool:
    """End a claimed run, and start one of its function with other data in its place; False if the claim is lost.

    A parent waits for the new run from then on. The new run's waits see the events that came since the last event that
    this run used: none is lost between the two. The work has not ended: no ``on_complete`` runs, and no event or signal
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
    """Return the moment since which no wait of the run has used an event."""
    used = Step.objects.using(alias()).filter(run_id=claim.run_id, event__isnull=False)
    last = used.aggregate(last=Max("event__ingested_at"))["last"]
    start = claim.looks_back_to or claim.created_at
    return max(start, last + _TICK) if last else start


@retried
def cancel(run_id: UUID, reason: str = "") -> bool:
    """Cancel a run and the children that it waits for; False if it had ended.

    *reason* is kept as the run's error. A body that runs now is not interrupted: its value is kept as discarded.
    A parent that waits for the run gets an InvokeError. Raises RunNotFound.
    """
    reason = reason or "The run was cancelled"
    with atomic():
        run = Run.objects.using(alias()).only("parent_id", "parent_key").filter(id=run_id).first()
        if run is None:
            raise RunNotFound(run_id)
        get_store().lock([run.parent_id] if run.parent_id else [])
        is_cancelled = bool(_cancel_tree([run_id], reason))
        if is_cancelled and run.parent_id:
            announce(_resolve_parent(run.parent_id, run.parent_key, _cancelled(run_id, reason)))
        return is_cancelled


def _cancelled(run_id: UUID, reason: str) -> RunEnd:
    return RunEnd(run_id, RunStatus.CANCELLED, error=encode_message(RunCancelled, reason))


def _cancel_tree(run_ids: Sequence[UUID], reason: str) -> list[UUID]:
    """Cancel runs and then the children that they wait for: parents are locked before their children."""
    store = get_store()
    unended = store.lock(run_ids)
    children = _children(unended)
    store.cancel(unended, encode_message(RunCancelled, reason))
    followed = follow_ups_of_cancelled(unended)
    ends = [(each, _cancelled(id, reason), trigger) for each, trigger, id in followed]
    announce(store_runs(run for end in ends for run in _runs_after(*end)))
    send = partial(signals.tell, signals.run_ended, partial(_cancellations, unended))
    transaction.on_commit(send, using=alias(), robust=True)
    if children:
        _cancel_tree(children, "The run that invoked it was cancelled")
    return unended


def _children(run_ids: Sequence[UUID]) -> list[UUID]:
    """Return the children that these runs wait for and that are cancelled with them."""
    waits = Wait.objects.using(alias()).filter(kind=Wait.Kind.INVOKE, run_id__in=run_ids)
    return [UUID(bytes=bytes(key)) for key in waits.values_list("match_key", flat=True) if any(key)]


def _cancellations(run_ids: Sequence[UUID]) -> list[dict[str, Any]]:
    runs = Run.objects.using(alias()).filter(id__in=run_ids).order_by("id").values("function_id", run_id=F("id"))
    return [{**run, "status": str(RunStatus.CANCELLED)} for run in runs]


def _runs_after(follow_up: FollowUp, end: RunEnd, trigger: EventRow) -> list[Run]:
    """Store the event of a run's end; return the run of the function that handles it, to be stored.

    Its start key is the one that ingest would give it.
    """
    event, handler = store_end_event(follow_up, end, trigger), follow_up.handler
    if handler is None:
        return []
    return [new_run(handler, event_id=event.id, start_key=stored_events.digest(handler.id, event.id.hex))]


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
