"""Recorded histories against other code: what a change does to runs in flight."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

import django_durable as durable
from django_durable.core.functions import registry
from django_durable.core.functions.functions import DurableFunction
from django_durable.models import Run
from django_durable.testing import OpenStep, Report, replay_history
from tests.engine.conftest import Engine

Handler = Callable[[durable.Event, durable.Step], Any]


def value(text: str) -> str:
    """Return what a step records."""
    return text


def never(*args: object) -> Any:
    """Fail: no step's function runs in a replay of a history."""
    raise AssertionError("executed")


def recorded(engine: Engine, handler: Handler, *, advance: str = "") -> dict[str, Any]:
    """Return the history of a run of *handler* as far as it went."""
    engine.function("fn", retries=0)(handler)
    run = engine.start({"n": 7})
    if advance:
        engine.advance(advance)
    return durable.export_history(run.id)


def replayed(history: dict[str, Any], handler: Handler) -> Report:
    """Replay the history against *handler*, which is other code of the same function."""
    return replay_history(history, DurableFunction(handler, id="project/other"))


def in_flight(event: durable.Event, step: durable.Step) -> list[str]:
    """Run a and b, and sleep."""
    a = step.run("a", value, "A")
    b = step.run("b", value, "B")
    step.sleep("nap", "1h")
    return [a, b, step.run("c", value, "C")]


# What code of today does with a run in flight: (the new code, where it stops, what it does not ask for)


def same(event: durable.Event, step: durable.Step) -> Any:
    a, b = step.run("a", never), step.run("b", never)
    step.sleep("nap", "1h")
    return [a, b, step.run("c", never)]


def reordered(event: durable.Event, step: durable.Step) -> Any:
    b, a = step.run("b", never), step.run("a", never)
    assert (a, b) == ("A", "B")
    step.sleep("nap", "1h")


def inserted_before(event: durable.Event, step: durable.Step) -> Any:
    step.run("first", never)
    return same(event, step)


def inserted_between(event: durable.Event, step: durable.Step) -> Any:
    step.run("a", never)
    step.run("new", never)
    step.run("b", never)


def inserted_after(event: durable.Event, step: durable.Step) -> Any:
    step.run("a", never)
    step.run("b", never)
    step.sleep("nap", "1h")
    step.run("new", never)


def removed(event: durable.Event, step: durable.Step) -> Any:
    step.run("b", never)
    step.sleep("nap", "1h")


def removed_with_the_sleep(event: durable.Event, step: durable.Step) -> Any:
    return [step.run("a", never), step.run("b", never)]


def renamed(event: durable.Event, step: durable.Step) -> Any:
    step.run("a-renamed", never)


def longer_sleep(event: durable.Event, step: durable.Step) -> Any:
    step.run("a", never)
    step.run("b", never)
    step.sleep("nap", "7d")


def other_body(event: durable.Event, step: durable.Step) -> Any:
    assert step.run("a", lambda number: never(), 1) == "A"
    return same(event, step) if False else step.sleep("nap", "1h")


def repeated(event: durable.Event, step: durable.Step) -> Any:
    step.run("a", never)
    step.run("a", never)


NAP = OpenStep("nap", 0, "sleep", recorded=True)


@pytest.mark.parametrize(
    ("code", "step", "unused"),
    [
        (same, NAP, ()),
        (reordered, NAP, ()),
        (inserted_before, OpenStep("first", 0, "run", recorded=False), ("a", "b", "nap")),
        (inserted_between, OpenStep("new", 0, "run", recorded=False), ("b", "nap")),
        (inserted_after, NAP, ()),
        (removed, NAP, ("a",)),
        (renamed, OpenStep("a-renamed", 0, "run", recorded=False), ("a", "b", "nap")),
        (longer_sleep, NAP, ()),
        (other_body, NAP, ("b",)),
        (repeated, OpenStep("a", 1, "run", recorded=False), ("b", "nap")),
    ],
    ids=lambda case: getattr(case, "__name__", ""),
)
def test_a_run_in_flight_goes_on_with_other_code(
    engine: Engine,
    code: Handler,
    step: OpenStep,
    unused: tuple[str, ...],
) -> None:
    history = recorded(engine, in_flight)

    report = replayed(history, code)

    assert (report.outcome, report.step, report.unused) == ("suspended", step, unused)
    assert (report.error, report.kind_mismatch) == (None, None)


