"""The scheduler's statements, on each implementation."""

from __future__ import annotations

import pytest
from django.db import connections
from django.test.utils import CaptureQueriesContext

from django_durable.engine.store.contract import Store

from ..conftest import (
    REHINT,
    columns,
    make_run,
)


@pytest.mark.parametrize(("crashes", "pause"), [(0, 0), (1, 1000), (4, 4000), (5, 5000), (9, 5000)])
def test_a_run_that_goes_on_to_crash_starts_later_each_time(store: Store, crashes: int, pause: int) -> None:
    run = make_run("dead", crashes=crashes)

    store.expire([run.id], rehint=REHINT)

    row = columns(run)
    assert (row["crashes"], row["ready_at"], row["next_at"]) == (crashes + 1, pause, pause or 1000)


@pytest.mark.parametrize(("waited", "pause"), [(10, 1000), (3_000, 3_000), (1_000_000, 60_000)])
def test_a_run_is_hinted_again_after_as_long_as_it_waited_already(store: Store, waited: int, pause: int) -> None:
    run = make_run("queued", ready_at=-waited)

    store.hint_later([run.id], rehint=REHINT)

    assert columns(run)["next_at"] == pause


def test_many_runs_cost_no_more_statements_to_hint_again(store: Store) -> None:
    counts = []
    for _ in range(2):  # With its second statement the store has looked at a connection that is new.
        store.hint_later([make_run("queued").id], rehint=REHINT)
    for size in (1, 50):
        runs = [make_run("queued") for _ in range(size)]
        with CaptureQueriesContext(connections[store.alias]) as captured:
            store.hint_later([run.id for run in runs], rehint=REHINT)
        counts.append(len(captured))

    assert counts[0] == counts[1]
