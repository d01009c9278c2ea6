"""Workers and schedulers that freeze, lack the code, are poisoned or told to stop (faults 20, 27-29, 32-33, 35, 38)."""

from __future__ import annotations

import signal
import time
from collections import Counter
from typing import Any

import pytest

from tests.acceptance.workers import until

from .stage import HOUR, REHINT, Died, Stage, Tale, fault, lines_of

pytestmark = pytest.mark.timeout(180)

POOLS = ("prefork", "threads", "solo")
DELIVERED = ["long", "next", "last"]
A_MINUTE = 60
PAUSE = 0.3  #: seconds between two hints, each of which is worked on
SHORT_LEASE = 4.0  #: seconds, where a process's own clock has to pass it


def deliver(stage: Stage) -> Tale:
    """Ask for a delivery, whose first body takes until the test says go."""
    return Tale(stage, "delivery", stage.site("send", "app/delivery.asked", {}))


def assert_all_is_well(stage: Stage, outputs: dict[str, Any], before: dict[str, Any] | None = None) -> None:
    """Check the invariants."""
    stage.assert_invariants(outputs, before, most_connections=len(stage.processes))


# A worker that is frozen


@pytest.mark.stages(*POOLS, "rabbitmq", always=POOLS)
def test_27_a_worker_frozen_in_a_body_longer_than_its_lease_writes_nothing_and_begins_nothing(stage: Stage) -> None:
    zombie = stage.work()
    tale = deliver(stage)
    began = until(lambda: stage.ledger(step="long"), "the body begins")[0]
    zombie.signal(signal.SIGSTOP)

    other = stage.work()
    stage.site("let_leases_end")
    until(lambda: hinted(stage, tale) and len(stage.ledger(step="long")) == 2, "another takes over", pause=PAUSE)
    stage.say("go")
    tale.finish()
    before = stage.site("settled")
    zombie.signal(signal.SIGCONT)
    until(lambda: stage.site("attempts", tale.run["id"]), "the zombie's value is discarded")

    assert stage.site("attempts", tale.run["id"]) == [["long", "discarded"]]
    assert [line["step"] for line in stage.ledger(pid=began["pid"])] == ["long"]
    assert lines_of(tale.bodies()) == {"last": 1, "long": 2, "next": 1}
    assert other.ended() is None
    assert_all_is_well(stage, {tale.run["id"]: DELIVERED}, before)


def hinted(stage: Stage, tale: Tale) -> bool:
    """Hint at the run: a frozen worker may take a message to itself."""
    stage.site("sweep")
    stage.site("hint", tale.run["id"])
    return True


@pytest.mark.stages("solo", "prefork", "threads")
def test_27_a_worker_frozen_between_two_steps_begins_no_further_body_after_its_lease(stage: Stage) -> None:
    stage.durable = {"LEASE": SHORT_LEASE}
    stage.say("go")
    zombie = stage.work(fault("step.after_commit", "stop"))
    tale = deliver(stage)
    pid = stage.until_happened(fault("step.after_commit", "stop"))
    stopped = time.monotonic()

    other = stage.work()
    until(lambda: hinted(stage, tale) and tale.run["status"] == "completed", "another ends it", pause=PAUSE)
    until(lambda: time.monotonic() > stopped + SHORT_LEASE, "the zombie's lease is over by its own clock, too")
    other.kill()
    before = stage.site("settled")
    zombie.signal(signal.SIGCONT)
    second = deliver(stage)
    second.finish()

    assert {line["pid"] for line in stage.ledger(run=second.run["id"])} == {pid}, "it is done with the first run"
    assert [line["step"] for line in stage.ledger(run=tale.run["id"], pid=pid)] == ["long"]
    assert lines_of(tale.bodies()) == {"last": 1, "long": 1, "next": 1}
    assert_all_is_well(stage, {tale.run["id"]: DELIVERED, second.run["id"]: DELIVERED}, before)


# Schedulers


@pytest.mark.stages("prefork")
def test_28_of_two_schedulers_each_run_is_hinted_once_in_a_period(stage: Stage) -> None:
    worker = stage.work(fault("match.after_commit"))
    stage.site("send_pairs", [("app/journey.begun", {"journey": number}) for number in range(20)])
    stage.until_died(fault("match.after_commit"), worker)
    worker.kill()
    sweepers = [stage.start_site(), stage.start_site()]
    runs = {run["id"] for run in stage.site("runs", "project/journey")}
    assert len(runs) == 20

    for _ in range(2):
        stage.site("let_pass", REHINT)
        seen = Counter(hints(stage))
        for sweeper in [*sweepers, *sweepers]:
            sweeper("sweep")
            stage.site("let_pass", 2)  # The next one leads.
        until(lambda seen=seen: set(Counter(hints(stage)) - seen) == runs, "every run is hinted")
        for sweeper in sweepers:
            sweeper("flush")
        assert set((Counter(hints(stage)) - seen).values()) == {1}

    assert_all_is_well(stage, {})


def hints(stage: Stage) -> list[str]:
    """Return the runs that messages named so far."""
    return [run_id for message in stage.ledger("messages") for run_id in message["arguments"][1]]


