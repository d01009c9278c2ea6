"""Waiting for events and signals: which ones count, for how long, and once only."""

from __future__ import annotations

from typing import Any

import pytest

import django_durable as durable
from django_durable.engine.steps import wait_for_signal
from django_durable.models import Wait
from tests.scenarios.conftest import Play


def test_a_wait_returns_the_event_that_comes(play: Play) -> None:
    async def handler(event: durable.Event, step: durable.Step) -> Any:
        reply = await step.wait_for_event("wait", "test/reply", timeout="1h")
        return [reply.name, reply.data]

    play.start(handler)
    assert play.status == "waiting"
    durable.send_event("test/reply", {"n": 7})

    assert play.result == ["test/reply", {"n": 7}]


def test_a_wait_that_times_out_returns_none(play: Play) -> None:
    async def handler(event: durable.Event, step: durable.Step) -> Any:
        return [await step.wait_for_event("wait", "test/reply", timeout="1h")]

    play.start(handler)
    assert play.advance("59m").status == "waiting"
    play.advance("1m")

    assert play.result == [None]


def test_a_wait_that_timed_out_is_never_waited_for_again(play: Play) -> None:
    async def handler(event: durable.Event, step: durable.Step) -> Any:
        reply = await step.wait_for_event("wait", "test/reply", timeout="1h")
        await step.sleep("nap", "1h")
        return [reply]

    play.start(handler)
    play.advance("1h")
    durable.send_event("test/reply")
    play.advance("1h")

    assert play.result == [None]


@pytest.mark.parametrize(
    ("event", "sent", "counts"),
    [
        ("test/reply", "test/reply", True),
        ("test/reply", "test/replies", False),
        ("test/re.*", "test/re.ply", True),
        ("test/re.*", "other/re.ply", False),
        (["test/yes", "test/no"], "test/no", True),
        (["test/yes", "test/no"], "test/perhaps", False),
    ],
    ids=["name", "other name", "wildcard", "other than the wildcard", "one of a list", "none of a list"],
)
def test_the_name_decides(play: Play, event: Any, sent: str, counts: bool) -> None:
    awaited = event

    async def handler(event: durable.Event, step: durable.Step) -> Any:
        reply = await step.wait_for_event("wait", awaited, timeout="1h")
        return reply and reply.name

    play.start(handler)
    durable.send_event(sent)
    play.advance("1h")

    assert play.result == (sent if counts else None)


def test_of_several_names_the_first_event_counts(play: Play) -> None:
    async def handler(event: durable.Event, step: durable.Step) -> Any:
        reply = await step.wait_for_event("wait", ["test/yes", "test/no"], timeout="1h")
        return reply.name

    play.start(handler)
    durable.send_event("test/no")
    durable.send_event("test/yes")

    assert play.result == "test/no"


@pytest.mark.parametrize(
    ("rule", "data", "counts"),
    [
        ({"match": "data.user.id"}, {"user": {"id": 1}}, True),
        ({"match": "data.user.id"}, {"user": {"id": 2}}, False),
        ({"match": "data.user.id"}, {"user": {"id": "1"}}, False),
        ({"match": "data.user.id"}, {"user": {"id": 1.0}}, True),
        ({"match": "data.user.id"}, {"user": {"id": None}}, False),
        ({"match": "data.user.id"}, {}, False),
        ({"if_": "async.data.n > event.data.n"}, {"n": 6}, True),
        ({"if_": "async.data.n > event.data.n"}, {"n": 5}, False),
        ({"if_": "async.data.n > event.data.n"}, {"n": "6"}, False),
        ({"match": "data.user.id", "if_": "async.data.n > 5"}, {"user": {"id": 1}, "n": 6}, True),
        ({"match": "data.user.id", "if_": "async.data.n > 5"}, {"user": {"id": 2}, "n": 6}, False),
        ({"match": "data.user.id", "if_": "async.data.n > 5"}, {"user": {"id": 1}, "n": 5}, False),
    ],
    ids=[
        *("equal", "another", "text is no number", "equal float", "null", "missing"),
        *("condition true", "condition false", "condition in error"),
        *("both", "condition only", "match only"),
    ],
)
def test_match_and_if_decide(play: Play, rule: dict[str, str], data: dict[str, Any], counts: bool) -> None:
    async def handler(event: durable.Event, step: durable.Step) -> Any:
        return await step.wait_for_event("wait", "test/reply", timeout="1h", **rule) is not None

    play.start(handler, data={"user": {"id": 1}, "n": 5})
    durable.send_event("test/reply", data)
    play.advance("1h")

    assert play.result is counts


def test_a_path_that_the_trigger_lacks_is_an_error_that_names_both(play: Play) -> None:
    async def handler(event: durable.Event, step: durable.Step) -> None:
        await step.wait_for_event("wait", "test/reply", match="data.user.id", timeout="1h")

    play.start(handler, data={"id": 1})

    assert "data.user.id" in play.failure.message
    assert "test/start" in play.failure.message


def test_a_bad_condition_is_refused_when_the_wait_is_registered(play: Play) -> None:
    async def handler(event: durable.Event, step: durable.Step) -> None:
        await step.wait_for_event("wait", "test/reply", if_="async.data.n >", timeout="1h")

    play.start(handler)

    assert "'wait'" in play.failure.message
    assert "line 1, column" in play.failure.message


# Looking back


