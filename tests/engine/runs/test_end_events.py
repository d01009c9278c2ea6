"""What the end of a run sets off."""

from __future__ import annotations

import datetime
import logging
from dataclasses import dataclass
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

import django_durable as durable
from django_durable.core.functions import registry
from django_durable.engine.runs import catalog, ending
from django_durable.models import Event, Function, Run
from tests.engine.conftest import Engine


@dataclass
class Receipt:
    """What a handler may return."""

    number: int


def ends_of(engine: Engine, **options: Any) -> durable.DurableFunction[Any]:
    """Register a function that ends as its event says, or waits."""

    @engine.function("fn", retries=0, **options)
    def fn(event: durable.Event, step: durable.Step) -> Any:
        if event.data.get("fail"):
            raise ValueError(event.data["fail"])
        if event.data.get("wait"):
            step.sleep("nap", "1h")
        return event.data.get("result")

    return fn


def runs_of(slug: str) -> list[Run]:
    return list(Run.objects.filter(function=f"project/{slug}").order_by("id"))


@pytest.mark.parametrize("form", ["handler", "decorator", "id"])
def test_a_completed_run_starts_its_on_complete_handler_once(engine: Engine, form: str) -> None:
    seen: list[durable.CompletionEvent] = []
    if form == "handler":
        ends_of(engine, on_complete=lambda event, step: seen.append(event))
    elif form == "decorator":
        ends_of(engine).on_complete(lambda event, step: seen.append(event))
    else:
        durable.function("other")(lambda event, step: seen.append(event))
        ends_of(engine, on_complete="other")

    engine.start({"result": {"price": 7}}, user={"id": 1})
    engine.advance("1h")

    [event], [done] = seen, runs_of("fn")
    assert (event.name, event.run_id, event.result) == ("durable/function.completed", str(done.id), {"price": 7})
    assert (event.original.name, event.original.user, event.original.id) == (
        "test/start",
        {"id": 1},
        str(done.event_id),
    )
    assert [run.status for run in runs_of("other" if form == "id" else "fn.on_complete")] == ["completed"]


def test_a_cancelled_run_starts_its_on_cancel_handler_with_the_reason(engine: Engine) -> None:
    seen: list[durable.CancelEvent] = []
    ends_of(engine).on_cancel(lambda event, step: seen.append(event))
    run = engine.start({"wait": True})

    ending.cancel(run.id, "the order was withdrawn")
    ending.cancel(run.id, "again")
    engine.settle()

    [event] = seen
    assert (event.name, event.run_id) == ("durable/function.cancelled", str(run.id))
    assert (event.reason, event.original.data) == ("the order was withdrawn", {"wait": True})


def test_a_child_that_is_cancelled_with_its_parent_has_its_own_handler(engine: Engine) -> None:
    seen: list[tuple[str, str, Any]] = []
    child = ends_of(engine)
    child.on_cancel(lambda event, step: seen.append(("child", event.reason, event.original.data)))

    @durable.function(
        "parent", trigger="test/parent", on_cancel=lambda event, step: seen.append(("parent", event.reason, None))
    )
    def parent(event: durable.Event, step: durable.Step) -> None:
        step.invoke("call", child, {"wait": True})

    durable.send_event("test/parent")
    ending.cancel(runs_of("parent")[0].id, "enough")
    engine.settle()

    assert seen == [("parent", "enough", None), ("child", "The run that invoked it was cancelled", {"wait": True})]


def test_each_end_starts_only_its_own_handler(engine: Engine) -> None:
    seen: list[str] = []
    ends_of(
        engine,
        on_failure=lambda event, step: seen.append("failed"),
        on_cancel=lambda event, step: seen.append("cancelled"),
        on_complete=lambda event, step: seen.append("completed"),
    )

    engine.start()
    engine.start({"fail": "no"})

    assert seen == ["completed", "failed"]


@pytest.mark.parametrize(
    ("result", "arrives"),
    [
        (datetime.date(2026, 2, 3), datetime.date(2026, 2, 3)),
        ((1, {2}), (1, {2})),
        (None, None),
        ("NUL \0", "NUL \ufffd"),
        (Receipt(7), {"number": 7}),
    ],
)
def test_the_result_arrives_with_its_types_as_in_an_events_data(engine: Engine, result: Any, arrives: Any) -> None:
    seen: list[Any] = []

    @engine.function("fn", on_complete=lambda event, step: seen.append(event.result))
    def fn(event: durable.Event, step: durable.Step) -> Any:
        return result

    engine.start()

    assert seen == [arrives]


def test_other_functions_can_listen_to_ends(engine: Engine) -> None:
    seen: list[tuple[str, str, str]] = []
    ends_of(engine)

    @durable.function("watch", trigger="durable/function.*")
    def watch(event: durable.Event, step: durable.Step) -> None:
        seen.append((type(event).__name__, event.name, event.data["function"]))

    engine.start()
    engine.start({"fail": "no"})
    ending.cancel(engine.start({"wait": True}).id)
    engine.settle()

    assert seen == [
        ("CompletionEvent", "durable/function.completed", "project/fn"),
        ("FailureEvent", "durable/function.failed", "project/fn"),
        ("CancelEvent", "durable/function.cancelled", "project/fn"),
    ]


