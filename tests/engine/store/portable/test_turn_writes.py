"""Writes of a turn, on each implementation."""

from __future__ import annotations

import pytest
from django.db import IntegrityError, transaction

from django_durable.core.replay.operations import StepKind, StepStatus
from django_durable.engine.store.contract import Store
from django_durable.engine.store.rows import (
    LONGEST_TEXT,
    Parking,
)
from django_durable.models import Step, StepAttempt, Wait

from ..conftest import (
    LEASE,
    OPEN,
    REHINT,
    claim_of,
    columns,
    failed_attempt,
    key,
    make_run,
    make_step,
    parking,
    step_row,
)


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


def test_the_database_itself_refuses_a_second_memo(store: Store) -> None:
    run = make_run("live")

    with pytest.raises(IntegrityError), transaction.atomic():
        make_step(run, "open")


def test_ending_a_run_leaves_the_waits_of_others(store: Store) -> None:
    ended, other = make_run("live"), make_run("waiting")

    store.end(claim_of(ended), "completed")

    assert list(Wait.objects.values_list("run_id", flat=True)) == [other.id]
