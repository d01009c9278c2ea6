"""Interventions: people answer a wait or let it time out, end a sleep, or skip a back-off.

Each one locks the run, under which nobody else settles a step of it, and looks only then. Of two people, or of a person
and an event, the first one counts, and the other one is told.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any
from uuid import UUID

from ...conf import get_settings
from ...core.replay.operations import SETTLED, StepStatus
from ...core.values import encoding
from ...exceptions import NotWaiting, RunNotFound
from ...managers import DatabaseNow
from ...middleware import get_hooks
from ...models import Event, Run, RunStatus, Step, StepKind, Wait
from ..events import sending
from ..store.rows import ReadyRun, Resolution
from ..store.step_names import StepName, named, not_found
from ..store.stores import get_store
from ..store.transactions import alias, atomic, retried
from . import timers
from .starting import announce

ANSWERED = (StepKind.WAIT, StepKind.SIGNAL, StepKind.INVOKE)  #: kinds of steps that wait for an answer
ATTEMPTED = (StepKind.RUN, StepKind.ATOMIC)  #: kinds of steps that wait for their next attempt
# An answer by hand is for one wait: no other wait looks back to a time before every run.
_BEFORE_EVERY_RUN = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


def resolve_wait(run_id: UUID, step: StepName, data: Any = None) -> bool:
    """Answer a step that waits: with an event of *data*, or, if it invoked a function, with *data* as its result.

    False if the step was settled or the run ended before. Raises RunNotFound, StepNotFound, NotWaiting, and
    InvalidEvent or EncodingError for data that cannot be stored.
    """

    def answered(found: Step) -> Resolution:
        if found.kind in (StepKind.INVOKE, StepKind.SIGNAL):
            limit = get_settings().max_payload
            result = get_hooks().encode(data) if found.kind == StepKind.INVOKE else data
            output = encoding.encode(result, root="data", limit=limit, objects=False)
            return Resolution(run_id=run_id, key=found.key, output=output)
        return Resolution(run_id=run_id, key=found.key, event_id=_store_answer(found, {} if data is None else data).id)

    return _settle_wait(run_id, step, answered)


def _store_answer(step: Step, data: Any) -> Event:
    names = Wait.objects.using(alias()).filter(run_id=step.run_id, key=step.key).order_by("id")
    name = names.values_list("name", flat=True)[0]
    checked = encoding.event_data(data, limit=get_settings().max_event)
    return sending.store_own(name, checked, source=Event.Source.ADMIN, ingested_at=_BEFORE_EVERY_RUN)


def time_out_wait(run_id: UUID, step: StepName) -> bool:
    """Let a step that waits for an answer time out now; a run that it invoked goes on.

    False if the step was settled or the run ended before. Raises RunNotFound, StepNotFound and NotWaiting.
    """
    return _settle_wait(run_id, step, timers.over)


@retried
def _settle_wait(run_id: UUID, step: StepName, resolution: Callable[[Step], Resolution]) -> bool:
    with atomic():
        if not _lock(run_id):
            return False
        found = _find(run_id, step)
        if found.status in SETTLED:
            return False
        if found.status != StepStatus.WAITING or found.kind not in ANSWERED:
            raise _not_waiting(run_id, f"an event or a run in step {found}")
        announce(get_store().resolve([resolution(found)], rehint=get_settings().rehint))
    return True


def _find(run_id: UUID, step: StepName) -> Step:
    """Return the step of that name, and where several branches have one, a step that waits."""
    rows = list(Step.objects.using(alias()).filter(named(step), run_id=run_id).defer("output", "error").in_order())
    if not rows:
        raise not_found(run_id, step)
    return next((row for row in rows if row.status == StepStatus.WAITING), rows[0])


def wake_run(run_id: UUID) -> bool:
    """End the sleep of a run now; False if it does not wait at all. Raises RunNotFound and NotWaiting.

    A run that waits for a worker whose code has its function is offered to the workers again.
    """

    def wake(run: Run) -> list[ReadyRun]:
        rehint = get_settings().rehint
        sleeps = [timers.over(step) for step in _open_steps(run_id, StepKind.SLEEP)]
        if not sleeps and run.waiting_kind != "code":
            raise _not_waiting(run_id, "a time to come")
        return get_store().resolve(sleeps, rehint=rehint) if sleeps else get_store().wake([run_id], rehint=rehint)

    return _wake_waiting(run_id, wake)


def retry_run(run_id: UUID) -> bool:
    """Make the next attempt of a step, or of the handler's own code, now instead of after its back-off.

    False if the run does not wait at all. Raises RunNotFound and NotWaiting.
    """

    def retry(run: Run) -> list[ReadyRun]:
        store, rehint = get_store(), get_settings().rehint
        put_off = _open_steps(run_id, *ATTEMPTED)
        branches = [(run_id, key) for key in put_off.values_list("parent_key", flat=True) if key]
        # A branch of a map is tried again as a step is, and the code of other branches as a handler's is.
        branches += [(run_id, key) for key in _retried_branches(run_id).values_list("key", flat=True)]
        if not put_off.update(next_at=DatabaseNow()) and not branches and run.waiting_kind != "retry":
            raise _not_waiting(run_id, "another attempt")
        if branches:
            return store.wake_branches(branches, rehint=rehint)
        return store.wake([run_id], rehint=rehint)

    return _wake_waiting(run_id, retry)


def _retried_branches(run_id: UUID) -> Any:
    return _open_steps(run_id, StepKind.BRANCH).filter(attempt__gt=0, next_at__isnull=False)


def _open_steps(run_id: UUID, *kinds: str) -> Any:
    return Step.objects.using(alias()).filter(run_id=run_id, kind__in=kinds, status=StepStatus.WAITING)


@retried
def _wake_waiting(run_id: UUID, wake: Callable[[Run], list[ReadyRun]]) -> bool:
    with atomic():
        if not _lock(run_id):
            return False
        run = Run.objects.using(alias()).only("status", "waiting_kind").get(id=run_id)
        if run.status != RunStatus.WAITING:
            return False
        announce(wake(run))
    return True


def _lock(run_id: UUID) -> bool:
    """Lock the run; False if it has ended."""
    if get_store().lock([run_id]):
        return True
    if not Run.objects.using(alias()).filter(id=run_id).exists():
        raise RunNotFound(run_id)
    return False


def _not_waiting(run_id: UUID, asked: str) -> NotWaiting:
    waiting_for = Run.objects.using(alias()).values_list("waiting_kind", "waiting_for").get(id=run_id)
    return NotWaiting(run_id, asked, ": ".join(filter(None, waiting_for)))