@pytest.mark.parametrize(
    ("code", "executed"),
    [(same, 1), (reordered, 0), (inserted_before, 2), (inserted_between, 1), (inserted_after, 1), (removed, 0)],
    ids=lambda case: getattr(case, "__name__", ""),
)
def test_the_engine_goes_on_with_the_run_as_reported(
    engine: Engine,
    code: Handler,
    executed: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    report = replayed(recorded(engine, in_flight), code)
    calls: list[str] = []
    monkeypatch.setitem(globals(), "never", lambda *args: calls.append("executed"))
    registry._functions.clear()
    engine.function("fn", retries=0)(code)

    run = engine.advance("1h")

    assert (report.outcome, run.status, len(calls)) == ("suspended", "completed", executed)


def test_code_that_lost_its_sleep_completes_at_once(engine: Engine) -> None:
    report = replayed(recorded(engine, in_flight), removed_with_the_sleep)

    assert (report.outcome, report.value, report.unused) == ("completed", ["A", "B"], ("nap",))


def test_a_step_of_another_kind_is_reported(engine: Engine) -> None:
    def other_kind(event: durable.Event, step: durable.Step) -> None:
        step.run("a", never)
        step.sleep("b", "1h")

    report = replayed(recorded(engine, in_flight), other_kind)

    assert (report.outcome, report.unused) == ("aborted", ("nap",))
    assert report.kind_mismatch is not None
    assert (report.kind_mismatch.step_id, report.kind_mismatch.recorded) == ("b", "run")


def test_a_history_of_an_ended_run_completes(engine: Engine) -> None:
    report = replayed(recorded(engine, in_flight, advance="1h"), same)

    assert (report.outcome, report.value, report.unused) == ("completed", ["A", "B", "C"], ())


def test_an_exception_of_the_new_code_is_reported(engine: Engine) -> None:
    def broken(event: durable.Event, step: durable.Step) -> Any:
        return step.run("a", never) + 1

    report = replayed(recorded(engine, in_flight), broken)

    assert (report.outcome, type(report.error), report.unused) == ("raised", TypeError, ("b", "nap"))


def test_every_kind_of_record_comes_back(engine: Engine) -> None:
    engine.function("child", trigger=None)(lambda event, step: {"n": event.data["n"]})

    def all_kinds(event: durable.Event, step: durable.Step) -> Any:
        results: list[Any] = [step.run("run", value, "A"), step.atomic("atomic", value, "B")]
        try:
            step.run("failed", int, "no number")
        except durable.StepError as error:
            results.append([error.type, error.attempts])
        step.sleep("nap", "1h")
        results.append(step.invoke("call", "child", {"n": 7}))
        results.append(len(step.send_event("emit", durable.Event("test/reply", {"n": event.data["n"]}))))
        for _ in range(2):
            came = step.wait_for_event("wait", "test/reply", timeout="1h")
            results.append(came and [came.name, came.data, came.id is not None, came.ts is not None])
        return results

    history = recorded(engine, all_kinds, advance="1h")
    engine.advance("1h")
    run = Run.objects.get(function="project/fn")

    report = replayed(durable.export_history(run.id), all_kinds)

    assert (report.outcome, report.unused) == ("completed", ())
    assert report.value == json.loads(run.output or "")
    assert history["status"] == "waiting"


def test_the_event_comes_back_with_its_data_and_types(engine: Engine) -> None:
    seen: list[durable.Event] = []
    engine.function("fn")(lambda event, step: seen.append(event))
    engine.start({"when": (1, 2)}, user={"id": 3}, v="2")

    history = durable.export_history(engine.run().id)
    replay_history(json.dumps(history), "project/fn")

    assert seen[0] == seen[1]
    assert seen[1].data == {"when": (1, 2)}


def test_a_failure_handler_gets_its_failure_back(engine: Engine) -> None:
    seen: list[Any] = []
    engine.function("fn", retries=0, on_failure=lambda event, step: seen.append(event))(lambda event, step: 1 / 0)
    engine.start()

    replay_history(durable.export_history(Run.objects.get(function="project/fn.on_failure").id))

    assert isinstance(seen[1], durable.FailureEvent)
    assert seen[0] == seen[1]


def test_a_history_is_read_from_a_file_and_names_its_function(
    engine: Engine,
    tmp_path: Path,
) -> None:
    file = tmp_path / "history.json"
    file.write_text(json.dumps(recorded(engine, in_flight)))

    assert replay_history(file).step == NAP


def test_no_database_is_touched(engine: Engine) -> None:
    history = recorded(engine, in_flight)

    with CaptureQueriesContext(connection) as queries:
        replay_history(history)

    assert len(queries) == 0


@pytest.mark.parametrize(
    ("history", "message"),
    [
        ("no JSON", "This is not JSON"),
        ("[]", "not a history of format 1"),
        ({"format": 2}, "not a history of format 1"),
        ({"format": 1, "run": "x"}, "run x cannot be read .*'function'"),
        ({"format": 1, "run": "x", "function": "a", "event": None}, "run x cannot be read .*TypeError"),
    ],
)
def test_what_is_no_history_is_refused(history: Any, message: str) -> None:
    with pytest.raises(durable.DurableError, match=message):
        replay_history(history, "project/fn")


def test_a_function_that_is_not_in_the_code_is_refused(engine: Engine) -> None:
    history = recorded(engine, in_flight)

    with pytest.raises(durable.ConfigurationError, match="no durable function 'project/nothing'"):
        replay_history(history, "project/nothing")
