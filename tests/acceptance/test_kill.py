"""kill -9 of a real worker before and after each statement of the activation email: nothing is lost or done again.

The worker that dies is forked from a process that has imported everything; another one leads the schedulers and never
consumes; a third, forked after the death, goes on. A body may run twice only where its worker died between its effect
and the commit of its record.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from .conftest import Start
from .workers import Project, Served, until

pytestmark = [pytest.mark.needs("redis", "postgresql"), pytest.mark.timeout(900)]

LEASE = 1.0  #: seconds
# The leader looks once a second and may have to announce an event again; machines are slow at times. Still less than
# the lease that a worker has without the setting.
TOLERANCE = 8.0
MOMENTS = ("before", "after")
STEP = 0.03  #: seconds
A_FEW = 10  #: steps

Act = Callable[[Served, str, int], object]


def post_in_time(site: Served, event: str, user: int) -> None:
    """Let the user write a post."""
    site("write_post", user)


def no_post(site: Served, event: str, user: int) -> None:
    """Let a day go by."""
    site("let_time_out", event)


class Play:
    """One user's run: signed up, then, once the run waits for a post, what the scenario has for it."""

    def __init__(self, project: Project, site: Served, act: Act, user: int) -> None:
        self._project, self._site, self._act, self._user = project, site, act, user
        self._acted = False
        self._event = site("sign_up", user)

    def run(self) -> dict[str, Any]:
        """Return the run as stored now, or nothing before it starts."""
        return self._site("run_of", self._event) or {}

    def has_ended(self) -> bool:
        """Act if it is time to; tell whether the run has ended."""
        status = self.run().get("status")
        if status == "waiting" and not self._acted:
            self._act(self._site, self._event, self._user)
            self._acted = True
        return status in ("completed", "failed", "cancelled")

    def goes_on_from(self, run: dict[str, Any]) -> bool:
        """Act if it is time to; tell whether the run has ended or is not what it was."""
        return self.has_ended() or self.run() != run

    def memos(self) -> list[Any]:
        """Return what is recorded of the run's steps."""
        run = self.run()
        return self._site("memos_of", run["id"]) if run else []

    def bodies(self) -> Counter[str]:
        """Return how often the body of each step ran."""
        run = self.run()
        return Counter(self._project.bodies(run["id"]) if run else [])

    def outcome(self) -> tuple[Any, ...]:
        """Return all that must be the same whoever died: the run's end and its memos."""
        run = self.run()
        return run["status"], run["output"], run["error"], run["failed_attempts"], self.memos()


@dataclass
class Stage:
    """The project with a leader, a site, and a process to fork workers from; each play has a user of its own."""

    project: Project
    site: Served
    zygote: Served
    users: int = 0

    @contextmanager
    def worker(self, kill_at: int = 0, moment: str = "after") -> Iterator[int]:
        """Fork a worker that dies at that statement (0: at none); wait until it consumes, kill it in the end."""
        name = f"{self.users}-{moment}-{kill_at}"
        pid = self.zygote("start", name, kill_at, moment)
        log = self.project.folder / f"{name}.log"
        until(lambda: log.exists() and " ready." in log.read_text(), f"{name} is ready", pause=0.02)
        yield pid
        self.zygote("end", pid)

    def play(self, act: Act) -> Play:
        """Sign up the next user."""
        self.users += 1
        return Play(self.project, self.site, act, self.users)

    def unharmed(self, act: Act) -> tuple[Play, int]:
        """Play without a death; return the play, and how many statements it took."""

        def is_idle() -> bool:
            # A worker's last statement looks for another run to claim.
            statements = self.project.ledger("statements", pid=worker)
            return play.has_ended() and statements[-1]["sql"].startswith("WITH candidate")

        with self.worker() as worker:
            play = self.play(act)
            until(is_idle, "the run has ended and its worker is idle")
        return play, len(self.project.ledger("statements", pid=worker))

    def killed(self, act: Act, kill_at: int, moment: str) -> Play:
        """Play until the worker is dead, and prove that it died by its own hand at that statement."""

        def is_dead() -> bool:
            if play.has_ended():
                self.site("hint")  # It has more statements to come if it is to die after the run's end.
            statuses.append(self.zygote("ended", worker))
            return statuses[-1] is not None

        statuses: list[int | None] = []
        with self.worker(kill_at, moment) as worker:
            play = self.play(act)
            until(is_dead, f"the worker dies {moment} statement {kill_at}", pause=0.02)
        kills = self.project.ledger("kills", pid=worker)
        assert statuses[-1] == -signal.SIGKILL
        assert [(kill["number"], kill["moment"]) for kill in kills] == [(kill_at, moment)]
        return play


