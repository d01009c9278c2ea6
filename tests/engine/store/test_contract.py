"""The contract of the stores: the table of transitions in engine/store/base.py, row by row, on both implementations."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from django.db import IntegrityError, connections, transaction
from django.test.utils import CaptureQueriesContext

from django_durable.core import clock
from django_durable.core.ids import uuid7
from django_durable.core.replay.operations import StepKind, StepStatus
from django_durable.engine.store.contract import Store
from django_durable.engine.store.rows import (
    LONGEST_TEXT,
    STOPPING,
    AttemptRow,
    Claim,
    Parking,
    ReadyRun,
    Resolution,
    WaitRow,
)
from django_durable.engine.store.stored_events import event_row
from django_durable.managers import DatabaseNow
from django_durable.models import Event, Run, Step, StepAttempt, Wait

from .conftest import (
    LEASE,
    REHINT,
    STATES,
    claim_of,
    columns,
    in_seconds,
    key,
    make_function,
    make_run,
    make_step,
    step_row,
)

AFTER = datetime.timedelta(seconds=300)
RUNNING = {"live", "dead"}
QUEUED = {"queued", "held", "not ready yet"}
UNFINISHED = RUNNING | QUEUED | {"waiting"}
OPEN = ("open", "waiting", None)

Row = dict[str, Any]


def failed_attempt(**values: Any) -> AttemptRow:
    """Return an attempt that failed."""
    row: Row = {"key": key("s"), "name": "s", "number": 1, "status": "failed", "error": "{}", **values}
    return AttemptRow(started_at=clock.now(), finished_at=clock.now(), **row)


def parking(**values: Any) -> Parking:
    """Return how a run parks for an event, after an attempt that failed."""
    wait = WaitRow(key=key("w"), kind="event", name="a/c", match_key=bytes(16), created_at=clock.now())
    step = step_row("w", StepStatus.WAITING, kind=StepKind.WAIT)
    row: Row = {
        "kind": "event",
        "text": "a/c",
        "attempt": 4,
        "steps": [step],
        "waits": [wait],
        "failed": failed_attempt(),
    }
    return Parking(**{"next_at": in_seconds(700), **row, **values})


def _claimed(row: Row) -> Row:
    crashes = row["crashes"] + (row["status"] == "running")
    taken = {"status": "running", "fence": 8, "next_at": 100, "ready_at": None, "owner": "me", "crashes": crashes}
    return taken | {"waiting_kind": "", "waiting_for": ""}


def _woken(row: Row) -> Row:
    return {"wakes": 4} | ({"status": "queued", "ready_at": 0, "next_at": 1000} if row["status"] == "waiting" else {})


def _resolved(row: Row) -> Row:
    return _woken(row) | {"steps": 6, "attempt": 0, "waits": 0, "memos": [("open", "completed", 6)]}


def _recorded(row: Row) -> Row:
    next_at = 500 if row["next_at"] == 500 else 100
    memos = [OPEN, ("s", "completed", 6)]
    return {"steps": 6, "attempt": 0, "crashes": 0, "next_at": next_at, "memos": memos, "attempts": 1}


def _parked(row: Row) -> Row:
    written = {"attempt": 4, "crashes": 0, "owner": "", "memos": [OPEN, ("w", "waiting", None)], "waits": 2}
    row = {"status": "waiting", "next_at": 700, "waiting_kind": "event", "waiting_for": "a/c", "attempts": 1}
    return row | written


def _released(row: Row) -> Row:
    return {"status": "queued", "ready_at": 300, "next_at": 1300, "owner": ""}


def _expired(row: Row) -> Row:
    return {"status": "queued", "fence": 8, "crashes": 3, "ready_at": 2000, "next_at": 2000, "owner": ""}


def _ended(row: Row) -> Row:
    gone = {"next_at": None, "ready_at": None, "held_by": None, "owner": "", "waiting_kind": "", "waiting_for": ""}
    return gone | {"status": "completed", "fence": 8, "finished_at": 0, "waits": 0, "output": "2", "error": None}


def _cancelled(row: Row) -> Row:
    return _ended(row) | {"status": "cancelled", "output": None, "error": '"why"'}


@dataclass(frozen=True)
class Transition:
    """What an operation does to rows: which states it changes, and how; fenced ones need the right fence, too."""

    do: Callable[[Store, Claim], object]
    of: set[str]
    effect: Callable[[Row], Row]
    fenced: bool = False


TRANSITIONS = {
    "claim": Transition(lambda s, c: s.claim(c.run_id, owner="me", lease=LEASE), {"queued", "dead"}, _claimed),
    "claim_ready": Transition(lambda s, c: s.claim_ready(None, owner="me", lease=LEASE), {"queued"}, _claimed),
    "claim_ready of a queue": Transition(
        lambda s, c: s.claim_ready("default", owner="me", lease=LEASE), {"queued"}, _claimed
    ),
    "claim_ready of another queue": Transition(
        lambda s, c: s.claim_ready("other", owner="me", lease=LEASE), set(), _claimed
    ),
    "wake": Transition(lambda s, c: s.wake([c.run_id], rehint=REHINT), UNFINISHED, _woken),
    "resolve": Transition(
        lambda s, c: s.resolve([Resolution(run_id=c.run_id, key=key("open"))], rehint=REHINT), UNFINISHED, _resolved
    ),
    "record": Transition(
        lambda s, c: s.record(c, step_row("s"), lease=LEASE, failed=failed_attempt()), RUNNING, _recorded, fenced=True
    ),
    "park": Transition(lambda s, c: s.park(c, parking(), rehint=REHINT), RUNNING, _parked, fenced=True),
    "release": Transition(lambda s, c: s.release(c, after=AFTER, rehint=REHINT), RUNNING, _released, fenced=True),
    "expire": Transition(lambda s, c: s.expire([c.run_id], rehint=REHINT), {"dead"}, _expired),
    "forgive": Transition(
        lambda s, c: s.forgive(dataclasses.replace(c, fence=6)), UNFINISHED, lambda row: {"crashes": 1}
    ),
    "forgive what was not taken over": Transition(lambda s, c: s.forgive(c), set(), lambda row: {}),
    "mark_stopping": Transition(lambda s, c: s.mark_stopping([c]), RUNNING, lambda row: {"owner": f"worker{STOPPING}"}),
    "end": Transition(lambda s, c: s.end(c, "completed", output="2"), RUNNING, _ended, fenced=True),
    "cancel": Transition(lambda s, c: s.cancel(s.lock([c.run_id]), '"why"'), UNFINISHED, _cancelled),
    "renew": Transition(lambda s, c: s.renew([c], lease=LEASE), RUNNING, lambda row: {"next_at": 100}, fenced=True),
    "put_off": Transition(lambda s, c: s.put_off([c.run_id], by=AFTER), {"waiting"}, lambda row: {"next_at": 300}),
    "hint_later": Transition(
        lambda s, c: s.hint_later([c.run_id], rehint=REHINT), QUEUED, lambda row: {"next_at": 1000}
    ),
}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("operation", TRANSITIONS)
def test_an_operation_changes_rows_as_the_table_says_and_no_others(store: Store, operation: str, state: str) -> None:
    run = make_run(state)
    before = columns(run)
    transition = TRANSITIONS[operation]

    transition.do(store, claim_of(run))

    assert columns(run) == (before | transition.effect(before) if state in transition.of else before)


@pytest.mark.parametrize("fence", [6, 8])
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("operation", [name for name, each in TRANSITIONS.items() if each.fenced])
def test_a_write_of_a_turn_with_another_fence_changes_nothing(
    store: Store, operation: str, state: str, fence: int
) -> None:
    run = make_run(state)
    before = columns(run)

    assert not TRANSITIONS[operation].do(store, claim_of(run, fence=fence))

    assert columns(run) == before


# Claims


def test_a_claim_tells_all_that_a_turn_needs(store: Store) -> None:
    event = make_event()
    run = make_run("queued", event=event, input="{}", depth=2, priority=1, parent_key=key("p"))

    claim = store.claim(run.id, owner="me", lease=LEASE)

    assert claim is not None
    assert abs(claim.now - clock.now()) < datetime.timedelta(seconds=5)
    run.refresh_from_db()
    assert claim == claim_of(run, now=claim.now, event=claim.event)
    assert claim.event is not None
    assert (claim.event.id, claim.event.data, claim.event.user) == (event.id, {"a": [1, None]}, {"id": 7})


def test_the_first_claim_of_a_run_says_when_it_started(store: Store) -> None:
    run = make_run("queued", started_at=None)

    store.claim(run.id, owner="me", lease=LEASE)

    assert columns(run)["started_at"] == 0


def test_runs_are_claimed_in_the_order_in_which_they_became_ready_then_of_their_ids(store: Store) -> None:
    at = clock.now() - datetime.timedelta(seconds=60)
    last, second = make_run(), make_run()
    first, third = make_run(ready_at=-200), make_run()
    Run.objects.filter(id__in=[second.id, third.id]).update(ready_at=at)
    Run.objects.filter(id=last.id).update(ready_at=at + datetime.timedelta(seconds=1))

    claims = [store.claim_ready(None, owner="me", lease=LEASE) for _ in range(5)]

    assert [claim and claim.run_id for claim in claims] == [first.id, second.id, third.id, last.id, None]


def test_a_queue_is_claimed_from_on_its_own(store: Store) -> None:
    make_run(ready_at=-900, queue="slow")
    fast = make_run(queue="fast")

    claim = store.claim_ready("fast", owner="me", lease=LEASE)

    assert claim is not None
    assert claim.run_id == fast.id


@pytest.mark.parametrize(("state", "ready"), [(state, state == "queued") for state in STATES])
def test_only_a_run_that_could_be_claimed_counts_as_ready(store: Store, state: str, ready: bool) -> None:
    make_run(state)

    assert (store.has_ready(None), store.has_ready("default"), store.has_ready("other")) == (ready, ready, False)


@pytest.mark.parametrize(("crashes", "pause"), [(0, 0), (1, 1000), (4, 4000), (5, 5000), (9, 5000)])
def test_a_run_that_goes_on_to_crash_starts_later_each_time(store: Store, crashes: int, pause: int) -> None:
    run = make_run("dead", crashes=crashes)

    store.expire([run.id], rehint=REHINT)

    row = columns(run)
    assert (row["crashes"], row["ready_at"], row["next_at"]) == (crashes + 1, pause, pause or 1000)


@pytest.mark.parametrize("take", [lambda s, run: s.expire([run.id], rehint=REHINT), lambda s, run: claim(s, run)])
def test_the_death_of_a_worker_that_was_told_to_stop_is_no_crash(store: Store, take: Callable[..., Any]) -> None:
    run = make_run("dead", crashes=3, owner=f"worker{STOPPING}")

    take(store, run)

    row = columns(run)
    assert (row["crashes"], row["fence"], row["ready_at"] or 0) == (3, 8, 0)


def test_only_what_the_stopping_worker_holds_is_marked(store: Store) -> None:
    mine, others = make_run("live"), make_run("live", owner="other")

    store.mark_stopping([claim_of(mine), claim_of(others, owner="worker")])

    assert (columns(mine)["owner"], columns(others)["owner"]) == (f"worker{STOPPING}", "other")


def claim(store: Store, run: Run) -> Claim | None:
    """Claim the run."""
    return store.claim(run.id, owner="me", lease=LEASE)


def test_a_taken_over_run_refuses_its_old_owner(store: Store) -> None:
    run = make_run("dead")
    old = claim_of(run)
    new = store.claim(run.id, owner="new", lease=LEASE)
    assert new is not None

    assert not store.record(old, step_row("s"), lease=LEASE)
    assert store.record(new, step_row("s"), lease=LEASE)


# Writes of a turn


def test_memos_come_back_as_they_were_written(store: Store) -> None:
    run = make_run("live")
    event, at = make_event(), clock.now().replace(microsecond=123456)
    text = '"\\u0000 é \\ud800"'
    store.record(claim_of(run), step_row("s", output=text, event_id=event.id, finished_at=at, attempt=2), lease=LEASE)
    store.record(claim_of(run), step_row("f", StepStatus.FAILED, error="{}", finished_at=at), lease=LEASE)

    memos = {memo.name: memo for memo in store.memos(claim_of(run))}

    assert (memos["s"].output, memos["s"].finished_at, memos["s"].attempt) == (text, at, 2)
    assert memos["s"].event is not None
    assert (memos["s"].event.id, memos["s"].event.data) == (str(event.id), {"a": [1, None]})
    assert (memos["f"].status, memos["f"].error, memos["f"].kind) == (StepStatus.FAILED, "{}", StepKind.RUN)
    assert (memos["open"].status, memos["open"].settled, memos["open"].kind) == ("waiting", False, StepKind.WAIT)


def test_a_memo_is_never_overwritten(store: Store) -> None:
    run = make_run("live")
    store.record(claim_of(run), step_row("s", output="1"), lease=LEASE)

    store.record(claim_of(run), step_row("s", StepStatus.FAILED, output="2", error="{}"), lease=LEASE)

    step = Step.objects.get(run=run, name="s")
    assert (step.status, step.output, step.error, step.seq) == ("completed", "1", None, 6)


def test_recording_an_open_step_settles_its_row(store: Store) -> None:
    run = make_run("live")
    planned = Step.objects.get(run=run, name="open").planned_at

    store.record(claim_of(run), step_row("open", kind=StepKind.WAIT, output="1"), lease=LEASE)

    step = Step.objects.get(run=run, name="open")
    assert (step.status, step.output, step.seq, step.planned_at) == ("completed", "1", 6, planned)


@pytest.mark.parametrize(("left", "after"), [(40, 100), (60, 60)])
def test_recording_renews_the_lease_only_when_less_than_half_is_left(store: Store, left: int, after: int) -> None:
    run = make_run("live", next_at=left)

    store.record(claim_of(run), step_row("s"), lease=LEASE)

    assert columns(run)["next_at"] == after


def test_a_record_of_unknown_outcome_can_be_looked_up_while_the_claim_holds(store: Store) -> None:
    run = make_run("live")
    claim = claim_of(run)
    assert not store.recorded_as(claim, key("s"))
    assert not store.recorded_as(claim, key("open"))

    store.record(claim, step_row("s"), lease=LEASE)

    assert store.recorded_as(claim, key("s"))
    store.expire([run.id], rehint=REHINT)
    assert store.recorded_as(claim, key("s"))
    store.end(claim, "completed")
    assert not store.recorded_as(claim, key("s"))


def test_a_run_woken_since_its_claim_goes_back_to_its_queue_when_it_parks(store: Store) -> None:
    run = make_run("queued")
    claim = store.claim(run.id, owner="me", lease=LEASE)
    assert claim is not None
    store.wake([run.id], rehint=REHINT)

    assert store.park(claim, parking(), rehint=REHINT) == "queued"

    row = columns(run)
    assert (row["status"], row["ready_at"], row["next_at"], row["waits"]) == ("queued", 0, 1000, 2)


def test_a_run_woken_before_its_claim_waits_when_it_parks(store: Store) -> None:
    run = make_run("queued")
    store.wake([run.id], rehint=REHINT)
    claim = store.claim(run.id, owner="me", lease=LEASE)
    assert claim is not None

    assert store.park(claim, parking(), rehint=REHINT) == "waiting"


def test_a_run_parks_without_alarm_and_without_rows(store: Store) -> None:
    run = make_run("live")

    store.park(claim_of(run), Parking(next_at=None, kind="code", text="x" * 2000), rehint=REHINT)

    row = columns(run)
    assert (row["status"], row["next_at"], row["memos"], row["attempts"]) == ("waiting", None, [OPEN], 0)
    assert row["waiting_for"] == "x" * LONGEST_TEXT


def test_parking_again_for_an_open_step_changes_its_row(store: Store) -> None:
    run = make_run("live")

    store.park(claim_of(run), parking(waits=[], steps=[step_row("open", StepStatus.WAITING, attempt=3)]), rehint=REHINT)

    assert Step.objects.get(run=run, name="open").attempt == 3


def test_an_attempt_is_kept_whoever_owns_the_run(store: Store) -> None:
    run = make_run("completed")

    store.keep_attempt(claim_of(run, owner="late"), failed_attempt(status="discarded", output="1"))

    kept = StepAttempt.objects.get(run=run)
    assert (kept.status, kept.owner, kept.output, kept.name) == ("discarded", "late", "1", "s")


def test_renewing_skips_leases_that_were_lost(store: Store) -> None:
    held, lost, parked = make_run("live"), make_run("live"), make_run("waiting")

    claims = [claim_of(held, fence=7), claim_of(lost, fence=6), claim_of(parked, fence=7)]

    assert store.renew(claims, lease=LEASE) == claims[:1]
    assert [columns(run)["next_at"] for run in (held, lost, parked)] == [100, 500, 500]


# Changes from outside


def test_several_steps_of_a_run_are_numbered_in_the_order_given_and_wake_it_once(store: Store) -> None:
    run, other = make_run("waiting"), make_run("waiting")
    make_step(run, "second")
    given = [(run, "second"), (other, "open"), (run, "open")]

    ready = store.resolve([Resolution(run_id=each.id, key=key(name)) for each, name in given], rehint=REHINT)

    row = columns(run)
    assert (row["memos"], row["steps"], row["wakes"]) == ([("open", "completed", 7), ("second", "completed", 6)], 7, 4)
    assert columns(other)["memos"] == [("open", "completed", 6)]
    assert sorted(each.run_id for each in ready) == sorted([run.id, other.id])


def test_a_settled_step_stays_as_it_is_and_wakes_nobody(store: Store) -> None:
    run = make_run("waiting")
    event = make_event()
    store.resolve([Resolution(run_id=run.id, key=key("open"), event_id=event.id, output="1")], rehint=REHINT)
    before = columns(run)

    again = Resolution(run_id=run.id, key=key("open"), status=StepStatus.FAILED, error="{}")

    assert store.resolve([again], rehint=REHINT) == []
    assert columns(run) == before
    step = Step.objects.get(run=run, name="open")
    assert (step.output, step.error, step.event_id, step.finished_at is None) == ("1", None, event.id, False)


def test_only_runs_that_became_ready_are_named(store: Store) -> None:
    waiting, others = make_run("waiting", queue="slow"), [make_run("queued"), make_run("live"), make_run("failed")]
    runs = [waiting, *others]

    ready = store.resolve([Resolution(run_id=run.id, key=key("open")) for run in runs], rehint=REHINT)

    assert ready == [ReadyRun(waiting.id, "slow")]


def test_waking_names_only_runs_that_became_ready(store: Store) -> None:
    waiting, others = make_run("waiting", queue="slow"), [make_run("queued"), make_run("live"), make_run("failed")]

    ready = store.wake([waiting.id, waiting.id, *(run.id for run in others)], rehint=REHINT)

    assert ready == [ReadyRun(waiting.id, "slow")]
    assert columns(waiting)["wakes"] == 4


def test_runs_that_ended_are_not_given_to_who_locks_them(store: Store) -> None:
    runs = {state: make_run(state) for state in STATES}

    locked = store.lock([run.id for run in runs.values()])

    assert set(locked) == {run.id for state, run in runs.items() if state in UNFINISHED}


@pytest.mark.parametrize(("waited", "pause"), [(10, 1000), (3_000, 3_000), (1_000_000, 60_000)])
def test_a_run_is_hinted_again_after_as_long_as_it_waited_already(store: Store, waited: int, pause: int) -> None:
    run = make_run("queued", ready_at=-waited)

    store.hint_later([run.id], rehint=REHINT)

    assert columns(run)["next_at"] == pause


def test_of_many_runs_one_look_tells_which_could_be_claimed(store: Store) -> None:
    runs = {state: make_run(state) for state in STATES}
    with_branch, dead_branch, waiting_branch = (make_run("waiting") for _ in range(3))
    make_step(with_branch, "b", kind="branch", status="planned", next_at=in_seconds(60))
    make_step(dead_branch, "b", kind="branch", status="running", next_at=in_seconds(-1))
    make_step(waiting_branch, "b", kind="branch", status="waiting", next_at=in_seconds(60))
    all_ids = [run.id for run in (*runs.values(), with_branch, dead_branch, waiting_branch)]

    with CaptureQueriesContext(connections[store.alias]) as captured:
        found = store.claimable(all_ids)

    claimed = {state for state, run in runs.items() if store.claim(run.id, owner="me", lease=LEASE)}
    assert claimed == {"queued", "dead"}
    assert found == [run.id for state, run in runs.items() if state in claimed] + [with_branch.id, dead_branch.id]
    assert len(captured) == 1


def test_many_runs_cost_no_more_statements_to_hint_again(store: Store) -> None:
    counts = []
    for size in (1, 50):
        runs = [make_run("queued") for _ in range(size)]
        with CaptureQueriesContext(connections[store.alias]) as captured:
            store.hint_later([run.id for run in runs], rehint=REHINT)
        counts.append(len(captured))

    assert counts[0] == counts[1]


def test_the_moments_of_ingest_are_stored_to_the_microsecond(store: Store) -> None:
    at = clock.now().replace(microsecond=123457)
    batch = [make_event(), make_event()]
    for position, event in enumerate(batch):
        event.ingested_at = at + datetime.timedelta(microseconds=position)

    store.store_ingested([event_row(event) for event in batch], [])

    assert [Event.objects.get(id=event.id).ingested_at for event in batch] == [event.ingested_at for event in batch]


@pytest.mark.parametrize("count", [1, 3])
def test_runs_that_events_start_are_stored_where_nothing_started_them_yet(store: Store, count: int) -> None:
    event = make_event()
    old = new_run_of(event, 0)
    store.insert(old)
    runs = [new_run_of(event, number) for number in range(count)]

    new = store.store_ingested([event_row(event)], runs)

    assert set(new) == {run.id for run in runs[1:]}
    assert all(abs(now - clock.now()) < datetime.timedelta(seconds=1) for now in new.values())
    assert set(Run.objects.values_list("id", flat=True)) == {old.id, *new}


def new_run_of(event: Event, number: int) -> Run:
    """Return a run that is not stored, with the start key of that number."""
    moments = {"created_at": DatabaseNow(), "ready_at": DatabaseNow(), "next_at": DatabaseNow(REHINT)}
    return Run(function=make_function(), queue="default", event=event, start_key=bytes([number] * 16), **moments)


def test_a_row_is_inserted_as_the_orm_would(store: Store) -> None:
    event = Event(name="a/b", data={"a": [1, None]}, user={"id": 7}, ts=clock.now(), v="1", received_at=DatabaseNow())
    event.ingest_at = DatabaseNow(REHINT)

    store.insert(event)

    stored = Event.objects.get()
    assert (stored.id, stored.name, stored.data, stored.user, stored.v) == (
        event.id,
        "a/b",
        event.data,
        event.user,
        "1",
    )
    assert abs(stored.ingest_at - stored.received_at - REHINT) < datetime.timedelta(seconds=1)
    assert (stored.ts, stored.source, stored.ingested_at) == (event.ts, "api", None)


def test_the_database_itself_refuses_a_second_memo(store: Store) -> None:
    run = make_run("live")

    with pytest.raises(IntegrityError), transaction.atomic():
        make_step(run, "open")


def test_ending_a_run_leaves_the_waits_of_others(store: Store) -> None:
    ended, other = make_run("live"), make_run("waiting")

    store.end(claim_of(ended), "completed")

    assert list(Wait.objects.values_list("run_id", flat=True)) == [other.id]


def make_event() -> Event:
    """Store an event that waits for ingest."""
    values = {"ts": clock.now(), "received_at": clock.now(), "ingest_at": clock.now()}
    return Event.objects.create(id=uuid7(), name="a/b", data={"a": [1, None]}, user={"id": 7}, **values)
