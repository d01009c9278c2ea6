"""Celery's pools (faults 66 to 68): every process, thread and greenlet has its own connection and context."""

from __future__ import annotations

import pytest

from tests.acceptance.workers import Project, started

from .conftest import Zygotes
from .stage import Stage, Tale

pytestmark = pytest.mark.timeout(180)


def call_roll(stage: Stage, people: int) -> list[Tale]:
    """Start runs that meet in their bodies, each with a worker's connection; wait until all have ended."""
    events = stage.site("send_pairs", [("app/roll.called", {"people": people})] * people)
    tales = [Tale(stage, "roll-call", event) for event in events]
    for tale in tales:
        tale.finish()
    return tales


def assert_each_had_its_own(stage: Stage, tales: list[Tale]) -> None:
    """Check that the bodies ran at the same time, each with its own connection and steps; and the invariants."""
    gathered = stage.ledger("gathered")
    assert len({line["backend"] for line in gathered}) == len(gathered) == len(tales)
    outputs = {tale.run["id"]: True for tale in tales}
    idle = len(stage.processes) + len(tales)  # A process or thread of a pool may keep the one it has.
    stage.assert_invariants(outputs, most_connections=idle)


@pytest.mark.stages("prefork", "rabbitmq")
def test_66_processes_that_fork_after_a_connection_was_opened_open_their_own(stage: Stage) -> None:
    stage.work(preload=True, **{"--concurrency": 3})
    (preloaded,) = stage.ledger("preloaded")

    tales = call_roll(stage, 3)

    gathered = stage.ledger("gathered")
    assert len({line["pid"] for line in gathered} - {preloaded["pid"]}) == 3
    assert preloaded["backend"] not in {line["backend"] for line in gathered}
    assert_each_had_its_own(stage, tales)


@pytest.mark.stages("threads")
def test_67_runs_in_threads_of_one_process_share_no_connection_and_no_step(stage: Stage) -> None:
    stage.work(**{"--concurrency": 3})

    tales = call_roll(stage, 3)

    gathered = stage.ledger("gathered")
    assert len({line["pid"] for line in gathered}) == 1
    assert len({line["thread"] for line in gathered}) == 3
    assert_each_had_its_own(stage, tales)


@pytest.mark.stages("threads")
def test_68_greenlets_of_a_gevent_worker_share_no_connection_and_no_step(stage: Stage, zygotes: Zygotes) -> None:
    pytest.importorskip("gevent", reason="gevent is not installed")
    common, _ = zygotes("redis")
    project = Project(stage.folder, common.database_url, common.broker_url, common.queue, {"SCHEDULER": "command"})
    with started(project):
        project.worker("--pool=gevent", "--concurrency=3")

        tales = call_roll(stage, 3)

        assert len({line["pid"] for line in stage.ledger("gathered")}) == 1
        assert_each_had_its_own(stage, tales)
