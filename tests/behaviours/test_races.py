"""Races on PostgreSQL, with real threads and connections: whatever the order, each thing happens exactly once."""

from __future__ import annotations

import datetime
import threading
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from django.db import connection
from django.test import override_settings

import django_durable as durable
from django_durable.core import clock
from django_durable.core.functions import registry
from django_durable.core.ids import uuid7
from django_durable.engine.events import index
from django_durable.engine.leases.leases import Lease
from django_durable.engine.runs import ending, replays, timers
from django_durable.engine.runs.ending import RunEnd
from django_durable.engine.store.rows import Claim, EndResult, Parking
from django_durable.engine.store.stores import get_store
from django_durable.engine.store.transactions import atomic
from django_durable.engine.workers.advance import advance
from django_durable.engine.workers.ingest import ingest_events
from django_durable.engine.workers.work import work
from django_durable.models import Event, EventKey, MatchPath, Run, Wait
from tests.behaviours.racing import PATIENCE, Balance, Track, somebody_waits_for_a_lock, stopping_after, wait_until
from tests.engine.conftest import Engine

# 200 repetitions of several commits take their time where a disk is slow.
pytestmark = [pytest.mark.needs("postgresql"), pytest.mark.timeout(400)]

TIMES = 200
LEASE = datetime.timedelta(seconds=15)
REHINT = datetime.timedelta(seconds=10)
SHARED_LOCK, EXCLUSIVE_LOCK = "SELECT pg_advisory_xact_lock_shared(", "SELECT pg_advisory_xact_lock("


@pytest.fixture
def unhinted(engine: Engine) -> Iterator[Engine]:
    """Give an engine where every hint is lost: the test's threads do the work."""
    with override_settings(DURABLE={"DRIVER": "tests.engine.conftest.DeafDriver"}):
        yield engine


@pytest.fixture
def track(unhinted: Engine) -> Iterator[Track]:
    """Give threads to race on, with an engine where every hint is lost."""
    track = Track()
    try:
        yield track
    finally:
        track.close()


@pytest.fixture
def plain(unhinted: Engine) -> None:
    """Register a function without steps."""
    unhinted.function()(lambda event, step: None)


@pytest.fixture
def waits_for_reply(unhinted: Engine) -> None:
    """Register a function that waits for the reply with its id and returns the number in it."""

    @unhinted.function()
    def fn(event: durable.Event, step: durable.Step) -> Any:
        reply = step.wait_for_event("wait", "test/reply", match="data.id", timeout="1h")
        return reply and reply.data["n"]


def ingest() -> int:
    """Ingest what is there; return in how many commits."""
    return len(list(ingest_events()))


def send_reply(id: int) -> str:
    """Send the reply with that id."""
    return durable.send_event("test/reply", {"id": id, "n": 7})


def started(count: int = TIMES) -> list[Run]:
    """Start runs with the ids 0, 1, … and leave them in their queue."""
    durable.send_events(durable.Event("test/start", {"id": number}) for number in range(count))
    ingest()
    return list(Run.objects.filter(status="queued").order_by("id"))


def claimed(run: Run) -> Claim:
    """Claim the run."""
    claim = get_store().claim(run.id, owner="me", lease=LEASE)
    assert claim is not None
    return claim


def turn(run: Run) -> None:
    """Claim the run and advance it, and no other."""
    advance(Lease(claimed(run), time.monotonic()))


def status(run: Run) -> str:
    """Return the run's status as stored."""
    run.refresh_from_db()
    return run.status


# A wait and its event


def test_a_reply_is_never_lost_whether_its_wait_exists_or_not(track: Track, waits_for_reply: None) -> None:
    outcomes, balance = Counter[str](), Balance()

    def answer(number: int) -> None:
        if number % 2:
            send_reply(number)
        ingest()

    for number, run in enumerate(started()):
        if not number % 2:
            send_reply(number)

        track.race(balance.first(partial(turn, run)), balance.second(partial(answer, number)))

        # Found by looking back, the turn went on; found by ingest, the run was made ready.
        outcomes[status(run)] += 1
        balance.note(first_won=status(run) == "queued")
        assert run.steps == 1
    assert set(outcomes) == {"completed", "queued"}
    assert not Wait.objects.exists()
    work(None)
    assert Run.objects.filter(status="completed", output="7", steps=1).count() == TIMES


