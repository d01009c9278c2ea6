"""The ratios to the peers are judged from the lines of one run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.side_by_side import run, verdicts


def line(system: str, value: float, **detail: Any) -> dict[str, Any]:
    """Return a line as the peer benchmark writes it."""
    return {"system": system, "variant": "tuned", "workload": "W1", "figure": "steps", "value": value, **detail}


def test_a_ratio_is_that_of_the_medians() -> None:
    ours = [line("durable", value, workers=2) for value in (100.0, 2_600.0, 9_000.0)]
    theirs = [line("absurd", value, workers=2) for value in (1_200.0, 1_300.0, 1_400.0)]
    (verdict,) = verdicts([*ours, *theirs])
    assert "2600 /      1300 =   2.00" in verdict
    assert verdict.endswith("yes")


def test_a_missed_goal_is_named() -> None:
    (verdict,) = verdicts([line("durable", 1_000, workers=2), line("absurd", 1_300, workers=2)])
    assert verdict.endswith("NO")


def test_most_that_is_allowed_is_a_bound_from_above() -> None:
    values = {"workload": "W3", "figure": "one run", "steps": 1_000}
    (verdict,) = verdicts([line("durable", 0.5, **values), line("absurd", 1.0, **values)])
    assert "at most 0.45" in verdict
    assert verdict.endswith("NO")


def test_what_was_not_measured_is_not_judged() -> None:
    assert not list(verdicts([line("durable", 1_000, workers=2), {"machine": {}}]))


def test_a_missing_peer_benchmark_is_named(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"run\.py is missing.*--peers-folder"):
        run("absurd", tmp_path, (), as_json=False)