@pytest.mark.stages("prefork", "threads", "solo")
def test_29_without_any_scheduler_of_its_own_a_project_has_those_of_its_workers(stage: Stage) -> None:
    stage.durable = {"SCHEDULER": "worker"}
    leader = stage.work()
    until(lambda: stage.site("leader"), "the worker's scheduler leads")
    stage.work()
    victim = stage.start_site(fault("start.after_commit"))
    leader.kill()

    with pytest.raises(Died):
        victim("send", "app/journey.begun", {"journey": 1})
    stage.until_died(fault("start.after_commit"), victim)

    runs = until(lambda: stage.site("runs", "project/journey"), "the other worker's scheduler finds the event")
    until(lambda: stage.site("run_of_id", runs[0]["id"])["waiting_kind"] == "sleep", "the run goes on")
    assert_all_is_well(stage, {})


# Deployments


@pytest.mark.stages("prefork", "solo")
def test_32_a_run_whose_function_left_the_code_is_parked_until_it_is_back(stage: Stage) -> None:
    stage.work()
    tale = Tale(stage, "journey", stage.site("send", "app/journey.begun", {"journey": 1}))
    tale.until(lambda run: run["waiting_kind"] == "sleep", "the run sleeps")
    stage.processes[0].kill()

    without = stage.work(without=["project/journey"])
    stage.site("let_pass", HOUR)
    tale.until(lambda run: run["waiting_kind"] == "code", "the run waits for the code")
    assert (tale.run["status"], tale.run["failed_attempts"]) == ("waiting", 0)
    without.kill()
    stage.work()
    stage.site("let_pass", HOUR)
    tale.finish()

    assert lines_of(tale.bodies()) == {"four": 1, "one": 1, "three": 1, "two": 1}
    assert_all_is_well(stage, {tale.run["id"]: ["one", "two", "three", 1, "four"]})


@pytest.mark.stages("prefork", "rabbitmq")
def test_33_an_old_worker_leaves_runs_of_a_function_it_does_not_know_to_a_new_one(stage: Stage) -> None:
    stage.site("know_functions")
    old = stage.work(without=["project/journey"])
    tale = Tale(stage, "journey", stage.site("send", "app/journey.begun", {"journey": 1}))
    tale.until(lambda run: run["waiting_kind"] == "code", "the old worker met the run")

    stage.work()
    run = tale.until(lambda run: was_taken_up(stage, run), "the new worker takes it up")
    assert run["failed_attempts"] == 0
    tale.finish()

    assert {line["pid"] for line in stage.ledger()}.isdisjoint({old.pid})
    assert lines_of(tale.bodies()) == {"four": 1, "one": 1, "three": 1, "two": 1}
    assert_all_is_well(stage, {tale.run["id"]: ["one", "two", "three", 1, "four"]})


def was_taken_up(stage: Stage, run: dict[str, Any]) -> bool:
    """Tell whether the run is past its first steps; it is offered again to whoever has the code."""
    if run["waiting_kind"] == "code":
        stage.site("let_pass", A_MINUTE)
    return bool(run["waiting_kind"] == "sleep")


# A run that kills its workers


@pytest.mark.stages("solo")
def test_35_a_run_that_kills_each_of_its_workers_fails_and_its_failure_handler_runs_once(stage: Stage) -> None:
    tale = Tale(stage, "venom", stage.site("send", "app/venom.taken", {}))
    for death in range(1, 6):
        victim = stage.work()
        until(lambda victim=victim: was_offered(stage) and victim.ended() == -signal.SIGKILL, f"death {death}")
        stage.site("let_leases_end")

    stage.work()
    tale.until(lambda run: was_offered(stage) and run["status"] == "failed", "the run is poisoned")
    handlers = until(lambda: stage.site("sweep") and stage.ledger(step="bury"), "the failure is handled")

    assert "5 times" in tale.run["error"]
    assert lines_of(tale.bodies()) == {"swallow": 5}
    assert len(handlers) == 1
    assert_all_is_well(stage, {})


def was_offered(stage: Stage) -> bool:
    """Let the pause after a crash be over, and schedulers look."""
    stage.site("let_pass", HOUR)
    stage.site("sweep")
    return True


# Told to stop


@pytest.mark.stages("prefork")
@pytest.mark.parametrize("at", ["in two", "step.before_commit", "step.after_commit", "park.before"])
def test_38_at_a_soft_time_limit_the_run_is_handed_on_at_its_next_step(stage: Stage, at: str) -> None:
    stage.work(fault(at, "soft limit"), fault("release.before", "note"))
    tale = Tale(stage, "journey", stage.site("send", "app/journey.begun", {"journey": 1}))
    stage.until_happened(fault(at, "soft limit"))
    if at != "park.before":  # there the turn is over anyway
        stage.until_happened(fault("release.before", "note"))

    tale.finish()

    assert lines_of(tale.bodies()) == {"four": 1, "one": 1, "three": 1, "two": 1}
    assert tale.run["failed_attempts"] == 0
    assert_all_is_well(stage, {tale.run["id"]: ["one", "two", "three", 1, "four"]})


@pytest.mark.stages("prefork", "threads", "solo")
def test_20_what_a_deaf_worker_does_not_hear_its_peers_do(stage: Stage) -> None:
    deaf = stage.work()
    assert "no longer consuming" in str(stage.site("make_deaf", deaf.log.stem))
    tale = Tale(stage, "journey", stage.site("send", "app/journey.begun", {"journey": 1}))
    until(lambda: stage.ledger("messages"), "the broker has the hint")
    assert tale.run == {}

    stage.work()
    tale.finish()

    assert_all_is_well(stage, {tale.run["id"]: ["one", "two", "three", 1, "four"]})
