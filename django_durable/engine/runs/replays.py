"""Replays: new runs in the place of old ones, with their input or another, from the start or from a step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from ...conf import get_settings
from ...core.functions import registry
from ...core.functions.definitions import FunctionDefinition
from ...core.replay.groups import groups_around
from ...core.replay.operations import SETTLED
from ...core.values import encoding
from ...exceptions import ReplayRefused, RunNotFound
from ...models import BatchedEvent, Run, Step
from ..store import stored_events
from ..store.step_names import StepName, named, not_found
from ..store.transactions import alias, atomic, retried
from .starting import announce, new_run, store_runs

BATCH = 100  #: runs in one transaction
PAGE = 500  #: steps read and written at once


@dataclass(frozen=True, slots=True)
class _Wish:
    input: str | None  #: JSON text in place of the old run's input
    from_step: StepName | None
    confirmed: bool
    once: UUID | None


def replay(
    run_id: UUID,
    *,
    data: Any = None,
    from_step: StepName | None = None,
    confirmed: bool = False,
    once: UUID | None = None,
) -> UUID:
    """Start a new run of the same function; it points at the old one, which stays as it is. Return its id.

    It has the old run's trigger and input, or *data* as its event's data. With *from_step* it begins with every step
    that was recorded before that one; the step, and every step recorded after it, is executed again. A function that is
    registered with ``replay="confirm"`` is replayed if *confirmed*. Calls with one *once* start one run and return its
    id.

    Raises RunNotFound, StepNotFound, ReplayRefused, EncodingError, and ConfigurationError for a lost function.
    """
    [new_id] = replay_many([run_id], data=data, from_step=from_step, confirmed=confirmed, once=once)
    return new_id


def replay_many(
    run_ids: Iterable[UUID],
    *,
    data: Any = None,
    from_step: StepName | None = None,
    confirmed: bool = False,
    once: UUID | None = None,
) -> list[UUID]:
    """Replay each of these runs, as :func:`replay` does; return the ids of the new runs in order.

    All are checked before the first is started. They are stored in batches, each in a transaction.
    """
    limit = get_settings().max_payload
    text = None if data is None else encoding.encode(data, root="data", limit=limit, objects=False)
    wish = _Wish(text, from_step, confirmed, once)
    wanted = list(dict.fromkeys(run_ids))
    batches = [wanted[start : start + BATCH] for start in range(0, len(wanted), BATCH)]
    kept: dict[UUID, int] = {}
    for batch in batches:
        kept |= _check(_read(batch), wish)
    return [new_id for batch in batches for new_id in _store(_new_runs(_read(batch), wish, kept))]


def _read(run_ids: Sequence[UUID]) -> list[Run]:
    runs = Run.objects.using(alias()).select_related("event").defer("output", "error").in_bulk(run_ids)
    for run_id in run_ids:
        if run_id not in runs:
            raise RunNotFound(run_id)
    return [runs[run_id] for run_id in run_ids]


def _check(runs: Sequence[Run], wish: _Wish) -> dict[UUID, int]:
    """Check that these runs may be replayed; return how many memos each of the new ones begins with."""
    for run in runs:
        _check_allowed(registry.find(run.function_id), wish.confirmed)
        if wish.input is not None:
            _check_readable(run, wish.input)
    return {} if wish.from_step is None else _recorded_before(wish.from_step, runs)


def _check_allowed(function: FunctionDefinition[Any, Any], confirmed: bool) -> None:
    if function.replay == "deny":
        raise ReplayRefused(function.id, "it is registered with replay='deny'. Start or send something new instead")
    if function.replay == "confirm" and not confirmed:
        reason = "it is registered with replay='confirm'. Confirm it: confirmed=True, or --yes on the command line"
        raise ReplayRefused(function.id, reason)


def _check_readable(run: Run, input: str) -> None:
    # Each of the engine's own events, such as a failure's, has data of a shape of its own.
    try:
        stored_events.event_of(
            stored_events.trigger_of_run(Run(id=run.id, event=run.event, input=input, created_at=run.created_at))
        )
    except Exception as error:
        name = run.event.name if run.event else stored_events.INVOKED
        reason = f"{name} events cannot hold this data ({type(error).__name__}: {error}). Replay it with its own"
        raise ReplayRefused(run.function_id, reason) from error


def _recorded_before(step: StepName, runs: Sequence[Run]) -> dict[UUID, int]:
    """Return how many steps of each run were recorded before that step; StepNotFound where it has none."""
    found: dict[UUID, int] = {}
    counts = {run.id: run.steps for run in runs}
    for row in Step.objects.using(alias()).filter(named(step), run_id__in=counts).only("branch", "path", "seq"):
        place = min([row.seq or counts[row.run_id] + 1, *_ends_of_groups_around(row)])
        # Where several branches have such a step, the first that was recorded is meant.
        found[row.run_id] = min(place - 1, found.get(row.run_id, place))
    for run in runs:
        if run.id not in found:
            raise not_found(run.id, step)
    return found


def _ends_of_groups_around(step: Step) -> list[int]:
    """Return when the groups around the step's branch were settled: a race may leave the step of a loser open."""
    groups = Step.objects.using(alias()).filter(run_id=step.run_id, key__in=groups_around(step.path or step.branch))
    return [seq for seq in groups.values_list("seq", flat=True) if seq is not None]


