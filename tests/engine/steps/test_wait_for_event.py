"""Waits for events: which event resolves which wait, the look-back at stored ones, and time-outs."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

import pytest

import django_durable as durable
from django_durable.core import clock
from django_durable.core.ids import uuid7
from django_durable.engine.events import index
from django_durable.engine.runs import replays, timers
from django_durable.engine.steps import wait_for_event
from django_durable.engine.workers import ingest
from django_durable.models import Event, EventKey, MatchFailure, MatchPath, Run, Step, Wait
from tests.engine.conftest import Engine, in_seconds

HOUR = datetime.timedelta(hours=1)
Handler = Callable[[durable.Event, durable.Step], Any]


def waiting(**options: Any) -> Handler:
    """Return a handler that waits for ``test/reply`` and returns the data of what came."""

    def handler(event: durable.Event, step: durable.Step) -> Any:
        reply = step.wait_for_event("wait", **{"event": "test/reply", "timeout": "1h", **options})
        return reply and reply.data

    return handler


def napping(handler: Handler) -> Handler:
    """Return a handler that sleeps for an hour first."""

    def napper(event: durable.Event, step: durable.Step) -> Any:
        step.sleep("nap", "1h")
        return handler(event, step)

    return napper


def reply(data: dict[str, Any] | None = None, name: str = "test/reply", **options: Any) -> None:
    """Send an event that a wait may wait for."""
    durable.send_event(name, data, **options)


def output(run: Run) -> str | None:
    """Return the run's result, or None while it waits."""
    run.refresh_from_db()
    assert run.status in ("waiting", "completed"), run.error
    return run.output


def store_silently(name: str = "test/reply", data: dict[str, Any] | None = None, *, later: float = 0.0) -> Event:
    """Store an event received *later* seconds from now, whose hint is lost."""
    at = clock.now() + datetime.timedelta(seconds=later)
    return Event.objects.create(id=uuid7(), name=name, data=data or {}, ts=at, received_at=at, ingest_at=at)


# Which events match


@pytest.mark.parametrize(
    ("wanted", "came", "matches"),
    [
        (1, 1, True),
        (1, 1.0, True),
        (1, "1", False),
        (1, True, False),
        ("a", "a", True),
        ("a", "A", False),
        ("a", "a ", False),
        ([1, {"b": 2}], [1.0, {"b": 2}], True),
        (2**60, 2**60, True),
        (2**60, 2**60 + 1, False),
        (None, None, False),
        (1, None, False),
    ],
)
def test_match_compares_the_same_path_of_both_events(engine: Engine, wanted: Any, came: Any, matches: bool) -> None:
    engine.function()(waiting(match="data.user.id"))
    run = engine.start({"user": {"id": wanted}})

    reply({"user": {"id": came}})

    assert (output(run) is not None) is matches


def test_an_event_without_the_path_does_not_match(engine: Engine) -> None:
    engine.function()(waiting(match="data.user.id"))
    run = engine.start({"user": {"id": 1}})

    reply({})
    reply({"user": None})

    assert output(run) is None


def test_a_trigger_without_the_path_fails_the_run_and_names_both(engine: Engine) -> None:
    engine.function()(waiting(match="data.user.id"))

    run = engine.start({})

    assert run.status == "failed"
    assert run.error is not None
    assert "test/start" in run.error
    assert "data.user.id" in run.error


@pytest.mark.parametrize(
    ("condition", "came", "matches"),
    [
        ("async.data.id == event.data.id", {"id": 7}, True),
        ("async.data.id == event.data.id", {"id": 7.0}, True),
        ("async.data.id == event.data.id", {"id": "7"}, False),
        ("async.data.kind == 'paid' && async.data.amount > 10", {"kind": "paid", "amount": 11}, True),
        ("async.data.kind == 'paid' && async.data.amount > 10", {"kind": "paid", "amount": 9}, False),
        ("async.data.kind == 'paid' || async.data.amount > 10", {"kind": "lost", "amount": 11}, True),
        ("async.data.none == event.data.none", {"none": None}, True),
    ],
)
def test_a_condition_decides(engine: Engine, condition: str, came: dict[str, Any], matches: bool) -> None:
    engine.function()(waiting(if_=condition))
    run = engine.start({"id": 7, "none": None})

    reply(came)

    assert (output(run) is not None) is matches


def test_match_and_condition_must_both_hold(engine: Engine) -> None:
    engine.function()(
        waiting(match="data.id", if_="async.data.amount > event.data.amount && async.data.kind == 'paid'")
    )
    run = engine.start({"id": 7, "amount": 10})

    reply({"id": 8, "amount": 11, "kind": "paid"})
    reply({"id": 7, "amount": 10, "kind": "paid"})
    reply({"id": 7, "amount": 11, "kind": "lost"})
    assert output(run) is None

    reply({"id": 7, "amount": 11, "kind": "paid"})
    assert output(run) is not None


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


def test_paths_that_differ_in_case_only_are_kept_apart(engine: Engine) -> None:
    engine.function("upper")(waiting(match="data.userId"))
    engine.function("lower")(waiting(match="data.userid"))
    durable.send_event("test/start", {"userId": 1, "userid": 2})

    reply({"userId": 1})
    reply({"userid": 2})

    assert sorted(Run.objects.values_list("output", flat=True)) == ['{"userId":1}', '{"userid":2}']


