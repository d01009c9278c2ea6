"""A short fuzz run of every target; ``scripts/fuzz --seconds N`` is the long one."""

from __future__ import annotations

import pytest

from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("name", [name for name, target in TARGETS.items() if not target.database])
def test_any_input_is_taken_or_refused(name: str) -> None:
    TARGETS[name].property()()


@pytest.mark.parametrize("name", [name for name, target in TARGETS.items() if target.database])
def test_any_input_to_the_engine_is_taken_or_refused_and_stops_nobody(name: str, transactional_db: None) -> None:
    TARGETS[name].property()()