def test_ingest_waits_for_a_wait_that_is_being_committed(track: Track, waits_for_reply: None) -> None:
    (run,) = started(1)
    looking = threading.Event()

    def blocks_ingest() -> None:
        looking.set()
        wait_until(lambda: somebody_waits_for_a_lock("advisory"))

    def register() -> None:
        with connection.execute_wrapper(stopping_after(SHARED_LOCK, blocks_ingest)):
            turn(run)

    def answer() -> None:
        assert looking.wait(PATIENCE)
        send_reply(0)
        ingest()

    track.race(register, answer)

    assert (status(run), run.steps) == ("queued", 1)
    work(None)
    assert (status(run), run.output) == ("completed", "7")


def test_a_wait_looks_back_after_the_ingest_that_it_met(track: Track, waits_for_reply: None) -> None:
    indexed, run = started(2)
    turn(indexed)
    send_reply(1)
    ingesting = threading.Event()

    def blocks_the_wait() -> None:
        ingesting.set()
        wait_until(lambda: somebody_waits_for_a_lock("advisory"))

    def answer() -> None:
        with connection.execute_wrapper(stopping_after(EXCLUSIVE_LOCK, blocks_the_wait)):
            ingest()

    def register() -> None:
        assert ingesting.wait(PATIENCE)
        turn(run)

    track.race(answer, register)

    assert (status(run), run.output) == ("completed", "7")


@pytest.mark.parametrize(("received", "output"), [(-1, "7"), (+1, "null")], ids=["in time", "too late"])
def test_a_time_out_and_an_event_settle_a_wait_once(
    track: Track, waits_for_reply: None, received: int, output: str
) -> None:
    runs = started()
    for run in runs:
        turn(run)
    clock.move(datetime.timedelta(hours=2))
    settled_in_the_race = 0

    for number, run in enumerate(runs):
        expires_at = Wait.objects.get(run=run).expires_at
        assert expires_at is not None
        at = expires_at + datetime.timedelta(seconds=received)
        data = {"id": number, "n": 7}
        Event.objects.create(id=uuid7(), name="test/reply", data=data, ts=at, received_at=at, ingest_at=at)

        track.race(partial(timers.fire, [run.id]), ingest)

        settled_in_the_race += status(run) == "queued"
        timers.fire([run.id])
        assert (status(run), run.steps, run.wakes) == ("queued", 1, 1)
    assert settled_in_the_race == TIMES
    work(None)
    assert Run.objects.filter(status="completed", output=output).count() == TIMES


# A run and its workers


def test_one_of_several_workers_claims_a_run(track: Track, plain: None) -> None:
    for run in started():
        claim = partial(get_store().claim, run.id, lease=LEASE)

        claims = track.race(partial(claim, owner="one"), partial(claim, owner="two"))

        (winner,) = filter(None, claims)
        assert (status(run), run.fence, run.owner) == ("running", 1, winner.owner)


def test_workers_that_claim_what_is_ready_each_get_another_run(track: Track, plain: None) -> None:
    started(3 * TIMES)
    claim = partial(get_store().claim_ready, None, lease=LEASE)
    taken: list[UUID] = []

    for _ in range(TIMES):
        claims = track.race(partial(claim, owner="one"), partial(claim, owner="two"), partial(claim, owner="three"))
        taken += [each.run_id for each in claims]

    assert len(set(taken)) == 3 * TIMES
    assert not Run.objects.exclude(status="running", fence=1).exists()


def test_a_hint_that_comes_before_the_commit_of_its_run_does_nothing(track: Track, plain: None) -> None:
    function = registry.get("project/fn")
    stored, hinted = threading.Event(), threading.Event()
    ids: list[UUID] = []
    assert function is not None

    def start() -> None:
        with atomic():
            ids.append(UUID(function.start().id))
            stored.set()
            assert hinted.wait(PATIENCE)

    def work_on_the_hint() -> int:
        assert stored.wait(PATIENCE)
        try:
            work("default", ids)
            return Run.objects.count()
        finally:
            hinted.set()

    assert track.race(start, work_on_the_hint) == [None, 0]

    (run,) = Run.objects.all()
    assert (run.status, run.fence) == ("queued", 0)
    work("default", ids)
    assert status(run) == "completed"