def test_a_condition_longer_than_the_columns_for_people_still_works(engine: Engine) -> None:
    condition = " && ".join(f"async.data.value != 'forbidden value number {number}'" for number in range(15))
    engine.function()(waiting(if_=condition))
    run = engine.start()

    reply({"value": 1})

    assert output(run) == '{"value":1}'


def test_paths_too_long_for_the_index_still_match(engine: Engine) -> None:
    names = [letter * 100 for letter in "abc"]
    engine.function()(waiting(if_=" && ".join(f"async.data.{name} == event.data.{name}" for name in names)))
    run = engine.start(dict.fromkeys(names, 1))

    reply(dict.fromkeys(names, 2))
    assert output(run) is None

    reply(dict.fromkeys(names, 1))
    assert output(run) is not None


# Several runs, several events


def test_an_event_resolves_every_wait_that_it_matches_in_all_runs(engine: Engine) -> None:
    engine.function("one")(waiting(match="data.id"))
    engine.function("two")(waiting(event="test/*", if_="async.data.id == event.data.id && async.name == 'test/reply'"))
    engine.function("three")(waiting(if_="async.data.id > 0"))
    for id in (1, 1, 2):
        durable.send_event("test/start", {"id": id})

    reply({"id": 1})

    resolved = Run.objects.filter(status="completed").order_by("id").values_list("function__slug", flat=True)
    assert list(resolved) == ["one", "two", "three", "one", "two", "three", "three"]
    assert Wait.objects.count() == 2


def test_the_first_event_that_was_ingested_wins(engine: Engine) -> None:
    engine.function()(waiting(if_="async.data.n > 1"))
    run = engine.start()
    for number in range(4):
        store_silently(data={"n": number})

    engine.settle()

    assert output(run) == '{"n":2}'


def test_a_resolved_wait_is_gone_and_its_step_names_the_event(engine: Engine) -> None:
    engine.function()(waiting())
    run = engine.start()
    assert (run.waiting_kind, run.waiting_for) == ("event", "event test/reply")

    event_id = durable.send_event("test/reply")

    assert not Wait.objects.exists()
    step = engine.step("wait")
    assert (step.status, str(step.event_id), step.seq) == ("completed", event_id, 1)


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


def test_waits_of_one_event_name_may_compare_several_paths(engine: Engine) -> None:
    engine.function("a")(waiting(match="data.a"))
    engine.function("b")(waiting(match="data.b"))
    engine.function("ab")(waiting(if_="async.data.a == event.data.a && async.data.b == event.data.b"))
    engine.function("literal")(waiting(if_="async.data.b == 2"))
    durable.send_event("test/start", {"a": 1, "b": 2})

    def resolved() -> list[str]:
        done = Run.objects.filter(status="completed")
        return sorted(done.values_list("function__slug", flat=True))

    reply({"a": 1, "b": 3})
    assert resolved() == ["a"]
    reply({"a": 1, "b": 2})
    assert resolved() == ["a", "ab", "b", "literal"]


def test_open_waits_without_a_path_are_read_page_by_page(engine: Engine, small_pages: None) -> None:
    engine.function()(waiting(if_="async.data.n >= event.data.n"))
    for number in range(5):
        durable.send_event("test/start", {"n": number})

    reply({"n": 3})

    assert Run.objects.filter(status="completed").count() == 4


# Conditions that cannot be evaluated


def test_a_condition_that_errors_is_no_match_and_is_told(engine: Engine) -> None:
    engine.function()(waiting(if_="async.data.amount > event.data.amount"))
    run = engine.start({"amount": 1})

    reply({"amount": "much"})
    reply({})
    assert output(run) is None
    reply({"amount": 2})

    assert output(run) == '{"amount":2}'
    failures = MatchFailure.objects.order_by("id")
    assert [(each.run_id, each.expression) for each in failures] == [
        (run.id, "async.data.amount > event.data.amount")
    ] * 2
    assert "amount" in failures[1].reason


def test_failures_to_match_are_kept_up_to_a_limit(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "FAILURES", 2)
    engine.function()(waiting(if_="async.data.amount > event.data.amount"))
    for _ in range(3):
        durable.send_event("test/start", {"amount": 1})

    reply({})

    assert MatchFailure.objects.count() == 2


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


def test_an_event_received_too_late_does_not_resolve_an_open_wait(engine: Engine) -> None:
    engine.function()(waiting())
    run = engine.start()
    store_silently(data={"n": 1}, later=3601)
    clock.move(2 * HOUR)

    for _ in ingest.ingest_events():
        pass

    assert (output(run), Wait.objects.count()) == (None, 1)
    engine.settle()
    assert output(run) == "null"


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


def test_a_run_whose_input_was_damaged_holds_up_no_other(engine: Engine) -> None:
    engine.function()(waiting(match="data.user"))
    damaged = engine.start({"user": 7})
    Run.objects.filter(id=damaged.id).update(input='{"$": "dict", "v": 5}')
    engine.start({"user": 7})

    durable.send_event("test/reply", {"user": 7})

    assert [run.status for run in Run.objects.order_by("id")] == ["waiting", "completed"]
    assert "cannot be read back" in MatchFailure.objects.get().reason
