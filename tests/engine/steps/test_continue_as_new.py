"""step.continue_as_new: a run ends, and another one goes on in its place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import django_durable as durable
from django_durable.core.values import encoding
from django_durable.models import Run, Step
from tests.engine.conftest import Engine, failure_of


def value_of(run: Run) -> Any:
    assert run.status == "completed", run.error
    return encoding.decode(run.output or "null")


def counting(engine: Engine, last: int = 3) -> Callable[..., Any]:
    @engine.function("count", trigger="test/start", retries=0)
    def count(event: durable.Event, step: durable.Step) -> int:
        number: int = step.run("read", int, event.data.get("n", 0))
        if number < last:
            step.continue_as_new({"n": number + 1})
        return number * 10

    return count


def test_a_run_ends_and_another_one_goes_on(engine: Engine) -> None:
    counting(engine)

    engine.start({"n": 1})

    runs = list(Run.objects.order_by("id"))
    assert [run.status for run in runs] == ["completed"] * 3
    assert [encoding.decode(run.output or "") for run in runs[:-1]] == [
        {"continued_as": str(run.pk)} for run in runs[1:]
    ]
    assert value_of(runs[-1]) == 30


def test_nothing_after_it_is_executed(engine: Engine) -> None:
    log: list[str] = []

    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        if event.data.get("n"):
            return
        step.continue_as_new({"n": 1})
        log.append("after")
        step.run("after", log.append, "after")

    engine.start()

    assert log == []
    assert not Step.objects.exists()


def test_an_event_between_the_last_wait_and_the_new_run_is_not_lost(engine: Engine) -> None:
    got: list[int] = []

    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        post = step.wait_for_event("post", "app/post.created", timeout="1d")
        got.append(post.data["n"] if post else None)
        step.sleep("pause", "1h")
        if len(set(got)) < 3:
            step.continue_as_new({})

    engine.start()
    durable.send_event("app/post.created", {"n": 1})
    durable.send_event("app/post.created", {"n": 2})
    engine.advance("2h")
    durable.send_event("app/post.created", {"n": 3})
    engine.advance("2h")
    engine.advance("2h")

    assert list(dict.fromkeys(got)) == [1, 2, 3]
    assert engine.run().status == "completed"


def test_a_run_that_goes_on_begins_with_no_history(engine: Engine) -> None:
    counting(engine)

    engine.start({"n": 1})

    assert [*Run.objects.order_by("id").values_list("steps", flat=True)] == [1, 1, 1]


def test_an_invoked_run_that_goes_on_gives_its_parent_the_last_result(engine: Engine) -> None:
    child = counting(engine)

    @engine.function("parent", trigger="test/parent")
    def parent(event: durable.Event, step: durable.Step) -> Any:
        return step.invoke("count", child, {"n": 1})

    durable.send_event("test/parent")

    assert value_of(Run.objects.get(function="project/parent")) == 30
    assert Run.objects.filter(function="project/count", parent__function="project/parent").count() == 3


def test_an_invoked_run_that_fails_after_it_went_on_fails_for_its_parent(engine: Engine) -> None:
    @engine.function("child", trigger=None, retries=0)
    def child(event: durable.Event, step: durable.Step) -> None:
        if event.data:
            raise ValueError("the second")
        step.continue_as_new({"n": 1})

    @engine.function("parent")
    def parent(event: durable.Event, step: durable.Step) -> Any:
        try:
            step.invoke("call", child)
        except durable.InvokeError as error:
            return [error.message, error.run_id]

    engine.start()

    failed = Run.objects.get(function="project/child", status="failed")
    assert value_of(Run.objects.get(function="project/parent")) == ["the second", str(failed.pk)]


def napping_child(engine: Engine) -> None:
    @engine.function("child", trigger=None)
    def child(event: durable.Event, step: durable.Step) -> None:
        if not event.data:
            step.continue_as_new({"n": 1})
        step.sleep("nap", "1d")

    @engine.function("parent")
    def parent(event: durable.Event, step: durable.Step) -> None:
        step.invoke("call", child, timeout="7d")


def test_cancelling_the_parent_cancels_the_run_that_went_on(engine: Engine) -> None:
    napping_child(engine)
    engine.start()

    durable.cancel_run(Run.objects.get(function="project/parent").pk)

    children = Run.objects.filter(function="project/child").order_by("id")
    assert [*children.values_list("status", flat=True)] == ["completed", "cancelled"]


def test_cancelling_the_run_that_went_on_tells_its_parent(engine: Engine) -> None:
    napping_child(engine)
    engine.start()

    durable.cancel_run(Run.objects.get(function="project/child", status="waiting").pk)

    assert "cancelled" in failure_of(Run.objects.get(function="project/parent")).message


def test_a_branch_cannot_end_its_run(engine: Engine) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        step.parallel(lambda: step.continue_as_new({"n": 1}))

    assert "a branch cannot end its run. Return from the branch first" in failure_of(engine.start()).message
    assert Run.objects.count() == 1


def test_data_that_cannot_be_stored_fail_the_run(engine: Engine) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        step.continue_as_new({"file": object()})

    assert "file" in failure_of(engine.start()).message
    assert Run.objects.count() == 1
