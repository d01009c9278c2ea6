"""Real processes that die: what a run is to blame for fails it, and nothing else does."""

from __future__ import annotations

import os
import signal

import pytest

from .conftest import Start
from .workers import Process, until

pytestmark = [pytest.mark.needs("redis", "postgresql"), pytest.mark.timeout(300)]

LEASE = 2.0  #: seconds; less, and a busy machine lets leases of living workers run out
LONG = 600  #: seconds that a body takes, unless its process dies


def test_a_poison_run_fails_after_five_deaths_and_those_beside_it_go_on(project_on: Start) -> None:
    project = project_on("redis")
    project.durable = {"LEASE": LEASE, "REHINT": 0.2, "TURN_BUDGET": "10m"}
    site = project.site()
    project.worker("--concurrency=1")
    poison, *neighbours = site("serve_poison", 3)

    until(lambda: project.ledger("reports"), "on_failure has run", seconds=120)
    (project.folder / "enough").touch()
    until(
        lambda: all((site("run_of", each) or {}).get("status") == "completed" for each in neighbours), "the others end"
    )

    run = site("run_of", poison)
    assert run["status"] == "failed"
    assert len({body["pid"] for body in project.ledger(run=run["id"])}) == 5, "so many processes died of it"
    (report,) = project.ledger("reports")
    assert report["error"].startswith("Its worker died 5 times in a row at 'kill'.")
    assert [site("run_of", each)["crashes"] for each in neighbours] == [0, 0, 0]
    shared = {line["pid"] for line in project.ledger("neighbours")} & {body["pid"] for body in project.ledger()}
    assert shared, "they were in a process that died"


def test_a_deployment_that_kills_a_slow_step_counts_no_crash(project_on: Start) -> None:
    project = project_on("redis")
    project.durable = {"LEASE": LEASE}
    site, old = project.site(), project.worker()
    event = site("receive_batch", 1, LONG)
    until(lambda: project.ledger(), "the step is at work")

    old.terminate()
    until(lambda: site("run_of", event)["owner"].endswith(" (stopping)"), "the worker says that it stops")
    old.kill()
    project.worker()
    until(lambda: len(project.ledger()) == 2, "another worker goes on")

    assert site("run_of", event)["crashes"] == 0


def test_a_worker_that_was_frozen_for_longer_than_its_lease_takes_the_crash_back(project_on: Start) -> None:
    project = project_on("redis")
    project.durable = {"LEASE": LEASE}
    site, frozen = project.site(), project.worker("--pool=solo")
    event = site("receive_batch", 1, LONG)
    until(lambda: project.ledger(), "the step is at work")

    freeze(frozen, signal.SIGSTOP)
    project.worker()
    until(lambda: len(project.ledger()) == 2, "another worker takes over")
    assert site("run_of", event)["crashes"] == 1
    freeze(frozen, signal.SIGCONT)

    until(lambda: site("run_of", event)["crashes"] == 0, "the frozen worker says that it lives")


def freeze(worker: Process, number: int) -> None:
    """Stop the worker with its children, or let them go on."""
    os.killpg(worker.process.pid, number)
