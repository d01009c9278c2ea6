"""Functions that invoke others: results, failures, time-outs, cancellation, depth."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest

import django_durable as durable
from django_durable.models import Run, Step, Wait
from tests.engine.conftest import Engine, failure_of


@dataclass
class Quote:
    price: Decimal


def runs_of(slug: str) -> list[Run]:
    return list(Run.objects.filter(function=f"project/{slug}").order_by("id"))


def invoker(engine: Engine, function: Any = "child", data: Any = None, **options: Any) -> None:
    """Register a parent that invokes and returns the result, or what it knows of the error."""

    @engine.function("parent", retries=0)
    def parent(event: durable.Event, step: durable.Step) -> Any:
        try:
            return step.invoke("call", function, data, **options)
        except durable.InvokeError as error:
            return {"error": type(error).__name__, "message": error.message, "status": error.status}


def parent_run(engine: Engine) -> Run:
    durable.send_event("test/start")
    return runs_of("parent")[0]


def answer_of(run: Run) -> dict[str, Any]:
    from django_durable.core.values import encoding

    assert run.status == "completed"
    answer: dict[str, Any] = encoding.decode(run.output or "null")
    return answer


# Results


@pytest.mark.parametrize("form", ["object", "id", "slug"])
def test_a_function_is_invoked_by_itself_its_id_or_its_slug(engine: Engine, form: str) -> None:
    @engine.function("child", trigger=None)
    def child(event: durable.Event, step: durable.Step) -> Any:
        return [event.name, event.data["n"]]

    invoker(engine, {"object": child, "id": "project/child", "slug": "child"}[form], {"n": 7})

    assert parent_run(engine).output == '["durable/function.invoked",7]'


def test_a_child_knows_its_parent_and_the_step_that_invoked_it(engine: Engine) -> None:
    @engine.function("child", trigger=None)
    def child(event: durable.Event, step: durable.Step) -> None:
        """Do nothing."""

    invoker(engine)
    parent = parent_run(engine)

    [run] = runs_of("child")
    assert (run.parent_id, run.depth, run.parent_key) == (parent.id, 1, Step.objects.get(name="call").key)
    assert (run.event_id, run.input) == (None, "{}")


@pytest.mark.parametrize("value", [None, 0, "text", [1], {"a": 1}, (1, 2), {3}, Decimal("9.90"), Quote(Decimal(1))])
def test_the_childs_result_keeps_its_type(engine: Engine, value: Any) -> None:
    seen = []

    @engine.function("child", trigger=None)
    def child(event: durable.Event, step: durable.Step) -> Quote | Any:
        return value

    @engine.function("parent")
    def parent(event: durable.Event, step: durable.Step) -> None:
        seen.append(step.invoke("call", child))
        step.sleep("nap", "1h")

    durable.send_event("test/start")
    engine.advance("1h")

    assert seen == [value, value]


def test_objects_in_the_data_arrive_as_plain_values_like_those_of_an_event(engine: Engine) -> None:
    @engine.function("child", trigger=None)
    def child(event: durable.Event, step: durable.Step) -> Any:
        return event.data

    invoker(engine, data={"quote": Quote(Decimal(1)), "pair": (1, 2)})

    assert answer_of(parent_run(engine)) == {"quote": {"price": Decimal(1)}, "pair": (1, 2)}


def test_the_parent_waits_while_its_child_sleeps(engine: Engine) -> None:
    @engine.function("child", trigger=None)
    def child(event: durable.Event, step: durable.Step) -> str:
        step.sleep("nap", "1h")
        return "late"

    invoker(engine)
    parent = parent_run(engine)

    assert (parent.status, parent.waiting_kind, parent.next_at) == ("waiting", "invoke", None)
    assert parent.waiting_for == f"project/child {runs_of('child')[0].id}"
    engine.advance("1h")
    assert runs_of("parent")[0].output == '"late"'
    assert not Wait.objects.exists()


def test_a_loop_invokes_a_child_each_time(engine: Engine) -> None:
    @engine.function("child", trigger=None)
    def child(event: durable.Event, step: durable.Step) -> int:
        return 2 * int(event.data["n"])

    @engine.function("parent")
    def parent(event: durable.Event, step: durable.Step) -> list[int]:
        return [step.invoke("call", child, {"n": number}) for number in range(3)]

    assert parent_run(engine).output == "[0,2,4]"
    assert len(runs_of("child")) == 3


def test_a_child_that_also_has_a_trigger_can_be_invoked(engine: Engine) -> None:
    @engine.function("child", trigger="app/other")
    def child(event: durable.Event, step: durable.Step) -> str:
        return event.name

    invoker(engine)

    assert parent_run(engine).output == '"durable/function.invoked"'


# Failures


def test_a_childs_failure_raises_an_invoke_error_with_its_error_and_run(engine: Engine) -> None:
    seen: list[durable.InvokeError] = []

    @engine.function("child", trigger=None, retries=0)
    def child(event: durable.Event, step: durable.Step) -> None:
        raise KeyError("no card")

    @engine.function("parent")
    def parent(event: durable.Event, step: durable.Step) -> None:
        try:
            step.invoke("call", child)
        except durable.InvokeError as error:
            seen.append(error)
        step.sleep("nap", "1h")

    durable.send_event("test/start")
    engine.advance("1h")

    first, second = seen
    assert isinstance(first, durable.StepError)
    assert not isinstance(first, durable.InvokeTimeout)
    assert (first.step_id, first.type, first.message) == ("call", "builtins.KeyError", "'no card'")
    assert (first.run_id, first.status) == (str(runs_of("child")[0].id), "failed")
    assert first.is_a(KeyError)
    assert vars(first) == vars(second)


def test_an_uncaught_invoke_error_fails_the_parent_without_retries(engine: Engine) -> None:
    @engine.function("child", trigger=None, retries=0)
    def child(event: durable.Event, step: durable.Step) -> None:
        raise KeyError("no card")

    @engine.function("parent")
    def parent(event: durable.Event, step: durable.Step) -> None:
        step.invoke("call", child)

    run = parent_run(engine)

    assert run.status == "failed"
    error = failure_of(run)
    assert error.type == "django_durable.exceptions.InvokeError"
    assert error.cause is not None
    assert error.cause.type == "builtins.KeyError"


def test_an_unknown_function_is_an_invoke_error_at_once_with_a_suggestion(engine: Engine) -> None:
    @engine.function("child", trigger=None)
    def child(event: durable.Event, step: durable.Step) -> None:
        """Do nothing."""

    invoker(engine, "chidl")

    assert answer_of(parent_run(engine)) == {
        "error": "InvokeError",
        "message": "There is no durable function 'project/chidl'; did you mean 'project/child'?",
        "status": None,
    }
    assert Run.objects.count() == 1


def test_a_cancelled_child_is_an_invoke_error(engine: Engine) -> None:
    @engine.function("child", trigger=None)
    def child(event: durable.Event, step: durable.Step) -> None:
        step.sleep("nap", "1h")

    invoker(engine)
    parent_run(engine)
    durable.cancel_run(runs_of("child")[0].id, "not wanted")

    assert answer_of(runs_of("parent")[0]) == {"error": "InvokeError", "message": "not wanted", "status": "cancelled"}


def test_a_child_that_does_not_end_in_time_is_an_invoke_timeout_and_goes_on(engine: Engine) -> None:
    @engine.function("child", trigger=None)
    def child(event: durable.Event, step: durable.Step) -> str:
        step.sleep("nap", "2h")
        return "late"

    invoker(engine, timeout="1h")
    parent_run(engine)
    engine.advance("1h")

    answer = answer_of(runs_of("parent")[0])
    assert answer["error"] == "InvokeTimeout"
    assert answer["message"] == "project/child did not end in time; its run goes on"
    engine.advance("1h")
    assert runs_of("child")[0].output == '"late"'


def test_a_timeout_names_the_child_that_goes_on(engine: Engine) -> None:
    errors: list[durable.InvokeTimeout] = []

    @engine.function("child", trigger=None)
    def child(event: durable.Event, step: durable.Step) -> None:
        step.sleep("nap", "2h")

    @engine.function("parent")
    def parent(event: durable.Event, step: durable.Step) -> None:
        try:
            step.invoke("call", child, timeout="1h")
        except durable.InvokeTimeout as error:
            errors.append(error)

    engine.start()
    engine.advance("1h")

    assert [(error.run_id, error.status) for error in errors] == [(str(runs_of("child")[0].id), "waiting")]


def test_a_child_that_ends_in_time_is_no_timeout(engine: Engine) -> None:
    @engine.function("child", trigger=None)
    def child(event: durable.Event, step: durable.Step) -> str:
        step.sleep("nap", "30m")
        return "in time"

    @engine.function("parent")
    def parent(event: durable.Event, step: durable.Step) -> str:
        result: str = step.invoke("call", child, timeout="1h")
        step.sleep("nap", "2h")
        return result

    durable.send_event("test/start")
    engine.advance("30m")
    engine.advance("2h")

    assert runs_of("parent")[0].output == '"in time"'


# Trees


def test_cancelling_a_parent_cancels_the_whole_tree_that_it_waits_for(engine: Engine) -> None:
    @engine.function("leaf", trigger=None)
    def leaf(event: durable.Event, step: durable.Step) -> None:
        step.sleep("nap", "1h")

    @engine.function("child", trigger=None)
    def child(event: durable.Event, step: durable.Step) -> None:
        step.invoke("call", leaf)

    invoker(engine)
    parent = parent_run(engine)

    assert durable.cancel_run(parent.id, "not wanted") is True

    assert [run.status for run in Run.objects.all()] == ["cancelled"] * 3
    assert failure_of(runs_of("parent")[0]).message == "not wanted"
    assert failure_of(runs_of("leaf")[0]).message == "The run that invoked it was cancelled"
    assert not Wait.objects.exists()
    engine.advance("1h")
    assert not Step.objects.filter(name="nap", status="completed").exists()


def test_cancelling_a_parent_leaves_children_that_it_waits_for_no_more(engine: Engine) -> None:
    @engine.function("child", trigger=None)
    def child(event: durable.Event, step: durable.Step) -> None:
        step.sleep("nap", "3h")

    @engine.function("parent")
    def parent(event: durable.Event, step: durable.Step) -> None:
        try:
            step.invoke("call", child, timeout="1h")
        except durable.InvokeTimeout:
            step.sleep("nap", "1d")

    durable.send_event("test/start")
    engine.advance("1h")
    durable.cancel_run(runs_of("parent")[0].id)

    assert runs_of("child")[0].status == "waiting"


def test_functions_that_invoke_one_another_for_ever_end_at_depth_50(engine: Engine) -> None:
    @engine.function("ping")
    def ping(event: durable.Event, step: durable.Step) -> None:
        step.invoke("call", "pong")

    @engine.function("pong", trigger=None)
    def pong(event: durable.Event, step: durable.Step) -> None:
        step.invoke("call", "ping")

    durable.send_event("test/start")

    assert {run.status for run in Run.objects.all()} == {"failed"}
    deepest = Run.objects.order_by("-depth")[0]
    assert (Run.objects.count(), deepest.depth) == (51, 50)
    cause = failure_of(deepest).cause
    assert cause is not None
    assert "would be number 51 of runs that invoke one another; the limit is 50" in cause.message


def test_a_function_that_invokes_itself_ends_as_well(engine: Engine) -> None:
    @engine.function("loop")
    def loop(event: durable.Event, step: durable.Step) -> None:
        step.invoke("call", "loop")

    durable.send_event("test/start")

    assert {run.status for run in Run.objects.all()} == {"failed"}
