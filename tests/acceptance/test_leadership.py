"""The worker whose scheduler leads is killed: the deputy takes over."""

from __future__ import annotations

import pytest

from .conftest import Start
from .workers import until

pytestmark = [pytest.mark.needs("redis", "postgresql"), pytest.mark.timeout(300)]

TAKEOVER = 2.0  #: seconds
SLOW = 2.0  #: seconds that a busy machine may add


def test_the_deputy_leads_two_seconds_after_the_leader_was_killed(project_on: Start) -> None:
    project = project_on("redis")
    site = project.site()
    workers = {worker.process.pid: worker for worker in (project.worker("--pool=solo") for _ in range(3))}
    leader, deputy = until(lambda: all(site("schedulers")) and site("schedulers"), "there are a leader and a deputy")
    assert {leader, deputy} < set(workers)

    workers[leader].kill()
    until(lambda: site("schedulers")[0] != leader, "another one leads", seconds=TAKEOVER + SLOW, pause=0.05)

    assert site("schedulers")[0] == deputy
