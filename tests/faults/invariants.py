"""The eight things that hold whatever fails: asked of the database, and of a ledger that the bodies keep.

For any process whose Django has the durable rows: a test's, a site's, a soak's. A line of the ledger says that a body
began: ``{"run": id, "step": name, "ordinal": 0, "time": seconds since 1970, "pid": process}``.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from django.db import connections
from django.db.models import Count, Exists, OuterRef

from django_durable.engine.store.transactions import alias
from django_durable.models import Run, RunStatus, Step, StepKind, StepStatus, Wait

Line = Mapping[str, Any]
Snapshot = Mapping[str, Mapping[str, Any]]

CLOCKS = 0.5  #: seconds that two processes may differ in what they take for the database's time
IDLE = 2.0  #: seconds that a transaction may be idle
UNFINISHED = (RunStatus.QUEUED, RunStatus.RUNNING, RunStatus.WAITING)
SETTLED = (StepStatus.COMPLETED, StepStatus.FAILED)
WITH_BODIES = (StepKind.RUN, StepKind.ATOMIC)


def violations(
    bodies: Iterable[Line],
    *,
    outputs: Mapping[str, Any] | None = None,
    before: Snapshot | None = None,
    most_connections: int | None = None,
) -> list[str]:
    """Return what does not hold, each with its number; an empty list is as it should be.

    *outputs* are those of the same runs without a fault, by id; *before* is an earlier :func:`settled`;
    *most_connections* is how many the database may have besides the one that asks.
    """
    ledger = list(bodies)
    return [
        *(f"I1 unreachable: {each}" for each in _unreachable()),
        *(f"I2 recorded twice: {each}" for each in _recorded_twice()),
        *(f"I3 ran again: {each}" for each in _ran_again(ledger)),
        *(f"I4 two owners: {each}" for each in _two_owners(ledger)),
        *(f"I2/I5 changed after its end: {each}" for each in _changed(before or {})),
        *(f"I6 resolved twice: {each}" for each in _resolved_twice()),
        *(f"I7 another output: {each}" for each in _other_outputs(outputs or {})),
        *(f"I8 left open: {each}" for each in _left_open(most_connections)),
    ]


def settled() -> dict[str, dict[str, Any]]:
    """Return the memos and ends that may never change, as JSON."""
    memos = Step.objects.using(alias()).filter(status__in=SETTLED)
    ended = Run.objects.using(alias()).exclude(status__in=UNFINISHED)
    return {
        "memos": {f"{run} {bytes(key).hex()}": list(rest) for run, key, *rest in memos.values_list(*_MEMO)},
        "ends": {str(run): list(rest) for run, *rest in ended.values_list("id", "status", "output", "error", "fence")},
    }


_MEMO = ("run_id", "key", "name", "ordinal", "status", "output", "error", "seq", "attempt")


def _unreachable() -> Iterator[str]:
    """A run that has not ended is found by its alarm, a wait, a child or a branch; one that has, by none of them."""
    branches = Step.objects.using(alias()).filter(kind=StepKind.BRANCH, next_at__isnull=False, run_id=OuterRef("id"))
    waits = Wait.objects.using(alias()).filter(run_id=OuterRef("id"))
    runs = Run.objects.using(alias()).annotate(waits_open=Exists(waits), branches_open=Exists(branches))
    for run in runs.defer("input", "output", "error"):
        found = run.next_at is not None or run.held_by is not None
        waiting = run.waits_open or run.branches_open
        if run.status not in UNFINISHED and (found or waiting):
            yield f"{run.id} is {run.status}, and still looked for"
        elif run.status == RunStatus.WAITING and not (found or waiting):
            yield f"{run.id} waits for nothing"
        elif run.status in (RunStatus.QUEUED, RunStatus.RUNNING) and not found:
            yield f"{run.id} is {run.status}, and nothing leads to it"


def _recorded_twice() -> Iterator[str]:
    """The numbers of a run's memos are all different: each was recorded by one commit of its own."""
    memos = Step.objects.using(alias()).filter(seq__isnull=False).values("run_id", "seq")
    for each in memos.annotate(count=Count("key")).filter(count__gt=1):
        yield f"{each['run_id']} has {each['count']} memos with the number {each['seq']}"