def test_a_dead_worker_is_followed_by_one(track: Track, plain: None) -> None:
    runs, store, takeovers = started(), get_store(), Counter[str]()
    for run in runs:
        claimed(run)
    clock.move(2 * LEASE)

    for run in runs:
        claims = track.race(
            partial(store.claim, run.id, owner="one", lease=LEASE),
            partial(store.claim, run.id, owner="two", lease=LEASE),
            partial(store.expire, [run.id], rehint=REHINT),
        )

        takeovers[status(run)] += 1
        assert sum(claim is not None for claim in claims) <= 1
        assert run.crashes == 1
    assert takeovers["running"] > 0


def test_a_run_is_cancelled_or_ends(track: Track, plain: None) -> None:
    cancels, balance = 0, Balance()
    for run in started():
        finish = partial(ending.end_run, claimed(run), RunEnd(run.id, "completed", output="1"))

        finished, cancelled = track.race(balance.first(finish), balance.second(partial(ending.cancel, run.id)))

        ended = finished is not None
        assert ended is not cancelled
        cancels += cancelled
        balance.note(first_won=ended)
        assert (status(run), run.fence) == ("cancelled" if cancelled else "completed", 2)
        assert (run.output, run.error is None) == ((None, False) if cancelled else ("1", True))
    assert 0 < cancels < TIMES


def test_a_run_is_cancelled_while_its_sleep_ends(track: Track, unhinted: Engine) -> None:
    unhinted.function()(lambda event, step: step.sleep("nap", "1h"))
    runs_, ends, balance = started(), Counter[str](), Balance()
    for run in runs_:
        turn(run)
    clock.move(datetime.timedelta(hours=2))

    for run in runs_:
        fire, cancel = partial(timers.fire, [run.id]), partial(ending.cancel, run.id)

        _, cancelled = track.race(balance.first(fire), balance.second(cancel))

        nap = run.step_set.get().status
        ends[nap] += 1
        balance.note(first_won=nap == "completed")
        assert (status(run), cancelled, run.next_at) == ("cancelled", True, None)
    assert set(ends) == {"completed", "waiting"}
    work(None)
    assert Run.objects.filter(status="cancelled").count() == TIMES


def test_a_wake_up_while_a_run_parks_is_not_lost(track: Track, plain: None) -> None:
    store, parked_as, balance = get_store(), Counter[str](), Balance()
    for run in started():
        park = partial(store.park, claimed(run), Parking(next_at=None, kind="event", text="x"), rehint=REHINT)
        wake = partial(store.wake, [run.id], rehint=REHINT)

        parked, _ = track.race(balance.first(park), balance.second(wake))

        parked_as[parked] += 1
        balance.note(first_won=parked == "waiting")
        assert (status(run), run.wakes) == ("queued", 1)
    assert set(parked_as) == {"queued", "waiting"}


def test_a_write_that_waited_for_a_takeover_changes_nothing(track: Track, plain: None) -> None:
    (run,), store = started(1), get_store()
    claim = claimed(run)
    clock.move(2 * LEASE)
    taken = threading.Event()

    def take_over() -> None:
        with atomic():
            assert store.claim(run.id, owner="new", lease=LEASE)
            taken.set()
            wait_until(lambda: somebody_waits_for_a_lock("transactionid"))

    def write() -> EndResult | None:
        assert taken.wait(PATIENCE)
        return store.end(claim, "completed", output="1")

    _, written = track.race(take_over, write)

    assert written is None
    assert (status(run), run.owner, run.output) == ("running", "new", None)


# Parents and children


def test_a_child_that_ends_while_its_parent_is_cancelled_blocks_nobody(track: Track, unhinted: Engine) -> None:
    child = unhinted.function("child", trigger="test/never")(lambda event, step: None)
    unhinted.function()(lambda event, step: step.invoke("child", child))
    ends, balance = Counter[bool](), Balance()

    for parent in started():
        turn(parent)
        run = Run.objects.get(parent=parent)
        finish = partial(ending.end_run, claimed(run), RunEnd(run.id, "completed", output="1"))

        finished, cancelled = track.race(balance.first(finish), balance.second(partial(ending.cancel, parent.id)))

        ended = finished is not None
        ends[ended] += 1
        balance.note(first_won=ended)
        assert (status(parent), cancelled) == ("cancelled", True)
        assert status(run) == ("completed" if ended else "cancelled")
    assert set(ends) == {True, False}


