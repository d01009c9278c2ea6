"""Replays: from the start and from a step, with the same input and with another, one and many."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import DatabaseError, connection, transaction
from django.test.utils import CaptureQueriesContext

import django_durable as durable
from django_durable.core import clock
from django_durable.core.functions import registry
from django_durable.core.ids import uuid7
from django_durable.core.replay.operations import step_key
from django_durable.engine.runs import replays
from django_durable.models import BatchedEvent, Event, Run, Step
from tests.engine.conftest import Engine, failing, failure_of


def runs_of(slug: str) -> list[Run]:
    return list(Run.objects.filter(function=f"project/{slug}").order_by("id"))


def nothing() -> None:
    """Do nothing."""


def steps_of(run: Run) -> list[tuple[str, int, str, int | None]]:
    steps = Step.objects.filter(run=run).order_by("seq")
    return list(steps.values_list("name", "ordinal", "status", "seq"))


@pytest.fixture
def calls() -> list[Any]:
    """Give a list for steps to write to."""
    return []


@pytest.fixture
def three_steps(engine: Engine, calls: list[Any]) -> None:
    """Register a function of the steps a, b and c, each of which notes that it ran."""

    def note(name: str, value: Any) -> Any:
        calls.append(name)
        return value

    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> Any:
        a = step.run("a", note, "a", Decimal("1.50"))
        b = step.run("b", note, "b", event.data.get("n"))
        return step.run("c", note, "c", f"{a} {b}")


# From the start


def test_a_replay_is_a_new_run_that_points_at_the_old_one(engine: Engine) -> None:
    calls = []

    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> Any:
        step.run("a", calls.append, step.run_id)
        return event.data["n"]

    old = engine.start({"n": 7})
    new_id = replays.replay(old.id)

    new = engine.run()
    assert (new.id, new.replay_of_id, new.event_id) == (new_id, old.id, old.event_id)
    assert (new.status, new.output) == ("completed", "7")
    assert calls == [str(old.id), str(new.id)]


def test_the_replayed_run_stays_as_it_is(engine: Engine) -> None:
    @engine.function(retries=0)
    def fn(event: durable.Event, step: durable.Step) -> None:
        step.run("a", nothing)
        raise ValueError

    old = engine.start()
    before = Run.objects.values().get(id=old.id), Step.objects.values().get(run=old)
    replays.replay(old.id)
    replays.replay(old.id, from_step="a", data={"n": 1})

    assert (Run.objects.values().get(id=old.id), Step.objects.values().get(run=old)) == before


def test_a_run_can_be_replayed_often_and_before_it_ended(engine: Engine) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        step.sleep("nap", "1h")

    old = engine.start()
    replays.replay(old.id)
    replays.replay(old.id)
    engine.advance("1h")

    assert [run.status for run in runs_of("fn")] == ["completed"] * 3


def test_a_replayed_child_has_its_input_and_no_parent(engine: Engine) -> None:
    @engine.function("child", trigger=None)
    def child(event: durable.Event, step: durable.Step) -> Any:
        return event.data["n"]

    @engine.function("parent")
    def parent(event: durable.Event, step: durable.Step) -> None:
        step.invoke("call", child, {"n": 7})

    durable.send_event("test/start")
    replays.replay(runs_of("child")[0].id)

    new = runs_of("child")[1]
    assert (new.output, new.parent_id) == ("7", None)


def test_a_replay_goes_with_its_transaction(engine: Engine, three_steps: None) -> None:
    old = engine.start()

    with transaction.atomic():
        replays.replay(old.id, from_step="b")
        transaction.set_rollback(True)

    assert (Run.objects.count(), Step.objects.count()) == (1, 3)


def test_a_run_that_does_not_exist_cannot_be_replayed(engine: Engine) -> None:
    with pytest.raises(durable.RunNotFound):
        replays.replay(UUID(int=7))


def test_a_run_whose_function_is_gone_cannot_be_replayed(engine: Engine) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        """Do nothing."""

    old = engine.start()
    registry._functions.clear()

    with pytest.raises(durable.ConfigurationError, match="There is no durable function 'project/fn'"):
        replays.replay(old.id)
    assert Run.objects.count() == 1


def test_the_events_of_a_batch_come_along(engine: Engine, three_steps: None) -> None:
    old = engine.start()
    now = clock.now()
    others = [Event.objects.create(id=uuid7(), name="x", ts=now, received_at=now, ingest_at=now) for _ in range(3)]
    BatchedEvent.objects.bulk_create(
        BatchedEvent(run=old, position=position, event=event) for position, event in enumerate(others)
    )

    new_id = replays.replay(old.id)

    batch = BatchedEvent.objects.filter(run_id=new_id).order_by("position").values_list("position", "event_id")
    assert list(batch) == [(position, event.id) for position, event in enumerate(others)]


# With other data


def test_a_replay_gets_other_data_and_keeps_the_rest_of_its_event(engine: Engine) -> None:
    seen: list[durable.Event] = []
    engine.function()(lambda event, step: seen.append(event))

    old = engine.start({"n": 1}, user={"id": 3}, v="2")
    replays.replay(old.id, data={"price": Decimal("9.90")})

    first, second = seen
    assert second.data == {"price": Decimal("9.90")}
    assert (second.id, second.name, second.user, second.v) == (first.id, first.name, first.user, first.v)


def test_a_replay_of_a_replay_keeps_the_other_data(engine: Engine, three_steps: None) -> None:
    old = engine.start({"n": 1})
    edited = replays.replay(old.id, data={"n": 2})

    replays.replay(edited)

    assert engine.run().output == '"1.50 2"'


def test_data_that_cannot_be_stored_is_refused_and_starts_nothing(engine: Engine, three_steps: None) -> None:
    old = engine.start()

    with pytest.raises(durable.EncodingError, match=r'data\["f"\]'):
        replays.replay(old.id, data={"f": open})
    assert Run.objects.count() == 1


def test_the_event_of_a_failure_is_not_edited_into_something_that_no_handler_can_read(engine: Engine) -> None:
    seen: list[durable.FailureEvent] = []
    engine.function(retries=0, on_failure=lambda event, step: seen.append(event))(lambda event, step: 1 / 0)
    engine.start()
    [handler] = runs_of("fn.on_failure")

    with pytest.raises(durable.ReplayRefused, match=r"durable/function.failed events cannot hold this data"):
        replays.replay(handler.id, data={"n": 1})
    replays.replay(handler.id)

    assert [event.error.type for event in seen] == ["builtins.ZeroDivisionError"] * 2


# From a step


def test_what_was_recorded_before_the_step_is_kept_and_the_rest_runs_again(
    engine: Engine, three_steps: None, calls: list[Any]
) -> None:
    old = engine.start({"n": 7})
    calls.clear()

    new_id = replays.replay(old.id, from_step="b")

    new = engine.run()
    assert (new.id, new.replay_of_id, new.status, new.output) == (new_id, old.id, "completed", '"1.50 7"')
    assert calls == ["b", "c"]
    assert steps_of(new) == steps_of(old)
    assert new.steps == 3
    copied = Step.objects.values().get(run=new, name="a")
    assert copied | {"run_id": old.id} == Step.objects.values().get(run=old, name="a")


def test_a_replay_from_a_step_takes_other_data_for_what_runs_again(
    engine: Engine, three_steps: None, calls: list[Any]
) -> None:
    old = engine.start({"n": 7})
    calls.clear()

    replays.replay(old.id, from_step="c", data={"n": 8})
    assert (engine.run().output, calls) == ('"1.50 7"', ["c"])

    replays.replay(old.id, from_step="b", data={"n": 8})
    assert engine.run().output == '"1.50 8"'


def test_a_replay_from_the_first_step_keeps_nothing(engine: Engine, three_steps: None, calls: list[Any]) -> None:
    old = engine.start()
    calls.clear()

    replays.replay(old.id, from_step="a")

    assert (calls, engine.run().steps) == (["a", "b", "c"], 3)


@pytest.mark.parametrize(
    ("from_step", "again"),
    [("add", [0, 1, 2]), (("add", 0), [0, 1, 2]), (("add", 1), [1, 2]), ("add#1", [1, 2]), (("add", 2), [2])],
)
def test_a_step_of_a_loop_is_named_with_its_ordinal(engine: Engine, from_step: Any, again: list[int]) -> None:
    calls: list[int] = []

    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        for number in range(3):
            step.run("add", calls.append, number)

    old = engine.start()
    calls.clear()
    replays.replay(old.id, from_step=from_step)

    assert calls == again


def test_an_id_with_a_number_sign_is_found_as_it_is_written(engine: Engine) -> None:
    calls: list[str] = []

    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        step.run("a#1", calls.append, "first")
        step.run("b", calls.append, "second")

    old = engine.start()
    calls.clear()
    replays.replay(old.id, from_step="b")
    replays.replay(old.id, from_step="a#1")

    assert calls == ["second", "first", "second"]


def test_a_failed_step_is_tried_again_with_all_its_attempts(engine: Engine) -> None:
    works: list[bool] = []

    def charge() -> str:
        if not works:
            raise ValueError("declined")
        return "paid"

    @engine.function(retries=0)
    def fn(event: durable.Event, step: durable.Step) -> str:
        step.run("reserve", nothing)
        return step.run("charge", charge)

    old = engine.start()
    works.append(True)
    replays.replay(old.id, from_step="charge")

    assert (old.status, engine.run().output) == ("failed", '"paid"')


def test_an_error_that_was_caught_before_the_step_is_kept(engine: Engine) -> None:
    calls: list[str] = []

    @engine.function(retries=0)
    def fn(event: durable.Event, step: durable.Step) -> str:
        try:
            step.run("charge", int, "no number")
        except durable.StepError as error:
            step.run("tell", calls.append, error.message)
            return f"{error.type} after {error.attempts}"
        return ""

    old = engine.start()
    calls.clear()
    replays.replay(old.id, from_step="tell")

    assert engine.run().output == old.output == '"builtins.ValueError after 1"'
    assert len(calls) == 1


def test_an_event_that_resolved_a_wait_is_kept(engine: Engine) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> Any:
        reply = step.wait_for_event("wait", "test/reply", timeout="1h")
        step.run("after", nothing)
        return reply and reply.data["n"]

    engine.start()
    durable.send_event("test/reply", {"n": 7})
    replays.replay(engine.run().id, from_step="after")

    assert (engine.run().output, Step.objects.filter(name="wait", event__isnull=False).count()) == ("7", 2)


def test_an_open_step_is_reached_again_and_not_copied(engine: Engine) -> None:
    calls: list[str] = []

    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        step.run("a", calls.append, "a")
        step.sleep("nap", "1h")
        step.run("b", calls.append, "b")

    old = engine.start()
    engine.advance("30m")
    replays.replay(old.id, from_step="nap")

    assert (calls, engine.run().status) == (["a"], "waiting")
    assert engine.step("nap").planned_at > Step.objects.get(run=old, name="nap").planned_at
    engine.advance("59m")
    assert (calls, engine.run().status) == (["a", "b"], "waiting")
    engine.advance("1m")
    assert (calls, engine.run().status) == (["a", "b", "b"], "completed")


def test_a_step_that_is_not_recorded_is_refused_with_those_that_are(engine: Engine, three_steps: None) -> None:
    old = engine.start()

    with pytest.raises(durable.StepNotFound) as refused:
        replays.replay(old.id, from_step="d")

    assert str(refused.value) == f"Run {old.id} has no step 'd'; its steps are 'a', 'b', 'c'"
    assert (refused.value.step, refused.value.known, Run.objects.count()) == ("d", ["a", "b", "c"], 1)


@pytest.mark.parametrize("step", [("a", 1), "a#1", "A", "", "a#x", "a#99999999999999", ("a", -1)])
def test_a_step_that_was_used_less_often_is_refused(engine: Engine, three_steps: None, step: Any) -> None:
    old = engine.start()

    with pytest.raises(durable.StepNotFound):
        replays.replay(old.id, from_step=step)


def test_a_run_without_steps_has_none_to_begin_from(engine: Engine) -> None:
    engine.function()(lambda event, step: None)

    with pytest.raises(durable.StepNotFound, match="no step of it is recorded yet"):
        replays.replay(engine.start().id, from_step="a")


def test_the_limit_of_steps_counts_the_copied_ones(engine: Engine, three_steps: None, settings: Any) -> None:
    old = engine.start()
    settings.DURABLE = {"DRIVER": "inline", "MAX_STEPS": 2}

    replays.replay(old.id, from_step="b")

    new = engine.run()
    assert (new.status, new.steps, failure_of(new).type) == (
        "failed",
        2,
        "django_durable.exceptions.TooManySteps",
    )


def test_a_replay_that_is_asked_for_twice_is_one_run_with_one_history(engine: Engine) -> None:
    engine.function()(lambda event, step: [step.run("one", int), step.run("two", int)])
    run, once = engine.start(), uuid7()

    ids = [replays.replay(run.id, from_step="two", once=once) for _ in range(2)]

    assert ids[0] == ids[1]
    assert Run.objects.filter(replay_of=run).count() == 1
    assert Step.objects.filter(run_id=ids[0]).count() == 2


def test_more_memos_than_a_page_are_copied(engine: Engine) -> None:
    calls: list[int] = []

    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> int:
        return sum(len([step.run("add", calls.append, number)]) for number in range(replays.PAGE + 20))

    old = engine.start()
    calls.clear()
    replays.replay(old.id, from_step=("add", replays.PAGE + 10))

    assert (len(calls), engine.run().output) == (10, old.output)


def test_a_replay_that_breaks_half_way_leaves_nothing(engine: Engine, three_steps: None) -> None:
    old = engine.start()

    with (
        connection.execute_wrapper(failing(f"INTO {connection.ops.quote_name('django_durable_step')}")),
        pytest.raises(DatabaseError, match="disk"),
    ):
        replays.replay(old.id, from_step="c")

    assert (Run.objects.count(), Step.objects.count()) == (1, 3)


# Branches


def add_step(run: Run, name: str, seq: int | None, branch: str = "", kind: str = "run") -> None:
    """Add a step as a branch of a group leaves it."""
    now = clock.now()
    settled: dict[str, Any] = {"status": "waiting"}
    if seq is not None:
        settled = {"status": "completed", "seq": seq, "finished_at": now, "output": "null"}
    key = step_key(branch, name, 0)
    Step.objects.create(run=run, key=key, branch=branch, name=name, kind=kind, planned_at=now, **settled)


@pytest.fixture
def race(engine: Engine) -> Run:
    """Give a run of a step, a race of two branches that the first won, and a step after it."""
    engine.function()(lambda event, step: step.sleep("never", "1h"))
    run = engine.start()
    Step.objects.all().delete()
    add_step(run, "before", 1)
    add_step(run, "won", 2, branch="race#0/0")
    add_step(run, "0", 3, branch="race", kind="branch")
    add_step(run, "race", 4, kind="group")
    add_step(run, "lost", None, branch="race#0/1")
    add_step(run, "after", 5)
    Run.objects.filter(id=run.id).update(steps=5)
    return run


@pytest.mark.parametrize(
    ("from_step", "kept"),
    [
        ("after", {"before", "won", "0", "race"}),
        ("race", {"before", "won", "0"}),
        ("won", {"before"}),
        ("lost", {"before", "won", "0"}),
    ],
)
def test_a_step_inside_a_branch_takes_its_group_along(race: Run, from_step: str, kept: set[str]) -> None:
    new_id = replays.replay(race.id, from_step=from_step)

    copied = Step.objects.filter(run_id=new_id, status="completed")
    assert set(copied.values_list("name", flat=True)) == kept
    assert Run.objects.get(id=new_id).steps == len(kept)


# Functions whose runs are not to be replayed lightly


@pytest.mark.parametrize("confirmed", [False, True])
def test_a_function_may_deny_replays(engine: Engine, confirmed: bool) -> None:
    engine.function(replay="deny")(lambda event, step: None)
    old = engine.start()

    with pytest.raises(durable.ReplayRefused, match=r"project/fn is not replayed: .* replay='deny'"):
        replays.replay(old.id, confirmed=confirmed)
    assert Run.objects.count() == 1


def test_a_function_may_ask_for_a_confirmation(engine: Engine) -> None:
    engine.function(replay="confirm")(lambda event, step: None)
    old = engine.start()

    with pytest.raises(durable.ReplayRefused, match="confirmed=True"):
        replays.replay(old.id)
    replays.replay(old.id, confirmed=True)

    assert Run.objects.count() == 2


# Many


def test_many_runs_are_replayed_in_order(engine: Engine, three_steps: None) -> None:
    durable.send_events(durable.Event("test/start", {"n": number}) for number in range(5))
    old = runs_of("fn")[::-1]

    new_ids = replays.replay_many([*(run.id for run in old), old[0].id], from_step="b")

    new = Run.objects.in_bulk(new_ids)
    assert [new[new_id].replay_of_id for new_id in new_ids] == [run.id for run in old]
    assert [new[new_id].output for new_id in new_ids] == [f'"1.50 {number}"' for number in (4, 3, 2, 1, 0)]


@pytest.mark.parametrize("fault", ["unknown", "without the step", "denied"])
def test_nothing_is_replayed_if_one_run_cannot_be(
    engine: Engine, three_steps: None, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replays, "BATCH", 1)
    engine.function("other", trigger="test/other", replay="deny" if fault == "denied" else "allow")(
        lambda event, step: None
    )
    good = engine.start()
    durable.send_event("test/other")
    bad = uuid4() if fault == "unknown" else engine.run().id

    with pytest.raises((durable.RunNotFound, durable.StepNotFound, durable.ReplayRefused)):
        replays.replay_many([good.id, bad], from_step="b" if fault == "without the step" else None)
    assert Run.objects.filter(replay_of__isnull=False).count() == 0


def test_a_batch_costs_the_same_statements_whatever_its_size(engine: Engine, three_steps: None) -> None:
    durable.send_events(durable.Event("test/start", {"n": number}) for number in range(12))
    old = [run.id for run in runs_of("fn")]

    def statements(run_ids: list[UUID]) -> int:
        with transaction.atomic(), CaptureQueriesContext(connection) as queries:
            replays.replay_many(run_ids)
            transaction.set_rollback(True)
        return len(queries)

    assert statements(old) == statements(old[:1])


def test_no_run_to_replay_is_no_replay(engine: Engine) -> None:
    assert replays.replay_many([]) == []


# From the root


def test_a_project_replays_by_the_text_of_an_id_and_gets_a_handle(engine: Engine, three_steps: None) -> None:
    old = engine.start({"n": 7})

    run = durable.replay_run(str(old.id), from_step="b", data={"n": 8})

    assert (run.id, run.status, run.result()) == (str(engine.run().id), "completed", "1.50 8")


def test_a_project_replays_many(engine: Engine, three_steps: None) -> None:
    durable.send_events(durable.Event("test/start", {"n": number}) for number in range(3))

    new = durable.replay_runs(Run.objects.order_by("id").values_list("id", flat=True))

    assert [run.result() for run in new] == ["1.50 0", "1.50 1", "1.50 2"]


@pytest.mark.parametrize(
    "call", [durable.replay_run, durable.get_run, durable.wake_run, durable.retry_run, durable.export_history]
)
@pytest.mark.parametrize("run_id", [UUID(int=7), "no id", None])
def test_a_run_that_is_none_is_not_found(engine: Engine, call: Callable[[Any], Any], run_id: Any) -> None:
    with pytest.raises(durable.RunNotFound):
        call(run_id)


def test_look_back_of_a_replay_begins_with_the_replay(engine: Engine) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> Any:
        return step.wait_for_event("wait", "test/reply", timeout=datetime.timedelta(hours=1)) is not None

    engine.start()
    durable.send_event("test/reply")
    replays.replay(engine.run().id)

    assert engine.run().status == "waiting"
