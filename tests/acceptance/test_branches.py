"""Branches of a run in real workers: at the same time, in several processes, and whatever is killed."""

from __future__ import annotations

import os
import signal

import pytest

from .conftest import Start
from .workers import Project, Served, until

PEOPLE = 3


@pytest.fixture
def project(project_on: Start) -> Project:
    """The project on Redis, without a worker."""
    return project_on("redis")


def ended(site: Served, event: str) -> dict[str, object]:
    """Return the run once it has ended."""
    until(lambda: (site("run_of", event) or {}).get("status") in ("completed", "failed"), "the run ends")
    run: dict[str, object] = site("run_of", event)
    return run


@pytest.mark.needs("redis", "postgresql")
def test_branches_run_at_the_same_time_in_several_processes(project: Project) -> None:
    project.worker(f"--concurrency={PEOPLE}")
    site = project.site()

    run = ended(site, site("call_meeting", PEOPLE))

    assert (run["status"], run["output"]) == ("completed", [PEOPLE] * PEOPLE)
    assert len({line["pid"] for line in project.ledger(run=run["id"])}) == PEOPLE


@pytest.mark.needs("redis", "postgresql")
def test_a_branch_whose_worker_is_killed_runs_again_and_no_other_does(project: Project) -> None:
    project.durable = {"LEASE": "2s"}
    project.worker("--concurrency=1", "--pool=solo")
    site = project.site()
    event = site("call_meeting", 2)
    until(lambda: project.ledger(), "the first branch runs, and waits for the second")
    (first,) = project.ledger()

    # The second branch has a worker of its own, so the first one ends, too, once it runs again.
    os.kill(first["pid"], signal.SIGKILL)
    project.worker("--concurrency=2")

    run = ended(site, event)
    assert run["status"] == "completed"
    bodies = project.bodies(str(run["id"]))
    assert sorted(bodies) == sorted([0, 1, first["step"]])