def _new_runs(old: Iterable[Run], wish: _Wish, kept: Mapping[UUID, int]) -> list[Run]:
    return [
        new_run(
            registry.find(run.function_id),
            event_id=run.event_id,
            input=run.input if wish.input is None else wish.input,
            replay_of_id=run.id,
            start_key=wish.once and stored_events.digest("replay", run.id.hex, wish.once.hex),
            steps=kept.get(run.id, 0),
        )
        for run in old
    ]


@retried
def _store(runs: list[Run]) -> list[UUID]:
    """Store new runs with the batches and memos of the runs that they replay; return their ids.

    A second try finds its own runs and adds none. A run that was asked for before stands in place of the new one.
    """
    with atomic():
        ready = store_runs(runs)
        first = _first_of_keys(runs)
        ids = [first.get(bytes(run.start_key or b""), run.id) for run in runs]
        new = [run for run, first_id in zip(runs, ids, strict=True) if first_id == run.id]
        _copy_batches(new)
        for run in new:
            _copy_memos(run)
        announce(each for each in ready if each.run_id in ids)
    return ids


def _first_of_keys(runs: Iterable[Run]) -> dict[bytes, UUID]:
    keys = [run.start_key for run in runs if run.start_key]
    stored = Run.objects.using(alias()).filter(start_key__in=keys) if keys else Run.objects.none()
    return {bytes(key): run_id for key, run_id in stored.values_list("start_key", "id") if key}


def _copy_batches(runs: Iterable[Run]) -> None:
    new_ids = {run.replay_of_id: run.id for run in runs if run.replay_of_id}
    rows = BatchedEvent.objects.using(alias()).filter(run_id__in=new_ids)
    copies = [BatchedEvent(run_id=new_ids[row.run_id], position=row.position, event_id=row.event_id) for row in rows]
    BatchedEvent.objects.using(alias()).bulk_create(copies, batch_size=PAGE, ignore_conflicts=True)


def _copy_memos(run: Run) -> None:
    """Copy the first memos of the run that *run* replays, as many as it counts."""
    memos = Step.objects.using(alias()).filter(run_id=run.replay_of_id or run.id, status__in=SETTLED)
    for after in range(0, run.steps, PAGE):
        page = memos.filter(seq__gt=after, seq__lte=min(after + PAGE, run.steps))
        copies = [_copy(memo, run.id) for memo in page]
        Step.objects.using(alias()).bulk_create(copies, batch_size=PAGE, ignore_conflicts=True)


def _copy(memo: Step, run_id: UUID) -> Step:
    memo.run_id = run_id
    memo.fence, memo.owner, memo.crashes = 0, "", 0
    memo.unused = False
    memo._state.adding = True
    return memo
