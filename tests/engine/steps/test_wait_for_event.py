"""Waits for events: which event resolves which wait, the look-back at stored ones, and time-outs."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

import django_durable as durable
from django_durable.core import clock
from django_durable.engine.events import index
from django_durable.engine.runs import replays, timers
from django_durable.engine.steps import wait_for_event
from django_durable.models import EventKey, MatchPath, Run, Step, Wait
from tests.engine.conftest import Engine, in_seconds
from tests.engine.waits import HOUR, napping, output, reply, store_silently, waiting

# Which events match


def test_a_trigger_without_the_path_fails_the_run_and_names_both(engine: Engine) -> None:
    engine.function()(waiting(match="data.user.id"))

    run = engine.start({})

    assert run.status == "failed"
    assert run.error is not None
    assert "test/start" in run.error
    assert "data.user.id" in run.error


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("shop/order.paid", "shop/order.paid", True),
        ("shop/order.*", "shop/order.paid", True),
        ("shop/*", "shop/order.paid", True),
        ("shop/*", "shop", False),
        ("shop/*", "shopping/order", False),
        ("Shop/*", "shop/order.paid", False),
        ("shop/order.paid", "shop/order.Paid", False),
        ("shop/order_x/*", "shop/orderYx/paid", False),
    ],
)
@pytest.mark.parametrize("match", [None, "data.id"])
def test_a_name_or_wildcard_decides(engine: Engine, pattern: str, name: str, matches: bool, match: str | None) -> None:
    engine.function("waits")(waiting(event=pattern, match=match))
    engine.function("looks-back")(napping(waiting(event=pattern, match=match)))
    durable.send_event("test/start", {"id": 1})

    reply({"id": 1}, name)
    engine.advance("1h")

    resolved = Run.objects.filter(output='{"id":1}').order_by("id").values_list("function__slug", flat=True)
    assert list(resolved) == (["waits", "looks-back"] if matches else [])


def test_a_condition_longer_than_the_columns_for_people_still_works(engine: Engine) -> None:
    condition = " && ".join(f"async.data.value != 'forbidden value number {number}'" for number in range(15))
    engine.function()(waiting(if_=condition))
    run = engine.start()

    reply({"value": 1})

    assert output(run) == '{"value":1}'


# Look-back


def test_an_event_that_came_before_its_wait_resolves_it(engine: Engine) -> None:
    engine.function()(napping(waiting()))
    engine.start()
    reply({"n": 1})
    reply({"n": 2})

    assert output(engine.advance("2h")) == '{"n":1}'


def test_an_event_from_before_the_trigger_does_not_count(engine: Engine) -> None:
    engine.function()(waiting())
    reply()

    assert output(engine.start()) is None


def test_events_of_one_batch_count_when_they_follow_the_trigger(engine: Engine) -> None:
    engine.function()(waiting())

    durable.send_events(
        [
            durable.Event("test/reply", {"n": 1}),
            durable.Event("test/start", {}),
            durable.Event("test/reply", {"n": 2}),
        ]
    )

    assert output(engine.run()) == '{"n":2}'


@pytest.mark.parametrize("options", [{"event": "test/start"}, {"event": "test/*"}], ids=["by name", "by wildcard"])
@pytest.mark.parametrize("match", [None, "data.id"])
def test_the_trigger_itself_never_counts(engine: Engine, options: dict[str, str], match: str | None) -> None:
    engine.function()(waiting(**options, match=match))

    run = engine.start({"id": 1})
    assert output(run) is None

    reply({"id": 1}, options["event"].replace("*", "other"))
    assert output(run) == '{"id":1}'


def test_a_replayed_run_looks_back_to_its_own_creation(engine: Engine) -> None:
    engine.function()(waiting())
    run = engine.start()
    reply({"n": 1})
    assert output(run) == '{"n":1}'

    replayed = Run.objects.get(id=replays.replay(run.id))

    assert output(replayed) is None


def test_an_invoked_run_looks_back_to_its_own_creation(engine: Engine) -> None:
    child = engine.function("child", trigger="test/never")(napping(waiting()))

    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> Any:
        step.sleep("nap-first", "1h")
        return step.invoke("child", child)

    engine.start()
    reply({"n": 1})
    engine.advance("1h")
    reply({"n": 2})

    engine.advance("2h")
    assert Run.objects.get(function_id=fn.id).output == '{"n":2}'


def test_a_loop_over_one_wait_takes_each_event_once(engine: Engine) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> list[Any]:
        step.sleep("nap", "1h")
        return [step.wait_for_event("wait", "test/reply", timeout="1h") for _ in range(3)]

    engine.start()
    reply({"n": 1})
    reply({"n": 2})
    run = engine.advance("1h")
    assert [engine.step("wait", ordinal).status for ordinal in range(3)] == ["completed", "completed", "waiting"]

    reply({"n": 3})

    assert output(run) is not None
    taken = Step.objects.filter(name="wait").order_by("ordinal").values_list("event__data", flat=True)
    assert list(taken) == [{"n": 1}, {"n": 2}, {"n": 3}]


def test_waits_of_other_ids_may_take_the_same_event(engine: Engine) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> list[Any]:
        found = [step.wait_for_event(id, "test/reply", timeout="1h") for id in ("one", "two")]
        return [each and each.data for each in found]

    run = engine.start()
    reply({"n": 1})

    assert output(run) == '[{"n":1},{"n":1}]'


def test_without_look_back_only_later_events_count(engine: Engine) -> None:
    engine.function()(napping(waiting(lookback=False)))
    engine.start()
    reply({"n": 1})
    run = engine.advance("2h")
    assert output(run) is None

    reply({"n": 2})

    assert output(run) == '{"n":2}'


def test_without_look_back_an_event_received_before_but_ingested_later_does_not_count(engine: Engine) -> None:
    engine.function()(waiting(lookback=False))
    event = store_silently(data={"n": 1}, later=-1)
    run = engine.start()
    event.refresh_from_db()
    assert event.ingested_at is not None
    late = store_silently(data={"n": 2}, later=-2)

    engine.settle()

    late.refresh_from_db()
    assert late.ingested_at is not None
    assert output(run) is None


def test_a_duration_looks_back_as_far_as_that(engine: Engine) -> None:
    engine.function()(napping(waiting(lookback="30m")))
    engine.start()
    reply({"n": 1})
    clock.move(datetime.timedelta(minutes=40))
    reply({"n": 2})
    reply({"n": 3})

    assert output(engine.advance("20m")) == '{"n":2}'


def test_since_a_step_looks_back_to_its_end(engine: Engine) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> Any:
        for _ in range(2):
            step.sleep("nap", "1h")
        step.sleep("last", "1h")
        found = step.wait_for_event("wait", "test/reply", timeout="1h", lookback="since:nap")
        return found and found.data

    engine.start()
    for number in range(3):
        reply({"n": number})
        engine.advance("1h")

    assert output(engine.run()) == '{"n":2}'


@pytest.mark.parametrize("step_id", ["unknown", "later", ""])
def test_since_a_step_that_has_not_finished_is_refused(engine: Engine, step_id: str) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        step.wait_for_event("wait", "test/reply", timeout="1h", lookback=f"since:{step_id}")
        step.run("later", list)

    run = engine.start()

    assert run.status == "failed"
    assert run.error is not None
    assert "InvalidStep" in run.error
    assert f"since:{step_id}" in run.error


# Stored events and the index


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read two events at once, so that a few are several pages."""
    monkeypatch.setattr(wait_for_event, "PAGE", 2)
    monkeypatch.setattr(index, "PAGE", 2)


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"match": "data.id"}, 6),
        ({"event": "test/*", "match": "data.id"}, 6),
        ({"if_": "async.data.n > 4"}, 5),
        ({"if_": "async.data.id == event.data.id && async.data.n > 6"}, 7),
        ({"if_": "async.data.id == event.data.id && async.data.kind == 'b'"}, 7),
        ({"if_": "async.data.n > 99"}, None),
    ],
)
def test_stored_events_are_found_on_any_page(
    engine: Engine, small_pages: None, options: dict[str, str], found: int | None
) -> None:
    engine.function()(napping(waiting(**options)))
    engine.start({"id": 1})
    for number in range(9):
        reply({"n": number, "id": int(number > 5), "kind": "ab"[number % 2]})

    result = output(engine.advance("1h"))

    assert (result is None) is (found is None)
    assert found is None or f'"n":{found}' in str(result)


