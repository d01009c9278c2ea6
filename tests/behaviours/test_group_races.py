"""Races for branches on PostgreSQL, with real threads and connections: no group waits for ever, no body runs twice."""

from __future__ import annotations

import asyncio
import datetime
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from django.test import override_settings

import django_durable as durable
from django_durable.core import clock
from django_durable.core.replay.operations import StepStatus
from django_durable.engine.leases.leases import Lease
from django_durable.engine.runs import ending, timers
from django_durable.engine.store.rows import BranchEnd, Claim, EndResult, NextClaim
from django_durable.engine.store.stores import get_store
from django_durable.engine.store.transactions import atomic
from django_durable.engine.workers.advance import advance
from django_durable.engine.workers.ingest import ingest_events
from django_durable.engine.workers.work import work
from django_durable.models import ENDED, Run, Step, StepAttempt, Wait
from tests.behaviours.racing import PATIENCE, Balance, Track, somebody_waits_for_a_lock, wait_until
from tests.engine.conftest import Engine

# 200 repetitions of several commits take their time where a disk is slow.
pytestmark = [pytest.mark.needs("postgresql"), pytest.mark.timeout(400)]

TIMES = 200
SOME = 50  #: where each repetition takes whole turns
LEASE = datetime.timedelta(seconds=15)
REHINT = datetime.timedelta(seconds=10)
DONE = BranchEnd(status=StepStatus.COMPLETED, output="1")


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


def nothing() -> None:
    """Do nothing."""


def group_of(engine: Engine, width: int, **options: Any) -> None:
    """Register a function whose runs have one group of so many branches, each of one body."""
    engine.function()(lambda event, step: step.map("work", lambda item: item, range(width), **options))


def race_of(engine: Engine, *branches: Callable[[durable.Step], Any]) -> None:
    """Register a function whose runs have one race of these branches."""
    engine.function()(lambda event, step: step.race(*[partial(each, step) for each in branches]).index)


def opened(count: int = TIMES, *, until_it_waits: bool = False) -> list[Run]:
    """Start runs with the ids 0, 1, … and take each to where its branches are planned, and no farther unless asked."""
    durable.send_events(durable.Event("test/start", {"id": number}) for number in range(count))
    list(ingest_events())
    started = list(Run.objects.filter(status="queued").order_by("id"))
    for run in started:
        if until_it_waits:
            work(None, [run.id])
            continue
        claim = get_store().claim(run.id, owner="me", lease=LEASE)
        assert claim is not None
        advance(Lease(claim, time.monotonic()))
    return started


def claimed(run: Run, owner: str = "me") -> Claim:
    """Claim the next branch of the run."""
    claim = get_store().claim_branch(run.id, owner=owner, lease=LEASE)
    assert claim is not None
    return claim


def claiming(run: Run, owner: str) -> Callable[[], Claim | None]:
    """Return a claim of any branch of the run, to be raced."""
    return partial(get_store().claim_branch, run.id, owner=owner, lease=LEASE)


def finishing(claim: Claim, **values: Any) -> Callable[[], EndResult | None]:
    """Return the end of a claimed branch, to be raced."""
    end = BranchEnd(**{"status": StepStatus.COMPLETED, "output": "1", **values})
    return partial(ending.end_branch, claim, end, None)


def status(run: Run) -> str:
    """Return the run's status as stored."""
    run.refresh_from_db()
    return run.status


def statuses(run: Run) -> dict[str, str]:
    """Return the status of each branch by its path's label."""
    branches = Step.objects.filter(run=run, kind="branch").values_list("path", "status")
    return {path.rpartition("/")[2]: status for path, status in branches}


# The end of a group


def test_no_group_waits_for_ever_because_its_last_branches_ended_together(track: Track, unhinted: Engine) -> None:
    group_of(unhinted, 2)
    last, balance = Counter[str](), Balance()
    for run in opened():
        one, other = claimed(run), claimed(run)

        ends = track.race(balance.first(finishing(one)), balance.second(finishing(other)))

        # The one that was last has the run ready in its hands.
        decided = [bool(end.ready) for end in ends]
        assert sorted(decided) == [False, True]
        last["first" if decided[0] else "second"] += 1
        balance.note(first_won=decided[1])
        assert (status(run), run.steps, run.wakes) == ("queued", 3, 1)
    assert set(last) == {"first", "second"}
    work(None)
    assert Run.objects.filter(status="completed", output="[1,1]", steps=3).count() == TIMES


