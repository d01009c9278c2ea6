from __future__ import annotations

import pytest

from django_durable.core import clock
from django_durable.models import MatchFailure, Wait
from tests.models.rows import make_event, make_run

pytestmark = pytest.mark.django_db


def test_waits_and_failures_of_a_run_go_with_it() -> None:
    run, now = make_run(), clock.now()
    Wait.objects.create(run=run, kind="event", name="shop/paid", match_key=bytes(16), created_at=now)
    MatchFailure.objects.create(run=run, event=make_event(), expression="x", reason="no x", created_at=now)

    run.delete()

    assert not Wait.objects.exists()
    assert not MatchFailure.objects.exists()
