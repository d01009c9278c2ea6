"""An async function in real workers, one of which is killed in the middle of a body: nothing recorded runs again."""

from __future__ import annotations

from collections import Counter

import pytest

from .conftest import Start
from .workers import until

pytestmark = pytest.mark.needs("redis", "postgresql")

LEASE = 1.0  #: seconds
ORDER = 7


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_run_whose_worker_is_killed_in_an_async_body_repeats_that_body_alone(project_on: Start, pool: str) -> None:
    project = project_on("redis")
    project.durable = {"LEASE": LEASE, "REHINT": LEASE}
    site, worker = project.site(), project.worker(f"--pool={pool}")
    event = site("receive_order", ORDER)
    run = until(lambda: site("run_of", event), "the run starts")
    until(lambda: len(site("memos_of", run["id"])) == 2, "what answers at once is recorded")

    worker.kill()
    assert site("run_of", event)["status"] == "running"
    project.worker(f"--pool={pool}")
    until(lambda: project.bodies(run["id"]).count("address") == 2, "the other worker goes on")
    (project.folder / "enough").touch()
    until(lambda: site("run_of", event)["waiting_kind"] == "event", "the run has slept and waits")
    site("pay", ORDER)
    until(lambda: site("run_of", event)["status"] == "completed", "the run ends")

    assert Counter(project.bodies(run["id"])) == {"address": 2, "stock": 1, "price": 1}
    assert site("run_of", event)["output"] == {"found": ["address", "stock", "price"], "paid": True}
    assert site("run_of", event)["failed_attempts"] == 0