def test_a_race_that_two_branches_end_together_has_one_winner(track: Track, unhinted: Engine) -> None:
    race_of(unhinted, lambda step: step.run("a", nothing), lambda step: step.run("b", nothing))
    winners, balance = Counter[int](), Balance()
    for run in opened(SOME):
        one, other = claimed(run), claimed(run)
        end = partial(finishing, race=True, prefix="race#0/")

        ends = track.race(balance.first(end(one)), balance.second(end(other)))

        (winner,) = [number for number, end in enumerate(ends) if end is not None]
        winners[winner] += 1
        balance.note(first_won=winner == 0)
        assert statuses(run) == {str(winner): "completed", str(1 - winner): "cancelled"}
        assert (status(run), run.wakes) == ("queued", 1)
    assert set(winners) == {0, 1}


def test_a_body_that_ends_while_its_race_is_decided_is_discarded_or_wins(track: Track, unhinted: Engine) -> None:
    calls = Counter[str]()
    race_of(
        unhinted,
        lambda step: step.run("a", lambda: calls.update("a")),
        lambda step: step.run("b", lambda: calls.update("b")),
    )
    won, balance = Counter[int](), Balance()
    for run in opened(SOME):
        first, second = (partial(advance, Lease(claimed(run), time.monotonic())) for _ in range(2))

        track.race(balance.first(first), balance.second(second))

        winner = Step.objects.get(run=run, kind="group").winner
        assert winner is not None
        won[winner] += 1
        balance.note(first_won=winner == 0)
        assert sorted(statuses(run).values()) == ["cancelled", "completed"]
    assert set(won) == {0, 1}
    work(None)
    assert Run.objects.filter(status="completed").count() == SOME
    # A loser's body ran at most once, and what it returned after the race was decided is kept for people only.
    assert max(calls.values()) <= SOME
    assert StepAttempt.objects.filter(status="discarded").exists()


# Claims of branches


def test_workers_that_claim_branches_each_get_another(track: Track, unhinted: Engine) -> None:
    group_of(unhinted, 3)
    for run in opened(SOME):
        claims = track.race(*[claiming(run, owner) for owner in ("one", "two", "three")])

        assert len({claim.key for claim in claims}) == 3
        assert set(statuses(run).values()) == {"running"}


def test_one_of_more_workers_than_branches_goes_away_empty(track: Track, unhinted: Engine) -> None:
    group_of(unhinted, 2)
    empty_handed = Counter[int]()
    for run in opened(SOME):
        claims = track.race(*[claiming(run, owner) for owner in ("one", "two", "three")])

        (loser,) = [number for number, claim in enumerate(claims) if claim is None]
        empty_handed[loser] += 1
        assert len({claim.key for claim in claims if claim}) == 2
    assert len(empty_handed) > 1


def test_the_next_branch_goes_to_who_ended_one_or_to_who_asks(track: Track, unhinted: Engine) -> None:
    group_of(unhinted, 2)
    takers, balance = Counter[str](), Balance()
    for run in opened(SOME):
        goes_on = partial(ending.end_branch, claimed(run), DONE, NextClaim("me", LEASE))

        end, asked = track.race(balance.first(goes_on), balance.second(claiming(run, "other")))

        assert end is not None
        assert (end.claim is None) is (asked is not None)
        takers["other" if asked else "me"] += 1
        balance.note(first_won=asked is None)
    assert set(takers) == {"me", "other"}


def test_an_end_lets_in_one_of_those_that_a_limit_holds_back(track: Track, unhinted: Engine) -> None:
    group_of(unhinted, 5, limit=2)
    for run in opened(SOME):
        one, other = claimed(run), claimed(run)

        track.race(finishing(one, limited=True), finishing(other, limited=True))

        admitted = Step.objects.filter(run=run, kind="branch", status="planned", next_at__isnull=False)
        assert sorted(admitted.values_list("ordinal", flat=True)) == [2, 3]


# Ends that meet


def test_a_run_is_cancelled_while_a_branch_ends(track: Track, unhinted: Engine) -> None:
    group_of(unhinted, 1)
    ends, balance = Counter[bool](), Balance()
    for run in opened(SOME):
        finish = finishing(claimed(run))

        end, cancelled = track.race(balance.first(finish), balance.second(partial(ending.cancel, run.id)))

        ends[end is not None] += 1
        balance.note(first_won=end is not None)
        assert (status(run), cancelled) == ("cancelled", True)
        assert statuses(run) == {"0": "completed" if end else "cancelled"}
    assert set(ends) == {True, False}