def test_a_listener_can_have_a_condition_on_the_end(engine: Engine) -> None:
    ends_of(engine)
    condition = "event.data.function == 'project/fn' && event.data.error.message == 'no'"
    durable.function("watch", trigger=durable.On("durable/function.failed", if_=condition))(lambda event, step: None)

    engine.start({"fail": "yes"})
    engine.start({"fail": "no"})

    assert len(runs_of("watch")) == 1


def test_handler_and_listener_share_one_event_and_a_function_starts_once_for_it(engine: Engine) -> None:
    durable.function("watch", trigger="durable/function.failed")(lambda event, step: None)
    ends_of(engine, on_failure="watch")

    engine.start({"fail": "no"})

    assert len(runs_of("watch")) == 1
    assert Event.objects.filter(name="durable/function.failed").count() == 1


@pytest.mark.parametrize("name", ["durable/function.completed", "durable/function.*"])
def test_a_run_that_an_end_started_raises_no_further_event(engine: Engine, name: str) -> None:
    ends_of(engine)
    durable.function("watch", trigger=name)(lambda event, step: None)
    durable.function("fails", trigger=name, retries=0, on_failure="watch")(lambda event, step: 1 / 0)

    engine.start()
    engine.advance("1h")

    assert [run.status for run in runs_of("watch")] == ["completed"]
    assert [run.status for run in runs_of("fails")] == ["failed"]


def test_an_end_that_nobody_follows_stores_nothing(engine: Engine) -> None:
    ends_of(engine)

    engine.start()
    engine.start({"fail": "no"})
    ending.cancel(engine.start({"wait": True}).id)

    assert not Event.objects.filter(name__startswith="durable/").exists()


def test_whether_anybody_follows_is_known_without_a_statement(engine: Engine) -> None:
    ends_of(engine)
    engine.start()

    with CaptureQueriesContext(connection) as queries:
        engine.start()

    assert sum("django_durable_function" in query["sql"] for query in queries.captured_queries) == 1  # the ingest's


def test_an_invoked_run_can_be_listened_to(engine: Engine) -> None:
    seen: list[dict[str, Any]] = []
    child = ends_of(engine)
    durable.function("watch", trigger="durable/function.invoked")(lambda event, step: seen.append(event.data))

    @durable.function("parent", trigger="test/parent")
    def parent(event: durable.Event, step: durable.Step) -> None:
        step.invoke("call", child, {"n": 7})

    durable.send_event("test/parent")

    [data], [parent_run], [child_run] = seen, runs_of("parent"), runs_of("fn")
    assert (data["function"], data["run_id"], data["parent_run_id"]) == (
        "project/fn",
        str(child_run.id),
        str(parent_run.id),
    )
    assert data["event"] == {"data": {"n": 7}}


def test_a_handler_that_is_not_in_the_code_is_logged_and_harms_no_run(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    ends_of(engine, on_complete="nowhere")

    with caplog.at_level(logging.ERROR, "django_durable"):
        engine.start()

    assert runs_of("fn")[0].status == "completed"
    assert "There is no durable function 'project/nowhere'" in caplog.text


def test_a_worker_without_the_code_that_cancels_a_run_starts_the_handler_all_the_same(engine: Engine) -> None:
    fn = ends_of(engine)
    handler = fn.on_cancel(lambda event, step: None)
    catalog.sync()
    run = engine.start({"wait": True})

    registry._functions.clear()
    catalog.forget()
    ending.cancel(run.id)
    [waiting] = runs_of("fn.on_cancel")
    registry.add(fn)
    registry.add(handler)
    engine.advance("1m")

    assert (waiting.status, runs_of("fn.on_cancel")[0].status) == ("waiting", "completed")


def test_a_listener_that_only_other_workers_have_is_started(engine: Engine) -> None:
    watch = durable.function("watch", trigger="durable/function.completed")(lambda event, step: None)
    catalog.sync()
    registry._functions.clear()
    catalog.forget()
    ends_of(engine)

    engine.start()

    assert [run.code_version for run in runs_of("watch")] == [watch.code_version]
    assert Function.objects.get(id="project/watch").in_code


def test_a_child_that_is_cancelled_with_a_branch_of_a_lost_race_is_told_of(engine: Engine) -> None:
    seen: list[str] = []

    @durable.function("child", on_cancel=lambda event, step: seen.append(event.reason))
    def child(event: durable.Event, step: durable.Step) -> None:
        step.sleep("nap", "1d")

    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> int:
        return step.race(lambda: step.invoke("child", child), lambda: step.sleep("short", "1h")).index

    engine.start()
    engine.advance("2h")

    assert seen == ["The branch that invoked it lost a race"]
    assert Run.objects.get(function="project/fn").output == "1"
