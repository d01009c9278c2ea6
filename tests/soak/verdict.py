"""What must hold when all is over: nothing is lost, nothing that was recorded ran again, nothing is stuck.

The invariants I1 to I8 of the fault tests, on what the ledger and the tables say.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from django.db import connection

from django_durable.models import ENDED, Event, Run, Step, StepAttempt, Wait

from .ledger import Ledger
from .programs import as_json, outcome_of, tokens_in
from .project.models import Effect
from .traffic import PROGRAMS, Traffic

SETTLED = ("completed", "failed")
BODIES = ("run", "atomic", "branch")  #: kinds of steps that may record what a body returned


@dataclass
class Verdict:
    """Compares what was sent, what ran and what is recorded; each finding is a sentence."""

    traffic: Traffic
    ledger: Ledger
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)

    def reach(self) -> Verdict:
        """Make all checks."""
        self.lost += [*self._missing_events(), *self._missing_runs(), *self._other_outcomes(), *self._forgotten()]
        self.lost += self._missing_effects()
        self.doubled += [*self._doubled_runs(), *self._late_bodies(), *self._doubled_effects(), *self._doubled_sends()]
        self.doubled += [*self._doubled_attempts(), *self._changed_runs()]
        self.stuck += [*self._unended(), *self._unreachable(), *self._uningested(), *self._idle_transactions()]
        return self

    # What there is

    @cached_property
    def runs(self) -> dict[str, Run]:
        """All runs, by id."""
        return {str(run.id): run for run in Run.objects.select_related("event")}

    @cached_property
    def memos(self) -> list[Step]:
        """All recorded steps."""
        return list(Step.objects.filter(status__in=SETTLED))

    @cached_property
    def recorded(self) -> set[str]:
        """The tokens of the calls whose values, or errors, are recorded."""
        texts = (each.output or each.error for each in self.memos if each.kind in BODIES)
        return {token for text in texts for token in tokens_in(text)}

    # Lost

    def _missing_events(self) -> Iterator[str]:
        there = set(map(str, Event.objects.values_list("id", flat=True)))
        yield from (
            f"event {key} was sent and is not there" for key, id in self.traffic.sent.items() if id not in there
        )
        if Event.objects.filter(name="soak/phantom").exists():
            yield "an event is there whose transaction was rolled back"

    def _missing_runs(self) -> Iterator[str]:
        started = {str(run.event_id) for run in self.runs.values()}
        starts = [f"soak/{name}" for name in PROGRAMS] + ["soak/sent"]
        events = Event.objects.filter(name__in=starts).values_list("id", "name")
        yield from (f"event {name} {id} has started no run" for id, name in events if str(id) not in started)

    def _other_outcomes(self) -> Iterator[str]:
        for run in self.runs.values():
            if run.status in ENDED and (reason := self._difference(run)):
                yield f"run {run.id} ({run.function_id}) {reason}"

    def _difference(self, run: Run) -> str | None:
        known = set(tokens_in(run.output)) - self.recorded
        if known:
            return f"returned the values of calls that are not recorded: {known}"
        if not run.function_id.endswith(tuple(f"/{name}" for name in PROGRAMS)):
            return None if run.status in SETTLED else f"is {run.status}"
        assert run.event is not None
        wanted = outcome_of(self.traffic.programs[run.event.data["program"]])
        found = as_json(json.loads(run.output or "null")) if run.status == "completed" else run.status
        return None if found == wanted else f"came to {found}, not to {wanted}: {run.error}"

    def _forgotten(self) -> Iterator[str]:
        """Find values that a handler had been given, so that they were recorded, and that are recorded no more."""
        given = {(call.run, value) for call in self.ledger.calls.values() for value in call.seen}
        for run, value in sorted(given):
            if not set(tokens_in(value)) <= self.recorded:
                yield f"run {run} had recorded {value}, and does so no more"

    def _missing_effects(self) -> Iterator[str]:
        written = set(Effect.objects.values_list("token", flat=True))
        for memo in self._atomic():
            for token in tokens_in(memo.output):
                if token not in written:
                    yield f"run {memo.run_id}: {memo.output} is recorded, and has written nothing"

    def _atomic(self) -> list[Step]:
        return [each for each in self.memos if each.kind == "atomic" and each.status == "completed"]

    # Doubled

    def _doubled_runs(self) -> Iterator[str]:
        counts = Counter((run.event_id, run.function_id) for run in self.runs.values() if run.parent_id is None)
        yield from (f"event {event} has started {name} {n} times" for (event, name), n in counts.items() if n > 1)

    def _late_bodies(self) -> Iterator[str]:
        for call, memo in self.ledger.late(self.recorded):
            yield f"run {call.run}: {call.place}#{call.token} started after #{memo.token} was recorded"

    def _doubled_effects(self) -> Iterator[str]:
        recorded = {token for memo in self._atomic() for token in tokens_in(memo.output)}
        effects = list(Effect.objects.all())
        yield from (f"{each} was written, and is not recorded" for each in effects if each.token not in recorded)
        counts = Counter((each.run, each.place) for each in effects)
        yield from (f"run {run}: {place} has written {n} rows" for (run, place), n in counts.items() if n > 1)

    def _doubled_sends(self) -> Iterator[str]:
        sent = Counter(
            str(each["run"]) for each in Event.objects.filter(name="soak/sent").values_list("data", flat=True)
        )
        memos = Counter(str(memo.run_id) for memo in self.memos if memo.kind == "send")
        for run in sent.keys() | memos.keys():
            if sent[run] != memos[run]:
                yield f"run {run} has recorded {memos[run]} events that it sent; {sent[run]} are there"

    def _doubled_attempts(self) -> Iterator[str]:
        failed = StepAttempt.objects.filter(status="failed", key__isnull=False).values_list("run_id", "key", "number")
        for (run, _, number), n in Counter((run, bytes(key), number) for run, key, number in failed).items():
            if n > 1:
                yield f"run {run} has recorded attempt {number} of a step {n} times"

    def _changed_runs(self) -> Iterator[str]:
        yield from (f"run {run} changed after its end" for run in self.traffic.changed)

    # Stuck

    def _unended(self) -> Iterator[str]:
        for run in self.runs.values():
            if run.status not in ENDED:
                yield f"run {run.id} ({run.function_id}) is {run.status}, for {run.waiting_kind} {run.waiting_for}"

    def _unreachable(self) -> Iterator[str]:
        waiting = set(Wait.objects.values_list("run_id", flat=True))
        waiting |= set(Step.objects.filter(kind="branch").exclude(status__in=SETTLED).values_list("run_id", flat=True))
        for run in self.runs.values():
            if run.status not in ENDED and run.next_at is None and run.id not in waiting:
                yield f"run {run.id} is {run.status} without an alarm, a wait or a branch"
        if Wait.objects.filter(run__status__in=ENDED).exists():
            yield "a run that has ended has open waits"

    def _uningested(self) -> Iterator[str]:
        if not self.traffic.is_done:
            yield "not all events could be sent"
        yield from (f"event {event} is not ingested" for event in Event.objects.filter(ingested_at=None))

    def _idle_transactions(self) -> Iterator[str]:
        if connection.vendor != "postgresql":
            return
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pid, query FROM pg_stat_activity WHERE datname = current_database()"
                " AND state LIKE 'idle in transaction%%' AND state_change < clock_timestamp() - interval '5 seconds'"
            )
            yield from (f"connection {pid} is idle in a transaction: {query}" for pid, query in cursor.fetchall())


def details(runs: Iterable[str]) -> dict[str, Any]:
    """Return all that is stored of these runs, to be read by people."""
    return {
        run: {
            "run": _values(Run, id=run),
            "steps": _values(Step, run=run),
            "waits": _values(Wait, run=run),
            "attempts": _values(StepAttempt, run=run),
        }
        for run in runs
    }


def _values(model: Any, **wanted: Any) -> list[dict[str, Any]]:
    return list(model.objects.filter(**wanted).values())