def test_the_events_of_a_path_are_indexed_when_a_wait_first_uses_it(engine: Engine, small_pages: None) -> None:
    engine.function()(waiting(match="data.id"))
    for number in range(5):
        reply({"id": number})
    reply({"other": 1})
    assert not EventKey.objects.exists()

    engine.start({"id": 3})

    path = MatchPath.objects.get()
    assert (path.name, path.path, path.backfilled_at is None) == ("test/reply", "data.id", False)
    assert EventKey.objects.count() == 5
    reply({"id": 9})
    assert EventKey.objects.count() == 6


def test_a_back_fill_that_was_cut_off_is_finished_by_the_next_wait(engine: Engine) -> None:
    engine.function()(napping(waiting(match="data.id")))
    engine.start({"id": 1})
    reply({"id": 1})
    MatchPath.objects.create(name="test/reply", path="data.id")

    assert output(engine.advance("1h")) == '{"id":1}'
    assert MatchPath.objects.get().backfilled_at is not None


# Conditions that cannot be evaluated


def test_a_stored_event_on_which_the_condition_errors_does_not_match(engine: Engine) -> None:
    engine.function()(napping(waiting(if_="async.data.amount > event.data.amount")))
    engine.start({"amount": 1})
    reply({})
    reply({"amount": 2})

    assert output(engine.advance("1h")) == '{"amount":2}'


