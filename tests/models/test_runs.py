from __future__ import annotations

from typing import Any

import pytest
from django.db import IntegrityError, transaction
from django.db.models import ProtectedError

from django_durable.core import clock
from django_durable.core.functions.run_statuses import ENDED, RunStatus
from django_durable.models import Run, Step, StepAttempt
from django_durable.models.runs import STATUS_LABELS
from tests.models.rows import make_event, make_run, make_step

pytestmark = pytest.mark.django_db

NOW = clock.now()


def named(values: dict[str, Any]) -> str:
    """Return the name of a test: a run's status, and the columns that are given beside it."""
    return " ".join([values["status"], *list(values)[1:]])


@pytest.mark.parametrize(
    "values",
    [
        {"status": "lost"},
        {"status": "queued", "ready_at": None},
        {"status": "running"},
        {"status": "waiting", "finished_at": NOW},
        *({"status": status} for status in ENDED),
        *({"status": status, "finished_at": NOW, "next_at": NOW} for status in ENDED),
    ],
    ids=named,
)
def test_the_database_refuses_a_run_whose_moments_contradict_its_status(values: dict[str, Any]) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        make_run(**values)


@pytest.mark.parametrize(
    "values",
    [
        {"status": "queued", "next_at": NOW},
        {"status": "running", "next_at": NOW},
        {"status": "waiting"},
        {"status": "waiting", "next_at": NOW},
        *({"status": status, "finished_at": NOW} for status in ENDED),
    ],
    ids=named,
)
def test_the_database_takes_a_run_in_each_status(values: dict[str, Any]) -> None:
    assert make_run(**values).get_status_display() == STATUS_LABELS[values["status"]]


def test_people_read_a_word_for_every_status() -> None:
    assert list(STATUS_LABELS) == list(RunStatus)


def test_a_run_starts_once_for_what_starts_it() -> None:
    make_run(start_key=bytes(16))

    with pytest.raises(IntegrityError), transaction.atomic():
        make_run(start_key=bytes(16))
    make_run()
    make_run()


def test_an_event_stays_while_it_has_runs() -> None:
    run = make_run(event=make_event())

    with pytest.raises(ProtectedError):
        run.event.delete()


def test_steps_and_attempts_of_a_run_go_with_it() -> None:
    run = make_run()
    make_step(run)
    StepAttempt.objects.create(run=run, number=1, status="failed", started_at=NOW, finished_at=NOW)

    run.delete()

    assert not Step.objects.exists()
    assert not StepAttempt.objects.exists()


def test_a_replay_stays_when_its_original_goes() -> None:
    original = make_run()
    replay = make_run(replay_of=original)

    original.delete()

    assert Run.objects.get() == replay
    assert Run.objects.get().replay_of_id is None