@pytest.fixture
def stage(project_on: Start) -> Stage:
    """Start what lives through all deaths."""
    project = project_on("redis")
    project.durable = {"LEASE": LEASE, "REHINT": LEASE}
    project.worker("--queues=nobody", "--pool=solo", "--hostname=leader@%h")
    return Stage(project, project.site(), project.serve("zygote"))


def assert_recovers(stage: Stage, act: Act, kill_at: int, moment: str, unharmed: Play) -> None:
    """Kill a worker; another one must go on within a lease, repeat nothing recorded and come to the same end."""
    play = stage.killed(act, kill_at, moment)
    run, ran = play.run(), play.bodies()
    recorded = {memo[NAME] for memo in play.memos()}

    with stage.worker():
        until(lambda: play.goes_on_from(run), "the run goes on within a lease", seconds=LEASE + TOLERANCE)
        until(play.has_ended, "the run ends")

    assert play.outcome() == unharmed.outcome()
    again = Counter(step for step in ran if step not in recorded)
    assert play.bodies() == unharmed.bodies() + again


NAME = 1  #: where a memo has its step's name


@pytest.mark.parametrize(
    ("act", "every"),
    [
        pytest.param(no_post, 1, id="no post, every statement"),
        pytest.param(post_in_time, 5, id="post in time, every fifth statement"),
        pytest.param(post_in_time, 1, id="post in time, every statement", marks=pytest.mark.slow),
    ],
)
def test_a_killed_workers_run_goes_on_within_a_lease_and_repeats_nothing_recorded(
    stage: Stage, act: Act, every: int
) -> None:
    stage.unharmed(act)  # The first run on an empty database prepares its match path.
    unharmed, statements = stage.unharmed(act)
    assert set(unharmed.bodies().values()) == {1}

    for kill_at in range(1, statements + 1, every):
        for moment in MOMENTS:
            assert_recovers(stage, act, kill_at, moment, unharmed)


@pytest.mark.parametrize("victim", ["the only worker", "a process of its pool"])
def test_a_worker_of_the_default_kind_that_is_killed_in_a_step_repeats_that_step_alone(
    project_on: Start, victim: str
) -> None:
    project = project_on("redis")
    project.durable = {"LEASE": LEASE, "TURN_BUDGET": "10m"}
    site, worker = project.site(), project.worker()
    event = site("receive_batch", 5_000, STEP)
    bodies = until(lambda: project.ledger()[A_FEW:] and project.ledger(), "the run is at work")

    dead = bodies[-1]["pid"]
    if victim == "the only worker":
        worker.kill()
        project.worker()
    else:
        os.kill(dead, signal.SIGKILL)
    done = len(project.ledger())
    until(lambda: project.ledger()[done + A_FEW :], "the run goes on")
    (project.folder / "enough").touch()
    until(lambda: site("run_of", event)["status"] == "completed", "the run ends")

    run = site("run_of", event)
    steps = Counter(body["step"] for body in project.ledger())
    assert sorted(steps) == list(range(run["output"]))
    assert [step for step, times in steps.items() if times > 1] in ([], [project.ledger(pid=dead)[-1]["step"]])
    assert len(site("memos_of", run["id"])) == run["output"]
    assert (run["crashes"], run["failed_attempts"]) == (0, 0)