# Time-outs


def test_a_wait_times_out_with_none_and_is_not_waited_for_again(engine: Engine) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> list[bool]:
        first = step.wait_for_event("wait", "test/reply", timeout="1h")
        step.sleep("nap", "1h")
        return [first is None]

    run = engine.start()
    assert round(in_seconds(run.next_at) / 10) == 360
    assert engine.advance("59m").waiting_kind == "event"

    assert engine.advance("1m").waiting_kind == "sleep"

    step = engine.step("wait")
    assert (step.status, step.event_id, Wait.objects.count()) == ("completed", None, 0)
    reply()
    assert output(engine.advance("1h")) == "[true]"


def test_an_event_received_in_time_wins_though_it_is_ingested_later(engine: Engine) -> None:
    engine.function()(waiting())
    run = engine.start()
    store_silently(data={"n": 1}, later=3599)

    clock.move(2 * HOUR)
    timers.fire([run.id])
    assert output(run) is None

    engine.settle()
    assert output(run) == '{"n":1}'


def test_a_time_out_waits_for_events_received_in_time_only(engine: Engine) -> None:
    engine.function()(waiting())
    run = engine.start()
    store_silently(later=3601)

    clock.move(2 * HOUR)
    timers.fire([run.id])

    assert output(run) == "null"


def test_a_wait_of_no_time_takes_what_is_there_or_times_out(engine: Engine) -> None:
    engine.function()(napping(waiting(timeout="0s")))
    engine.start()
    engine.advance("1h")
    engine.settle()
    assert output(engine.run()) == "null"

    engine.start()
    reply({"n": 1})
    assert output(engine.advance("1h")) == '{"n":1}'


def test_many_waits_that_are_due_together_all_time_out(engine: Engine) -> None:
    engine.function()(waiting())
    durable.send_events(durable.Event("test/start") for _ in range(250))

    engine.advance("1h")

    assert Run.objects.filter(status="completed", output="null").count() == 250


def test_a_wait_survives_a_wake_up_that_is_not_its_event(engine: Engine) -> None:
    from django_durable.engine.store.stores import get_store

    engine.function()(waiting())
    run = engine.start()

    get_store().wake([run.id], rehint=HOUR)
    engine.settle()
    run.refresh_from_db()
    assert (run.status, Wait.objects.count()) == ("waiting", 1)
    assert round(in_seconds(run.next_at) / 10) == 360

    reply({"n": 1})
    assert output(run) == '{"n":1}'
