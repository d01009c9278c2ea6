"""The index of events: what a process remembers of it."""

from __future__ import annotations

import pytest

from django_durable.engine.events import index
from django_durable.models import MatchPath
from tests.engine.conftest import Engine


def test_a_process_that_waits_for_ever_new_names_remembers_a_bounded_number(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index, "MOST_BACKFILLED", 3)

    index.prepare_paths([f"test/{number}" for number in range(8)], "data.n")

    assert MatchPath.objects.count() == 8
    assert 0 < len(index._backfilled) <= 3
