"""kill -9 at each point of a run's life (faults 1 to 12): nothing committed is lost, nothing recorded runs again."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from tests.acceptance.workers import until

from .stage import HOUR, REHINT, Died, Site, Stage, Tale, fault, lines_of

pytestmark = pytest.mark.timeout(180)

ONCE = {"one": 1, "two": 1, "three": 1, "four": 1}
EVERYWHERE = ("prefork", "threads", "solo", "rabbitmq", "embedded")
POOLS = ("prefork", "threads", "solo")


def begin(stage: Stage, number: int = 1) -> Tale:
    """Begin a journey."""
    return Tale(stage, "journey", stage.site("send", "app/journey.begun", {"journey": number}), number)


def arrived(number: int = 1) -> list[Any]:
    """Return the output of a journey that nothing disturbs."""
    return ["one", "two", "three", number, "four"]


def assert_all_is_well(stage: Stage, *tales: Tale, before: dict[str, Any] | None = None) -> None:
    """Check the invariants; the journeys came to the same end as without a fault."""
    outputs = {tale.run["id"]: arrived(tale.number) for tale in tales}
    stage.assert_invariants(outputs, before, most_connections=len(stage.processes))
    for tale in tales:
        assert tale.run["failed_attempts"] == 0


def killed_at(stage: Stage, at: str, nth: int = 1) -> Tale:
    """Begin a journey, have its worker killed at that point, and let its lease run out."""
    wanted = fault(at, "kill", nth)
    if stage.pool is None:
        victim = stage.work(wanted)
        tale = begin(stage)
    else:
        tale = begin(stage)
        victim = stage.work(wanted)
    stage.until_died(wanted, victim)
    stage.work()
    stage.site("let_leases_end")
    return tale


def assert_repeats(stage: Stage, at: str, nth: int, **repeated: int) -> None:
    """Kill the worker there; the run must come to its end, with no more bodies repeated than these."""
    tale = killed_at(stage, at, nth)
    before = stage.site("settled")

    tale.finish()

    assert lines_of(tale.bodies()) == lines_of(Counter(ONCE) + Counter(repeated))
    assert_all_is_well(stage, tale, before=before)


@pytest.mark.stages("prefork")
def test_1_killed_before_the_commit_of_an_event_nothing_exists(stage: Stage) -> None:
    victim = stage.start_site(fault("start.before_commit"))

    with pytest.raises(Died):
        victim("send", "app/journey.begun", {"journey": 1})

    stage.until_died(fault("start.before_commit"), victim)
    stage.work()
    stage.site("sweep")
    assert stage.site("counts") == {"events": 0, "runs": 0, "bookings": 0}
    assert_all_is_well(stage)


@pytest.mark.stages("prefork", "rabbitmq", "embedded")
def test_2_killed_after_the_commit_before_anybody_is_told_the_scheduler_tells(stage: Stage) -> None:
    victim = stage.start_site(fault("start.after_commit"))
    with pytest.raises(Died):
        victim("send", "app/journey.begun", {"journey": 1})
    stage.until_died(fault("start.after_commit"), victim)
    assert stage.ledger("messages") == []

    stage.work()
    stage.site("sweep")

    until(lambda: stage.site("sweep") and stage.site("runs", "project/journey"), "the run starts")
    assert len(stage.site("runs", "project/journey")) == 1
    assert_all_is_well(stage)


@pytest.mark.stages("prefork", "rabbitmq")
def test_3_killed_after_the_hint_left_a_second_hint_starts_no_second_run(stage: Stage) -> None:
    victim = stage.start_site(fault("publish.after"))
    event = victim("send", "app/journey.begun", {"journey": 1})
    stage.until_died(fault("publish.after"), victim)
    stage.site("hint")
    until(lambda: len(stage.ledger("messages")) == 2, "two messages tell of the event")
    stage.work()

    tale = Tale(stage, "journey", event)
    tale.finish()

    assert lines_of(tale.bodies()) == lines_of(Counter(ONCE))
    assert stage.site("counts")["runs"] == 1
    assert_all_is_well(stage, tale)


@pytest.mark.stages(*EVERYWHERE)
def test_4_killed_after_its_claim_the_run_is_taken_over(stage: Stage) -> None:
    assert_repeats(stage, "claim.after", 1)


@pytest.mark.stages(*EVERYWHERE, always=POOLS)
def test_5_killed_inside_a_body_that_body_alone_runs_again(stage: Stage) -> None:
    assert_repeats(stage, "in two", 1, two=1)


@pytest.mark.stages(*EVERYWHERE)
def test_6_killed_after_a_body_before_its_memo_that_body_alone_runs_again(stage: Stage) -> None:
    assert_repeats(stage, "step.before_commit", 2, two=1)


@pytest.mark.stages(*EVERYWHERE, always=POOLS)
def test_7_killed_after_a_memo_no_body_runs_again(stage: Stage) -> None:
    assert_repeats(stage, "step.after_commit", 2)


@pytest.mark.stages("threads", "prefork", "solo", "embedded")
def test_7_killed_after_the_memo_of_one_of_two_async_bodies_that_one_never_runs_again(stage: Stage) -> None:
    wanted = fault("step.after_commit")
    victim = stage.work(wanted)
    tale = Tale(stage, "voyage", stage.site("send", "app/voyage.begun", {}))
    stage.until_died(wanted, victim)
    before = stage.site("settled")
    ((_, recorded, *_),) = stage.site("memos_of", tale.run["id"])

    stage.work()
    stage.site("let_leases_end")
    tale.finish()

    assert set(tale.bodies()) == {"port", "starboard", "anchor"}
    assert (tale.bodies()[recorded], tale.bodies()["anchor"]) == (1, 1)
    outputs = {tale.run["id"]: ["port", "starboard", "anchor"]}
    stage.assert_invariants(outputs, before)


@pytest.mark.stages(*EVERYWHERE)
def test_8_killed_between_the_last_step_and_the_end_no_body_runs_again(stage: Stage) -> None:
    first = stage.work(fault("run.before_end"))
    tale = begin(stage)

    tale.until(lambda run: run["waiting_kind"] == "sleep", "the run sleeps")
    stage.site("let_pass", HOUR)
    tale.until(lambda run: run["waiting_kind"] == "event", "the run waits for a reply")
    stage.site("send", "app/journey.replied", {"journey": 1})
    stage.until_died(fault("run.before_end"), first)
    before = stage.site("settled")
    stage.work()
    stage.site("let_leases_end")
    tale.finish()

    assert lines_of(tale.bodies()) == lines_of(Counter(ONCE))
    assert_all_is_well(stage, tale, before=before)


@pytest.mark.stages(*EVERYWHERE)
def test_9_killed_after_it_parked_the_run_wakes_on_time(stage: Stage) -> None:
    tale = killed_at(stage, "park.after")
    assert tale.run["waiting_kind"] == "sleep"

    stage.site("let_pass", HOUR)
    tale.until(lambda run: run["waiting_kind"] == "event", "the run wakes")

    tale.finish()
    assert lines_of(tale.bodies()) == lines_of(Counter(ONCE))
    assert_all_is_well(stage, tale)


@pytest.mark.stages("prefork", "rabbitmq")
def test_10_a_scheduler_killed_before_it_told_of_what_it_put_off_is_followed_by_another(stage: Stage) -> None:
    tale = killed_at(stage, "claim.after")
    run_id = tale.run["id"]
    sweeper = stage.start_site(fault("sweep.after_update"))

    until(lambda: dies_of_a_look(sweeper), "the scheduler leads, and dies")
    stage.until_died(fault("sweep.after_update"), sweeper)
    assert not [message for message in stage.ledger("messages") if run_id in message["arguments"][1]]
    stage.site("let_pass", REHINT)
    tale.finish()

    assert lines_of(tale.bodies()) == lines_of(Counter(ONCE))
    assert_all_is_well(stage, tale)


def dies_of_a_look(sweeper: Site) -> bool:
    """Let that process look for what is due; tell whether it died."""
    try:
        sweeper("sweep")
    except Died:
        return True
    return False


@pytest.mark.stages("prefork", "solo", "embedded")
def test_11_killed_while_it_matches_events_every_wait_is_resolved_once(stage: Stage) -> None:
    first = stage.work()
    tales = [begin(stage, number) for number in (1, 2)]
    for tale in tales:
        tale.until(lambda run: run["waiting_kind"] == "sleep", "the run sleeps")
    stage.site("let_pass", HOUR)
    for tale in tales:
        tale.until(lambda run: run["waiting_kind"] == "event", "the run waits for a reply")
    first.kill()
    victim = stage.work(fault("match.mid"))

    with_start = [("app/journey.replied", {"journey": 1}), ("app/journey.begun", {"journey": 3})]
    stage.site("send_pairs", [*with_start, ("app/journey.replied", {"journey": 2})])
    stage.until_died(fault("match.mid"), victim)
    assert [tale.run["status"] for tale in tales] == ["waiting", "waiting"]
    stage.work()
    stage.site("hint")

    for tale in tales:
        tale.until(lambda run: run["status"] == "completed", "the run ends")
        assert lines_of(tale.bodies()) == lines_of(Counter(ONCE))
    assert len(stage.site("runs", "project/journey")) == 3
    assert_all_is_well(stage, *tales)


@pytest.mark.stages("prefork", "threads", "embedded")
def test_12_killed_in_a_failure_handler_it_goes_on_and_runs_once(stage: Stage) -> None:
    victim = stage.work(fault("in mourn"))
    stage.site("send", "app/doom.called", {})
    stage.until_died(fault("in mourn"), victim)

    stage.work()
    stage.site("let_leases_end")
    handlers = until(lambda: stage.site("sweep") and ended(stage, "project/doomed.on_failure"), "the handler ends")

    assert [(run["status"], run["output"]) for run in handlers] == [("completed", ["mourn", "tell"])]
    assert Counter(line["step"] for line in stage.ledger()) == {"fail": 1, "mourn": 2, "tell": 1}
    assert_all_is_well(stage)


def ended(stage: Stage, function: str) -> list[dict[str, Any]]:
    """Return the runs of the function once all have ended."""
    runs: list[dict[str, Any]] = stage.site("runs", function)
    return runs if all(run["status"] in ("completed", "failed") for run in runs) else []
