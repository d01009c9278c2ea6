"""SIGTERM, as every deployment sends it: a run that is at work is handed on at its next step, and repeats nothing."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from .conftest import Start
from .workers import until

pytestmark = pytest.mark.needs("redis", "postgresql")

HANDED_ON = 1.0  #: seconds
SLOW = 4.0  #: seconds that a busy machine may add
STEP = 0.03  #: seconds
A_FEW = 10  #: steps


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_a_worker_that_is_told_to_stop_hands_its_run_on_at_once(project_on: Start, pool: str) -> None:
    project = project_on("redis")
    project.durable = {"TURN_BUDGET": "10m"}
    site, old = project.site(), project.worker(f"--pool={pool}", "--hostname=old@%h", "--without-mingle")
    event = site("receive_batch", 5_000, STEP)
    until(lambda: len(project.ledger()) > A_FEW, "the run is at work")
    project.worker(f"--pool={pool}", "--hostname=new@%h", "--without-mingle")

    old.terminate()
    assert old.ended() == 0
    done = len(project.ledger())
    until(lambda: len(project.ledger()) > done + A_FEW, "the other worker goes on")
    (project.folder / "enough").touch()
    until(lambda: site("run_of", event)["status"] == "completed", "the run ends")

    bodies, run = project.ledger(), site("run_of", event)
    assert [body["step"] for body in bodies] == list(range(run["output"]))
    assert pause_between_workers(bodies) < HANDED_ON + SLOW
    assert run["crashes"] == 0
    assert run["fence"] == 3, "two claims and the end"


def pause_between_workers(bodies: list[dict[str, Any]]) -> float:
    """Return the seconds between the last body of one process and the first of the other."""
    pairs = itertools.pairwise(bodies)
    (pause,) = (after["time"] - before["time"] for before, after in pairs if before["pid"] != after["pid"])
    return float(pause)