@pytest.mark.parametrize(
    ("lookback", "counts"),
    [(True, True), (False, False), ("3h", True), ("1h", False), ("since:first", True), ("since:second", False)],
    ids=str,
)
def test_look_back_decides_whether_an_earlier_event_counts(play: Play, lookback: Any, counts: bool) -> None:
    async def handler(event: durable.Event, step: durable.Step) -> Any:
        await step.sleep("first", "1m")
        await step.sleep("second", "2h")
        return await step.wait_for_event("wait", "test/reply", timeout="1h", lookback=lookback) is not None

    play.start(handler)
    play.advance("1m")
    durable.send_event("test/reply")
    play.advance("2h")
    play.advance("1h")

    assert play.result is counts


def test_an_event_from_before_the_trigger_does_not_count(play: Play) -> None:
    async def handler(event: durable.Event, step: durable.Step) -> Any:
        return await step.wait_for_event("wait", "test/reply", timeout="1h") is not None

    durable.send_event("test/reply")
    play.start(handler)
    play.advance("1h")

    assert play.result is False


def test_the_runs_own_trigger_does_not_count(play: Play) -> None:
    async def handler(event: durable.Event, step: durable.Step) -> Any:
        return await step.wait_for_event("wait", "test/*", timeout="1h") is not None

    play.start(handler)
    play.advance("1h")

    assert play.result is False


def test_one_event_resolves_a_wait_of_a_loop_once(play: Play) -> None:
    async def handler(event: durable.Event, step: durable.Step) -> Any:
        taken = []
        while reply := await step.wait_for_event("wait", "test/reply", timeout="1h"):
            taken.append(reply.data["n"])
            await step.sleep("nap", "10m")
        return taken

    play.start(handler)
    durable.send_event("test/reply", {"n": 1})
    durable.send_event("test/reply", {"n": 2})
    play.advance("10m")
    play.advance("10m")
    durable.send_event("test/reply", {"n": 3})
    play.to_the_end()

    assert play.result == [1, 2, 3]


def test_one_event_resolves_waits_of_different_ids(play: Play) -> None:
    async def handler(event: durable.Event, step: durable.Step) -> Any:
        first = await step.wait_for_event("first", "test/reply", timeout="1h")
        second = await step.wait_for_event("second", "test/reply", timeout="1h")
        return first.id == second.id

    play.start(handler)
    durable.send_event("test/reply")

    assert play.result is True


def test_the_earliest_of_several_stored_events_counts(play: Play) -> None:
    async def handler(event: durable.Event, step: durable.Step) -> Any:
        await step.sleep("nap", "1h")
        reply = await step.wait_for_event("wait", "test/reply", timeout="1h")
        return reply.data["n"]

    play.start(handler)
    durable.send_event("test/reply", {"n": 1})
    durable.send_event("test/reply", {"n": 2})
    play.advance("1h")

    assert play.result == 1


def test_an_event_resolves_the_waits_of_all_runs(play: Play) -> None:
    async def handler(event: durable.Event, step: durable.Step) -> Any:
        return await step.wait_for_event("wait", "test/reply", timeout="1h") is not None

    play.start(handler)
    durable.send_event("test/start")
    durable.send_event("test/reply")

    assert [play.result, play.engine.run().output] == [True, "true"]
    assert not Wait.objects.exists()


# By hand


def test_a_wait_is_resolved_by_hand(play: Play) -> None:
    async def handler(event: durable.Event, step: durable.Step) -> Any:
        reply = await step.wait_for_event("wait", "test/reply", timeout="1h")
        return reply.data

    play.start(handler)
    durable.resolve_wait(play.run.id, "wait", {"n": 7})

    assert play.result == {"n": 7}


def test_a_wait_is_timed_out_by_hand(play: Play) -> None:
    async def handler(event: durable.Event, step: durable.Step) -> Any:
        return [await step.wait_for_event("wait", "test/reply", timeout="1h")]

    play.start(handler)
    durable.time_out_wait(play.run.id, "wait")

    assert play.result == [None]


def test_a_sleep_is_ended_by_hand(play: Play) -> None:
    async def handler(event: durable.Event, step: durable.Step) -> str:
        await step.sleep("nap", "30d")
        return "awake"

    play.start(handler)
    durable.wake_run(play.run.id)

    assert play.result == "awake"


# Signals


def test_a_signal_brings_its_data(play: Play) -> None:
    async def handler(event: durable.Event, step: durable.Step) -> Any:
        return await step.wait_for_signal("approval", "approve-7", timeout="1h")

    play.start(handler)
    wait_for_signal.send("approve-7", {"by": "ann"})

    assert play.result == {"by": "ann"}


def test_a_signal_that_does_not_come_in_time_is_none(play: Play) -> None:
    async def handler(event: durable.Event, step: durable.Step) -> Any:
        return [await step.wait_for_signal("approval", "approve-7", timeout="1h")]

    play.start(handler)
    play.advance("1h")
    assert play.result == [None]

    assert not Wait.objects.exists()


def test_a_signal_that_another_run_waits_for_is_an_error(play: Play) -> None:
    async def handler(event: durable.Event, step: durable.Step) -> Any:
        try:
            return await step.wait_for_signal("approval", "approve-7", timeout="1h")
        except durable.StepError as error:
            return error.type

    play.start(handler)
    durable.send_event("test/start")
    assert play.engine.run().output == '"django_durable.exceptions.SignalTaken"'

    wait_for_signal.send("approve-7", 1)
    assert play.result == 1


def test_a_signal_may_be_taken_over(play: Play) -> None:
    async def handler(event: durable.Event, step: durable.Step) -> Any:
        return [await step.wait_for_signal("approval", "approve-7", timeout="1h", replace=True)]

    play.start(handler)
    durable.send_event("test/start")
    assert play.result == [None]

    wait_for_signal.send("approve-7", 1)
    assert play.engine.run().output == "[1]"
