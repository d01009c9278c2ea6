"""Claims: which run a worker takes, and how it keeps it, on each implementation."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connections
from django.test.utils import CaptureQueriesContext

from django_durable.core import clock
from django_durable.engine.store.contract import Store
from django_durable.engine.store.rows import (
    STOPPING,
    Claim,
)
from django_durable.models import Run

from ..conftest import (
    LEASE,
    REHINT,
    STATES,
    claim_of,
    columns,
    in_seconds,
    key,
    make_event,
    make_run,
    make_step,
    step_row,
)


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


def test_renewing_skips_leases_that_were_lost(store: Store) -> None:
    held, lost, parked = make_run("live"), make_run("live"), make_run("waiting")

    claims = [claim_of(held, fence=7), claim_of(lost, fence=6), claim_of(parked, fence=7)]

    assert store.renew(claims, lease=LEASE) == claims[:1]
    assert [columns(run)["next_at"] for run in (held, lost, parked)] == [100, 500, 500]


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
