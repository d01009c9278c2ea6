"""Timers: the ends of sleeps, time-outs of waits and invocations, and ends of back-offs, settled in batches."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable, Sequence
from uuid import UUID

from django.db.models import Q

from ...conf import get_settings
from ...core.replay.operations import StepStatus
from ...core.values.errors import encode_message
from ...exceptions import InvokeTimeout
from ...managers import DatabaseNow
from ...models import Event, Run, RunStatus, Step, StepKind
from ..store.rows import Resolution
from ..store.stores import get_store
from ..store.transactions import alias, atomic, retried
from .starting import announce

UNDECIDED_PAUSE = datetime.timedelta(seconds=1)


@retried
def fire(run_ids: Sequence[UUID]) -> None:
    """Settle the due steps of these runs, whose alarms or whose branches' alarms have rung; wake the runs and branches.

    A wait does not time out while an event that was received in time is left to ingest: its run comes again later.
    """
    with atomic():
        store, rehint = get_store(), get_settings().rehint
        runs = Run.objects.using(alias()).filter(id__in=store.lock(run_ids))
        waiting = set(runs.filter(status=RunStatus.WAITING).due().values_list("id", flat=True))
        # Other runs see to their own steps; branches wait on their own.
        waits = Q(run__in=waiting) | Q(run__in=runs, parent_key__isnull=False)
        steps = list(Step.objects.using(alias()).filter(waits, status=StepStatus.WAITING, next_at__lte=DatabaseNow()))
        undecided, resolutions = _settle(steps)
        settled = {(each.run_id, each.key) for each in resolutions}
        ready = store.resolve(resolutions, rehint=rehint) if resolutions else []
        store.put_off(list(undecided), by=UNDECIDED_PAUSE)
        owners = {step.run_id for step in steps if (step.run_id, step.key) in settled and step.parent_key is None}
        ready += store.wake([each for each in waiting if each not in owners | undecided], rehint=rehint)
        branches = [(step.run_id, step.key) for step in steps if step.kind == StepKind.BRANCH]
        ready += store.wake_branches([each for each in branches if each[0] not in undecided], rehint=rehint)
        announce({each.run_id: each for each in ready}.values())


def settle_running(run_id: UUID) -> None:
    """Settle the due steps of a run whose turn goes on, which then finds them recorded."""
    with atomic():
        get_store().lock([run_id])
        steps = Step.objects.using(alias()).filter(run_id=run_id, status=StepStatus.WAITING)
        _, resolutions = _settle(steps.filter(next_at__lte=DatabaseNow()).exclude(kind=StepKind.SLEEP))
        if resolutions:
            get_store().resolve(resolutions, rehint=get_settings().rehint)


def _settle(steps: Iterable[Step]) -> tuple[set[UUID], list[Resolution]]:
    """Return the runs whose waits cannot be decided yet, and how the other due steps are settled."""
    steps = list(steps)
    first_left = _first_left() if any(step.kind == StepKind.WAIT for step in steps) else None
    undecided: set[UUID] = set()
    resolutions = []
    for step in steps:
        if step.kind == StepKind.WAIT and _may_still_resolve(step, first_left):
            undecided.add(step.run_id)
        elif step.kind in (StepKind.SLEEP, StepKind.WAIT, StepKind.SIGNAL, StepKind.INVOKE):
            resolutions.append(over(step))
    return undecided, [each for each in resolutions if each.run_id not in undecided]


def _first_left() -> datetime.datetime | None:
    """Return the moment of the first event that is left to ingest."""
    return Event.objects.using(alias()).to_ingest().values_list("ingest_at", flat=True).first()


def _may_still_resolve(step: Step, first_left: datetime.datetime | None) -> bool:
    return first_left is not None and step.next_at is not None and first_left <= step.next_at


def over(step: Step) -> Resolution:
    """Return how an open step is settled when its time is over: a sleep has ended, a wait has timed out."""
    if step.kind != StepKind.INVOKE:
        return Resolution(run_id=step.run_id, key=step.key)
    children = Run.objects.using(alias()).filter(parent_id=step.run_id, parent_key=step.key)
    child = children.order_by("-id").values_list("id", "status").first()
    known = {"run_id": str(child[0]), "status": child[1]} if child else {}
    message = f"{step.input} did not end in time; its run goes on"
    return Resolution(
        run_id=step.run_id,
        key=step.key,
        status=StepStatus.FAILED,
        output=json.dumps({"timeout": True, **known}),
        error=encode_message(InvokeTimeout, message),
    )
