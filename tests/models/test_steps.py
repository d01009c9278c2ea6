from __future__ import annotations

from typing import Any

import pytest
from django.db import IntegrityError, transaction

from django_durable.core import clock
from django_durable.core.replay.operations import SETTLED, StepKind, StepStatus
from django_durable.models.steps import KIND_LABELS, STATUS_LABELS
from tests.models.rows import make_run, make_step

pytestmark = pytest.mark.django_db

NOW = clock.now()


@pytest.mark.parametrize("status", SETTLED)
@pytest.mark.parametrize("values", [{}, {"seq": 1}, {"finished_at": NOW}], ids=" ".join)
def test_the_database_refuses_a_memo_without_its_place_and_moment(status: str, values: dict[str, Any]) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        make_step(make_run(), status=status, **values)


@pytest.mark.parametrize("status", SETTLED)
def test_the_database_takes_a_memo_with_its_place_and_moment(status: str) -> None:
    make_step(make_run(), status=status, seq=1, finished_at=NOW)


def test_a_run_has_one_step_of_a_key() -> None:
    run = make_run()
    make_step(run)

    with pytest.raises(IntegrityError), transaction.atomic():
        make_step(run)
    make_step(make_run())


def test_people_read_a_word_for_every_kind_and_status() -> None:
    assert list(KIND_LABELS) == list(StepKind)
    assert list(STATUS_LABELS) == list(StepStatus)


def test_a_step_is_called_by_its_name_and_from_the_second_use_on_by_its_ordinal() -> None:
    run = make_run()

    assert str(make_step(run)) == "charge"
    assert str(make_step(run, key=b"1" * 16, ordinal=1)) == "charge#1"