def test_a_branch_that_fails_its_run_meets_one_that_ends(track: Track, unhinted: Engine) -> None:
    group_of(unhinted, 2)
    for run in opened(SOME):
        failed = finishing(claimed(run), status=StepStatus.FAILED, output=None, error='{"type":"X","message":"no"}')

        ends = track.race(failed, finishing(claimed(run)))

        assert None not in ends
        assert sorted(statuses(run).values()) == ["completed", "failed"]
        assert status(run) == "queued"
    work(None)
    assert Run.objects.filter(status="failed").count() == SOME


# Dead workers


def test_a_dead_workers_branch_is_taken_over_by_one(track: Track, unhinted: Engine) -> None:
    group_of(unhinted, 1)
    waiting, takeovers = opened(SOME), Counter[str]()
    for run in waiting:
        claimed(run, "dead")
    clock.move(2 * LEASE)

    for run in waiting:
        claims = track.race(
            claiming(run, "one"), claiming(run, "two"), partial(get_store().expire_branches, [run.id], rehint=REHINT)
        )

        assert sum(claim is not None for claim in claims) == 1
        branch = Step.objects.get(run=run, kind="branch")
        takeovers[branch.owner] += 1
        assert (branch.status, branch.crashes) == ("running", 1)
    assert set(takeovers) == {"one", "two"}


def test_a_worker_that_comes_back_ends_its_branch_or_finds_it_taken(track: Track, unhinted: Engine) -> None:
    group_of(unhinted, 1)
    waiting, outcomes, balance = opened(SOME), Counter[bool](), Balance()
    zombies = [claimed(run, "zombie") for run in waiting]
    clock.move(2 * LEASE)

    for run, zombie in zip(waiting, zombies, strict=True):
        end, claim = track.race(balance.first(finishing(zombie)), balance.second(claiming(run, "new")))

        outcomes[end is not None] += 1
        balance.note(first_won=end is not None)
        assert (end is None) is (claim is not None)
        assert statuses(run) == {"0": "completed" if end else "running"}
    assert set(outcomes) == {True, False}


def test_an_end_that_waited_for_a_takeover_changes_nothing(track: Track, unhinted: Engine) -> None:
    group_of(unhinted, 1)
    (run,) = opened(1)
    zombie = claimed(run, "zombie")
    clock.move(2 * LEASE)
    taken = threading.Event()

    def take_over() -> None:
        with atomic():
            assert get_store().claim_branch(run.id, owner="new", lease=LEASE)
            taken.set()
            wait_until(lambda: somebody_waits_for_a_lock("transactionid"))

    def end() -> EndResult | None:
        assert taken.wait(PATIENCE)
        return finishing(zombie)()

    _, ended = track.race(take_over, end)

    assert ended is None
    assert Step.objects.get(run=run, kind="branch").owner == "new"


def test_the_body_of_a_branch_runs_again_when_its_worker_died(unhinted: Engine) -> None:
    calls = Counter[int]()
    unhinted.function()(lambda event, step: step.map("work", lambda item: calls.update([item]), range(3)))
    (run,) = opened(1)
    claimed(run, "dead")

    work(None, [run.id])
    assert (status(run), calls) == ("waiting", {1: 1, 2: 1})
    clock.move(2 * LEASE)
    unhinted.scheduler.look()
    work(None, [run.id])

    assert (status(run), calls) == ("completed", {0: 1, 1: 1, 2: 1})


# Waits in branches


def test_a_reply_to_a_branch_is_never_lost_whether_its_wait_exists_or_not(track: Track, unhinted: Engine) -> None:
    @unhinted.function()
    def fn(event: durable.Event, step: durable.Step) -> Any:
        def wait() -> Any:
            reply = step.wait_for_event("wait", "test/reply", match="data.id", timeout="1h")
            return reply and reply.data["id"]

        return step.parallel(wait)[0]

    met, balance = Counter[str](), Balance()

    def answer(number: int) -> None:
        durable.send_event("test/reply", {"id": number})
        list(ingest_events())

    for number, run in enumerate(opened(SOME)):
        lease = Lease(claimed(run), time.monotonic())

        track.race(balance.first(partial(advance, lease)), balance.second(partial(answer, number)))

        # Found by looking back, the branch went on to its end; found by ingest, it was made ready.
        (state,) = statuses(run).values()
        met[state] += 1
        balance.note(first_won=state == "planned")
        work(None, [run.id])
        assert (status(run), run.output) == ("completed", str(number))
    assert set(met) == {"completed", "planned"}
    assert not Wait.objects.exists()