def test_a_child_that_ends_when_its_time_is_over_settles_its_step_once(track: Track, unhinted: Engine) -> None:
    child = unhinted.function("child", trigger="test/never")(lambda event, step: None)
    unhinted.function()(lambda event, step: step.invoke("child", child, timeout="1h"))
    parents, settled, balance = started(), Counter[str](), Balance()
    for parent in parents:
        turn(parent)
    children = [claimed(run) for run in Run.objects.filter(parent__isnull=False).order_by("parent_id")]
    clock.move(datetime.timedelta(hours=2))

    for parent, claim in zip(parents, children, strict=True):
        finish = partial(ending.end_run, claim, RunEnd(claim.run_id, "completed", output="1"))

        track.race(balance.first(finish), balance.second(partial(timers.fire, [parent.id])))

        end = parent.step_set.get().status
        settled[end] += 1
        balance.note(first_won=end == "completed")
        assert (status(parent), parent.steps, parent.wakes) == ("queued", 1, 1)
    assert set(settled) == {"completed", "failed"}


def test_a_replay_that_two_ask_for_at_once_is_one_run(track: Track, plain: None) -> None:
    (run,) = started(1)
    turn(run)
    for number in range(TIMES // 4):
        replay = partial(replays.replay, run.id, once=uuid7())

        one, two = track.race(replay, replay)

        assert one == two
        assert Run.objects.filter(replay_of=run).count() == number + 1


# Ingest


def test_no_event_is_left_by_ingests_that_meet(track: Track, plain: None) -> None:
    refused = 0

    def send_and_ingest() -> int:
        durable.send_event("test/start")
        return ingest()

    for _ in range(TIMES):
        commits = track.race(send_and_ingest, send_and_ingest)

        refused += 0 in commits
        assert not Event.objects.filter(ingested_at=None).exists()
    assert Run.objects.count() == 2 * TIMES
    assert refused > 0


def test_an_event_of_somebody_refused_is_ingested_by_the_one_at_work(track: Track, plain: None) -> None:
    at_work, refused = threading.Event(), threading.Event()

    def hold() -> None:
        at_work.set()
        assert refused.wait(PATIENCE)

    def first() -> int:
        durable.send_event("test/start")
        with connection.execute_wrapper(stopping_after(EXCLUSIVE_LOCK, hold)):
            return ingest()

    def second() -> int:
        assert at_work.wait(PATIENCE)
        durable.send_event("test/start")
        try:
            return ingest()
        finally:
            refused.set()

    assert track.race(first, second) == [2, 0]

    assert Run.objects.count() == 2


def test_ingests_that_meet_start_each_run_once(track: Track, plain: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django_durable.engine.workers.ingest.BATCH", 2)
    for number in range(TIMES // 10):
        durable.send_events(durable.Event("test/start") for _ in range(10))

        track.race(ingest, ingest, ingest)

        assert Run.objects.count() == 10 * (number + 1)
        assert not Event.objects.filter(ingested_at=None).exists()


def test_an_idempotency_key_that_two_send_at_once_is_one_event(track: Track) -> None:
    for number in range(TIMES):
        send = partial(durable.send_event, "test/start", id=str(number))

        one, two = track.race(send, send)

        assert one == two
    assert Event.objects.count() == TIMES


def test_waits_that_meet_on_a_new_path_index_it_together(track: Track) -> None:
    durable.send_events(durable.Event("test/reply", {"id": number}) for number in range(3))
    ingest()
    for number in range(TIMES // 4):
        index._backfilled.clear()
        MatchPath.objects.all().delete()
        prepare = partial(index.prepare_paths, ["test/reply"], "data.id")

        track.race(prepare, prepare, partial(send_reply, number))
        ingest()

        assert MatchPath.objects.get().backfilled_at is not None
        assert EventKey.objects.count() == 4 + number
