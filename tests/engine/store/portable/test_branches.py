"""Branches: the table of them in engine/store/contract.py, row by row, on each implementation."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Callable
from typing import Any

import pytest

from django_durable.core import clock
from django_durable.core.replay.groups import branch_key, groups_around, scopes_of
from django_durable.core.replay.operations import StepKind, StepStatus, step_key
from django_durable.engine.store.contract import Store
from django_durable.engine.store.rows import (
    STOPPING,
    AttemptRow,
    BranchEnd,
    Claim,
    NextClaim,
    Parking,
    Resolution,
    WaitRow,
)
from django_durable.models import ENDED, Run, Step, StepAttempt, Wait

from ..conftest import LEASE, REHINT, claim_of, in_seconds, make_run, step_row

GROUP = step_key("", "g", 0)
AFTER = datetime.timedelta(seconds=300)
DONE = BranchEnd(status=StepStatus.COMPLETED, output="1", prefix="g#0/")

#: Moments are seconds from now.
STATES: dict[str, dict[str, Any]] = {
    "planned": {"status": "planned", "next_at": 1000},
    "held": {"status": "planned", "next_at": None},
    "live": {"status": "running", "next_at": 60, "owner": "worker"},
    "dead": {"status": "running", "next_at": -50, "owner": "worker"},
    "waiting": {"status": "waiting", "next_at": 700},
    "completed": {"status": "completed", "seq": 1, "finished_at": -50},
    "failed": {"status": "failed", "seq": 1, "finished_at": -50},
    "cancelled": {"status": "cancelled"},
}
RUNNING = {"live", "dead"}
OPEN = {"planned", "held", "waiting"} | RUNNING

Row = dict[str, Any]


def make_group(*states: str, run: Run | None = None, scope: str = "", name: str = "g") -> Run:
    """Store a group, in the handler or a branch of it, with a branch in each of these states."""
    run = run or make_run("waiting", next_at=None)
    opened = sum(state in OPEN for state in states)
    row = {"run": run, "planned_at": clock.now(), "parent_key": branch_key(scope) if scope else None, "branch": scope}
    Step.objects.create(key=step_key(scope, name, 0), name=name, kind="group", status="waiting", open=opened, **row)
    for index, state in enumerate(states):
        path = f"{scope}>{name}#0/{index}" if scope else f"{name}#0/{index}"
        values = {"fence": 7, "crashes": 2, "attempt": 1, **STATES[state]}
        values |= {key: in_seconds(value) for key, value in values.items() if key.endswith("_at")}
        shared = row | {"parent_key": step_key(scope, name, 0), "path": path}
        Step.objects.create(key=branch_key(path), name=name, ordinal=index, kind="branch", **shared | values)
    return run


def branch(run: Run, index: int = 0) -> Step:
    """Return a branch of the group as stored."""
    return Step.objects.get(run=run, key=branch_key(f"g#0/{index}"))


def held(run: Run, index: int = 0, **values: Any) -> Claim:
    """Return the claim that holds the branch, with other *values* if it is stale."""
    row = branch(run, index)
    ours = {"key": row.key, "path": row.path, "fence": row.fence, "attempt": row.attempt, "crashes": row.crashes}
    return claim_of(run, **{**ours, **values})


def columns(run: Run, index: int = 0) -> Row:
    """Return a branch as stored; moments as seconds from now, to the nearest 10."""
    row = branch(run, index)
    alarm = None if row.next_at is None else round((row.next_at - clock.now()).total_seconds() / 10) * 10
    names = ("status", "fence", "owner", "crashes", "attempt", "output", "error", "seq")
    return {name: getattr(row, name) for name in names} | {"next_at": alarm, "ended": row.finished_at is not None}


def parking(index: int = 0) -> Parking:
    """Return how a branch parks for an event."""
    path = f"g#0/{index}"
    key = step_key(path, "w", 0)
    wait = WaitRow(key=key, kind="event", name="a/c", match_key=bytes(16), created_at=clock.now())
    row = step_row("w", StepStatus.WAITING, kind=StepKind.WAIT, branch=path, parent_key=branch_key(path))
    step = dataclasses.replace(row, key=key)
    return Parking(next_at=in_seconds(700), kind="event", text="a/c", attempt=4, steps=[step], waits=[wait])


def _claimed(row: Row) -> Row:
    taken = {"status": "running", "fence": 8, "next_at": 100, "owner": "me"}
    return taken | {"crashes": row["crashes"] + (row["status"] == "running")}


def _recorded(row: Row) -> Row:
    return {"attempt": 0, "crashes": 0, "next_at": 60 if row["next_at"] == 60 else 100}


def _ended(row: Row) -> Row:
    end = {"status": "completed", "output": "1", "seq": 6, "attempt": 0, "crashes": 0, "next_at": None}
    return end | {"owner": "", "ended": True}


TRANSITIONS: dict[str, tuple[Callable[[Store, Claim], Any], set[str], Callable[[Row], Row]]] = {
    "claim": (
        lambda s, c: s.claim_branch(c.run_id, owner="me", lease=LEASE),
        {"planned", "dead"},
        _claimed,
    ),
    "claim in its group": (
        lambda s, c: s.claim_branch(c.run_id, owner="me", lease=LEASE, group=GROUP),
        {"planned", "dead"},
        _claimed,
    ),
    "claim in another group": (
        lambda s, c: s.claim_branch(c.run_id, owner="me", lease=LEASE, group=bytes(16)),
        set(),
        _claimed,
    ),
    "record": (lambda s, c: s.record(c, step_row("s", branch=c.path), lease=LEASE), RUNNING, _recorded),
    "park": (
        lambda s, c: s.park(c, parking(), rehint=REHINT),
        RUNNING,
        lambda row: {"status": "waiting", "next_at": 700, "attempt": 4, "crashes": 0, "owner": ""},
    ),
    "release": (
        lambda s, c: s.release(c, after=datetime.timedelta(), rehint=REHINT),
        RUNNING,
        lambda row: {"status": "planned", "next_at": 1000, "owner": ""},
    ),
    "release for later": (
        lambda s, c: s.release(c, after=AFTER, rehint=REHINT),
        RUNNING,
        lambda row: {"status": "waiting", "next_at": 300, "owner": ""},
    ),
    "end": (lambda s, c: s.end_branch(c, DONE, rehint=REHINT), RUNNING, _ended),
    "renew": (lambda s, c: s.renew([c], lease=LEASE), RUNNING, lambda row: {"next_at": 100}),
    "wake": (
        lambda s, c: s.wake_branches([(c.run_id, c.key or b"")], rehint=REHINT),
        {"waiting"},
        lambda row: {"status": "planned", "next_at": 1000},
    ),
    "expire": (
        lambda s, c: s.expire_branches([c.run_id], rehint=REHINT),
        {"dead"},
        lambda row: {"status": "waiting", "fence": 8, "crashes": 3, "owner": "", "next_at": 2000},
    ),
    "forgive": (lambda s, c: s.forgive(dataclasses.replace(c, fence=6)), OPEN, lambda row: {"crashes": 1}),
    "mark_stopping": (
        lambda s, c: s.mark_stopping([dataclasses.replace(c, owner="worker")]),
        RUNNING,
        lambda row: {"owner": f"worker{STOPPING}"},
    ),
    "close": (
        lambda s, c: s.close_branches([c.run_id]),
        OPEN,
        lambda row: {"status": "cancelled", "fence": 8, "next_at": None, "owner": ""},
    ),
}
FENCED = ("record", "park", "release", "release for later", "end", "renew")


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("operation", TRANSITIONS)
def test_an_operation_changes_a_branch_as_the_table_says(store: Store, operation: str, state: str) -> None:
    run = make_group(state, "waiting")
    do, states, effect = TRANSITIONS[operation]
    before, other = columns(run), columns(run, 1)

    do(store, held(run))

    assert columns(run) == before | (effect(before) if state in states else {})
    if operation not in ("close",):
        assert columns(run, 1) == other


@pytest.mark.parametrize(
    ("values", "after"),
    [
        ({"crashes": 0}, {"status": "planned", "crashes": 1, "next_at": 1000}),
        ({"crashes": 3, "owner": f"worker{STOPPING}"}, {"status": "planned", "crashes": 3, "next_at": 1000}),
    ],
)
def test_a_first_crash_and_the_death_of_a_worker_that_was_told_to_stop_cost_a_branch_no_time(
    store: Store, values: Row, after: Row
) -> None:
    run = make_group("dead")
    Step.objects.filter(run=run, kind="branch").update(**values)

    store.expire_branches([run.id], rehint=REHINT)

    assert columns(run).items() >= after.items()


@pytest.mark.parametrize("state", sorted(RUNNING))
@pytest.mark.parametrize("operation", FENCED)
def test_a_stale_owner_of_a_branch_changes_nothing(store: Store, operation: str, state: str) -> None:
    run = make_group(state, "waiting")
    before, steps = columns(run), run.steps

    assert not TRANSITIONS[operation][0](store, held(run, fence=6))

    run.refresh_from_db()
    assert (columns(run), run.steps, Step.objects.filter(run=run, name__in=("s", "w")).count()) == (before, steps, 0)


@pytest.mark.parametrize("ended", ENDED)
@pytest.mark.parametrize("operation", ["claim", "record", "park", "end"])
def test_nothing_is_done_in_a_branch_of_a_run_that_ended(store: Store, operation: str, ended: str) -> None:
    run = make_group("planned" if operation == "claim" else "live", "waiting")
    before = columns(run)
    Run.objects.filter(id=run.id).update(status=ended, finished_at=clock.now(), next_at=None)

    assert not TRANSITIONS[operation][0](store, held(run))

    assert columns(run) == before


def test_a_claim_of_a_branch_carries_its_run(store: Store) -> None:
    run = make_group("held", "planned")

    claim = store.claim_branch(run.id, owner="me", lease=LEASE)

    assert claim is not None
    assert (claim.run_id, claim.function_id, claim.steps, claim.queue) == (run.id, "tests/fn", 5, "default")
    assert (claim.key, claim.path, claim.fence, claim.attempt) == (branch_key("g#0/1"), "g#0/1", 8, 1)


def test_a_record_in_a_branch_counts_in_the_run_and_leaves_it_parked(store: Store) -> None:
    run = make_group("live", "waiting")

    number = store.record(held(run), step_row("s", branch="g#0/0", parent_key=branch_key("g#0/0")), lease=LEASE)

    run.refresh_from_db()
    assert (number, run.steps, run.status, run.fence, run.attempt) == (6, 6, "waiting", 7, 1)
    step = Step.objects.get(run=run, name="s")
    assert (step.branch, bytes(step.parent_key or b""), step.seq) == ("g#0/0", branch_key("g#0/0"), 6)


def test_a_branch_parks_with_its_step_and_its_wait(store: Store) -> None:
    run = make_group("live", "planned")

    assert store.park(held(run), parking(), rehint=REHINT) == "waiting"

    assert Step.objects.get(run=run, name="w").status == "waiting"
    assert Wait.objects.filter(run=run, name="a/c").count() == 1


def test_a_settled_step_of_a_branch_wakes_the_branch_and_not_the_run(store: Store) -> None:
    run = make_group("live", "planned")
    store.park(held(run), parking(), rehint=REHINT)

    ready = store.resolve([Resolution(run_id=run.id, key=step_key("g#0/0", "w", 0))], rehint=REHINT)

    run.refresh_from_db()
    assert [(each.run_id, each.in_branch) for each in ready] == [(run.id, True)]
    assert (run.status, run.wakes, run.steps, columns(run)["status"]) == ("waiting", 3, 6, "planned")


# The end of a branch


def test_the_last_branch_completes_the_group_and_wakes_the_run(store: Store) -> None:
    run = make_group("completed", "live")

    result = store.end_branch(held(run, 1), DONE, rehint=REHINT)

    run.refresh_from_db()
    group = Step.objects.get(run=run, key=GROUP)
    assert result is not None
    assert [(each.run_id, each.in_branch) for each in result.ready] == [(run.id, False)]
    assert (run.status, run.wakes, run.steps, run.attempt) == ("queued", 4, 7, 0)
    assert (group.status, group.open, group.seq, branch(run, 1).seq) == ("completed", 0, 7, 6)


def test_a_branch_that_is_not_the_last_leaves_the_run_waiting(store: Store) -> None:
    run = make_group("live", "waiting")

    result = store.end_branch(held(run), DONE, rehint=REHINT)

    run.refresh_from_db()
    group = Step.objects.get(run=run, key=GROUP)
    assert result is not None
    assert not result.ready
    assert (run.status, run.wakes, run.steps) == ("waiting", 3, 6)
    assert (group.status, group.open, group.seq) == ("waiting", 1, None)


def test_the_end_of_a_group_inside_a_branch_wakes_that_branch(store: Store) -> None:
    run = make_group("waiting", "planned")
    make_group("live", run=run, scope="g#0/0", name="inner")
    inner = Step.objects.get(run=run, path="g#0/0>inner#0/0")
    claim = held(run, key=inner.key, path=inner.path, fence=inner.fence)

    result = store.end_branch(claim, DONE, rehint=REHINT)

    run.refresh_from_db()
    assert result is not None
    assert [each.in_branch for each in result.ready] == [True]
    assert (run.status, columns(run)["status"], columns(run)["next_at"]) == ("waiting", "planned", 1000)


def test_the_worker_that_ends_a_branch_claims_the_next_one_with_it(store: Store) -> None:
    run = make_group("live", "waiting", "planned", "planned")

    result = store.end_branch(held(run), DONE, rehint=REHINT, next_claim=NextClaim("me", LEASE))

    assert result is not None
    assert result.claim is not None
    assert (result.claim.path, result.claim.fence, result.claim.owner) == ("g#0/2", 8, "me")
    assert [columns(run, index)["status"] for index in (2, 3)] == ["running", "planned"]


@pytest.mark.parametrize("follows", [True, False])
def test_an_end_under_a_limit_lets_one_more_in(store: Store, follows: bool) -> None:
    run = make_group("live", "held", "held")
    limited = BranchEnd(status=StepStatus.COMPLETED, output="1", limited=True)

    result = store.end_branch(held(run), limited, rehint=REHINT, next_claim=NextClaim("me", LEASE) if follows else None)

    assert result is not None
    states = [(columns(run, index)["status"], columns(run, index)["next_at"]) for index in (1, 2)]
    assert states == [("running", 100) if follows else ("planned", 1000), ("planned", None)]


def test_a_worker_that_takes_a_branch_that_may_start_lets_the_next_one_in_too(store: Store) -> None:
    run = make_group("live", "planned", "held", "held")
    limited = BranchEnd(status=StepStatus.COMPLETED, output="1", limited=True)

    store.end_branch(held(run), limited, rehint=REHINT, next_claim=NextClaim("me", LEASE))

    states = [(columns(run, index)["status"], columns(run, index)["next_at"]) for index in (1, 2, 3)]
    assert states == [("running", 100), ("planned", 1000), ("planned", None)]


def test_the_first_of_a_race_closes_the_others_with_what_they_wait_for(store: Store) -> None:
    run = make_group("live", "live", "planned", "waiting")
    store.park(held(run, 1), parking(1), rehint=REHINT)
    race = BranchEnd(status=StepStatus.COMPLETED, output="1", race=True, index=0, prefix="g#0/")

    result = store.end_branch(held(run), race, rehint=REHINT)

    run.refresh_from_db()
    assert result is not None
    assert [each.run_id for each in result.ready] == [run.id]
    assert [columns(run, index)["status"] for index in range(4)] == ["completed"] + ["cancelled"] * 3
    assert (Step.objects.get(run=run, name="w").status, Wait.objects.filter(run=run, name="a/c").count()) == (
        "cancelled",
        0,
    )
    assert Step.objects.get(run=run, key=GROUP).winner == 0


def test_an_attempt_that_failed_for_good_is_kept_with_the_end(store: Store) -> None:
    run = make_group("live", "waiting")
    attempt = AttemptRow(
        key=branch_key("g#0/0"),
        name="g",
        number=2,
        status="failed",
        started_at=clock.now(),
        finished_at=clock.now(),
        error="{}",
    )

    store.end_branch(
        held(run), BranchEnd(status=StepStatus.FAILED, error="{}", attempt=2, failed=attempt), rehint=REHINT
    )

    assert (columns(run)["status"], columns(run)["error"], columns(run)["attempt"]) == ("failed", "{}", 2)
    assert StepAttempt.objects.get(run=run).number == 2


# What a turn reads


def test_a_branch_reads_its_own_steps_and_those_around_it(store: Store) -> None:
    run = make_group("live", "completed")
    for name, scope in (("own", "g#0/0"), ("other", "g#0/1"), ("handler", "")):
        parent = branch_key(scope) if scope else None
        Step.objects.create(
            run=run,
            key=step_key(scope, name, 0),
            name=name,
            branch=scope,
            parent_key=parent,
            kind="run",
            status="completed",
            seq=1,
            planned_at=clock.now(),
            finished_at=clock.now(),
        )

    assert {memo.name for memo in store.memos(held(run))} == {"own", "handler", "g", "open"}
    assert [memo.kind for memo in store.memos(held(run)) if memo.name == "g"] == ["group"]
    assert {memo.name for memo in store.memos(claim_of(run))} == {"handler", "g", "open"}
    assert sorted(memo.kind for memo in store.memos(claim_of(run)) if memo.name == "g") == ["branch", "branch", "group"]
    assert [memo.name for memo in store.branch_memos(held(run))] == ["own"]


@pytest.mark.parametrize(
    ("path", "scopes", "groups"),
    [
        ("", [""], []),
        ("g#0/1", ["", "g#0/1"], [step_key("", "g", 0)]),
        ("g#2/a>x y#1/0", ["", "g#2/a", "g#2/a>x y#1/0"], [step_key("", "g", 2), step_key("g#2/a", "x y", 1)]),
        ("a/b#c#3/7", ["", "a/b#c#3/7"], [step_key("", "a/b#c", 3)]),
    ],
)
def test_a_path_tells_the_code_around_a_branch(path: str, scopes: list[str], groups: list[bytes]) -> None:
    assert scopes_of(path) == scopes
    assert groups_around(path) == groups