def _memos() -> dict[tuple[str, str, int], Step]:
    memos = Step.objects.using(alias()).filter(status__in=SETTLED, kind__in=WITH_BODIES).defer("output", "error")
    return {(str(memo.run_id), memo.name, memo.ordinal): memo for memo in memos if not memo.branch}


def _ran_again(ledger: Sequence[Line]) -> Iterator[str]:
    memos = _memos()
    for line in ledger:
        memo = memos.get((line["run"], line["step"], line["ordinal"]))
        if memo and memo.finished_at and line["time"] > memo.finished_at.timestamp() + CLOCKS:
            late = line["time"] - memo.finished_at.timestamp()
            yield f"{line['step']} of {line['run']} began {late:.3f} s after it was recorded"


def _two_owners(ledger: Sequence[Line]) -> Iterator[str]:
    """Between two claims only one process records: the recorded bodies change hands no more often than the run did."""
    began: dict[tuple[str, str, int], list[Line]] = {}
    for line in ledger:
        began.setdefault((line["run"], line["step"], line["ordinal"]), []).append(line)
    recorders: dict[str, list[tuple[int, int]]] = {}
    for place, memo in _memos().items():
        ends = memo.finished_at.timestamp() + CLOCKS if memo.finished_at else 0.0
        own = [line for line in began.get(place, ()) if line["time"] <= ends]
        if not own and any(line["run"] == place[0] for line in ledger):
            yield f"{memo.name} of {memo.run_id} is recorded, and its body never began"
        elif own:
            recorders.setdefault(place[0], []).append((memo.seq or 0, own[-1]["pid"]))
    fences = dict(Run.objects.using(alias()).values_list("id", "fence"))
    claims = {str(run): fence for run, fence in fences.items()}
    for run, recorded in recorders.items():
        hands = len(list(itertools.groupby(pid for _, pid in sorted(recorded))))
        if hands > claims[run]:
            yield f"{run} was claimed at most {claims[run]} times, and its memos changed hands {hands} times"


def _changed(before: Snapshot) -> Iterator[str]:
    now = json.loads(json.dumps(settled()))
    for kind, rows in before.items():
        for name, values in rows.items():
            if now[kind].get(name) != values:
                yield f"{kind} {name}: {values} became {now[kind].get(name)}"


def _resolved_twice() -> Iterator[str]:
    """An event resolves a wait of one name in a run once, and what is settled waits no more."""
    resolved = Step.objects.using(alias()).filter(event__isnull=False, kind=StepKind.WAIT)
    doubled = Counter(resolved.values_list("run_id", "name", "branch", "event_id"))
    yield from (f"{name} of {run} by {event}" for (run, name, _, event), count in doubled.items() if count > 1)
    over = Step.objects.using(alias()).filter(run_id=OuterRef("run_id"), key=OuterRef("key"), status__in=SETTLED)
    for wait in Wait.objects.using(alias()).filter(Exists(over)):
        yield f"{wait.run_id} still waits for what is settled"


def _other_outputs(outputs: Mapping[str, Any]) -> Iterator[str]:
    for run in Run.objects.using(alias()).filter(id__in=list(outputs)):
        value = run.output and json.loads(run.output)
        if run.status != RunStatus.COMPLETED or value != outputs[str(run.id)]:
            yield f"{run.id} is {run.status} with {run.output}, {run.error}, not {outputs[str(run.id)]}"


def _left_open(most_connections: int | None) -> Iterator[str]:
    """Nobody holds a transaction open and does nothing in it, or keeps connections that nobody uses."""
    if connections[alias()].vendor != "postgresql":
        return
    with connections[alias()].cursor() as cursor:
        cursor.execute(_ACTIVITY)
        rows = cursor.fetchall()
    if most_connections is not None and len(rows) > most_connections:
        yield f"{len(rows)} connections, not at most {most_connections}: {rows}"
    for pid, state, query, seconds in rows:
        if state.startswith("idle in transaction") and seconds > IDLE:
            yield f"connection {pid} is {state} for {seconds} s, after {query}"


_ACTIVITY = """
SELECT pid, coalesce(state, ''), left(query, 100), extract(epoch FROM clock_timestamp() - state_change)::float
FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""
