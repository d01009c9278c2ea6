"""Which open waits an arriving event resolves: by its name, its values and the waits' conditions."""

from __future__ import annotations

from typing import Any

import pytest

import django_durable as durable
from django_durable.core import clock
from django_durable.engine.workers import ingest, matching
from django_durable.models import MatchFailure, Run, Wait
from tests.engine.conftest import Engine
from tests.engine.waits import HOUR, output, reply, store_silently, waiting


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


def test_paths_that_differ_in_case_only_are_kept_apart(engine: Engine) -> None:
    engine.function("upper")(waiting(match="data.userId"))
    engine.function("lower")(waiting(match="data.userid"))
    durable.send_event("test/start", {"userId": 1, "userid": 2})

    reply({"userId": 1})
    reply({"userid": 2})

    assert sorted(Run.objects.values_list("output", flat=True)) == ['{"userId":1}', '{"userid":2}']


def test_paths_too_long_for_the_index_still_match(engine: Engine) -> None:
    names = [letter * 100 for letter in "abc"]
    engine.function()(waiting(if_=" && ".join(f"async.data.{name} == event.data.{name}" for name in names)))
    run = engine.start(dict.fromkeys(names, 1))

    reply(dict.fromkeys(names, 2))
    assert output(run) is None

    reply(dict.fromkeys(names, 1))
    assert output(run) is not None


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


def test_open_waits_without_a_path_are_read_page_by_page(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "PAGE", 2)
    engine.function()(waiting(if_="async.data.n >= event.data.n"))
    for number in range(5):
        durable.send_event("test/start", {"n": number})

    reply({"n": 3})

    assert Run.objects.filter(status="completed").count() == 4


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


def test_a_run_whose_input_was_damaged_holds_up_no_other(engine: Engine) -> None:
    engine.function()(waiting(match="data.user"))
    damaged = engine.start({"user": 7})
    Run.objects.filter(id=damaged.id).update(input='{"$": "dict", "v": 5}')
    engine.start({"user": 7})

    durable.send_event("test/reply", {"user": 7})

    assert [run.status for run in Run.objects.order_by("id")] == ["waiting", "completed"]
    assert "cannot be read back" in MatchFailure.objects.get().reason