def test_no_body_runs_twice_when_wake_ups_meet(track: Track, unhinted: Engine) -> None:
    calls: list[tuple[int, str, int]] = []

    @unhinted.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        def body(name: str) -> None:
            calls.append((event.data["id"], name, threading.get_ident()))

        def times_out(name: str) -> None:
            step.wait_for_event(name, "test/never", timeout="1h")
            step.run(f"after {name}", body, f"after {name}")

        def sleeps() -> None:
            step.sleep("nap", "1h")
            step.run("after the nap", body, "nap")

        step.parallel(partial(times_out, "a"), partial(times_out, "b"), sleeps)
        step.run("last", body, "last")

    waiting = opened(until_it_waits=True)
    clock.move(datetime.timedelta(hours=2))
    together = 0

    def wake_and_work(run: Run) -> None:
        timers.fire([run.id])
        work(None, [run.id])

    for number, run in enumerate(waiting):
        track.race(*[partial(wake_and_work, run)] * 3)
        work(None, [run.id])

        mine = [call for call in calls if call[0] == number]
        together += len({thread for _, _, thread in mine}) > 1
        assert sorted(name for _, name, _ in mine) == ["after a", "after b", "last", "nap"]
        assert status(run) == "completed"
    assert together > 0


def test_many_workers_on_the_groups_of_many_runs_leave_nothing_behind(track: Track, unhinted: Engine) -> None:
    calls = Counter[str]()
    lock = threading.Lock()

    def body(name: str) -> str:
        with lock:
            calls[name] += 1
        return name

    @unhinted.function()
    def fn(event: durable.Event, step: durable.Step) -> Any:
        def pair(name: str) -> Any:
            return step.parallel(lambda: step.run("x", body, f"{name}x"), lambda: step.run("y", body, f"{name}y"))

        id = event.data["id"]
        return step.parallel(lambda: pair(f"{id}a"), lambda: pair(f"{id}b"), lambda: step.run("z", body, f"{id}z"))

    waiting = [run.id for run in opened(20)]

    for _ in range(5):
        track.race(*[partial(work, None, waiting)] * 3)

    assert Run.objects.filter(status="completed").count() == 20
    assert set(calls.values()) == {1}
    assert len(calls) == 100
    assert not Step.objects.filter(kind="branch", run__status__in=ENDED).exclude(status="completed").exists()


# Async handlers, whose lines of work share one claim


def test_no_body_of_an_async_handler_runs_twice_when_wake_ups_meet(track: Track, unhinted: Engine) -> None:
    calls: list[tuple[int, str]] = []
    workers: set[int] = set()

    @unhinted.function()
    async def fn(event: durable.Event, step: durable.Step) -> None:
        async def body(name: str) -> None:
            calls.append((event.data["id"], name))

        async def times_out(name: str) -> None:
            await step.wait_for_event(name, "test/never", timeout="1h")
            await step.run(f"after {name}", body, f"after {name}")

        async def sleeps() -> None:
            await step.sleep("nap", "1h")
            await step.run("after the nap", body, "nap")

        workers.add(threading.get_ident())
        await asyncio.gather(times_out("a"), times_out("b"), sleeps())
        await step.run("last", body, "last")

    waiting = opened(SOME, until_it_waits=True)
    clock.move(datetime.timedelta(hours=2))
    workers.clear()

    def wake_and_work(run: Run) -> None:
        timers.fire([run.id])
        work(None, [run.id])

    for number, run in enumerate(waiting):
        track.race(*[partial(wake_and_work, run)] * 3)
        work(None, [run.id])

        assert sorted(name for id, name in calls if id == number) == ["after a", "after b", "last", "nap"]
        assert status(run) == "completed"
    assert len(workers) > 1


def test_a_reply_to_an_async_handler_is_never_lost_whether_its_wait_exists_or_not(
    track: Track, unhinted: Engine
) -> None:
    @unhinted.function()
    async def fn(event: durable.Event, step: durable.Step) -> Any:
        wait = step.wait_for_event("wait", "test/reply", match="data.id", timeout="1h")
        reply, _ = await asyncio.gather(wait, step.run("work", nothing))
        return reply.data["id"]

    met, balance = Counter[str](), Balance()

    def answer(number: int) -> None:
        durable.send_event("test/reply", {"id": number})
        list(ingest_events())

    durable.send_events(durable.Event("test/start", {"id": number}) for number in range(SOME))
    list(ingest_events())
    for number, run in enumerate(Run.objects.order_by("id")):
        track.race(balance.first(partial(work, None, [run.id])), balance.second(partial(answer, number)))

        met[status(run)] += 1
        balance.note(first_won=run.status == "queued")
        work(None, [run.id])
        assert (status(run), run.output) == ("completed", str(number))
    assert set(met) == {"completed", "queued"}
    assert not Wait.objects.exists()
