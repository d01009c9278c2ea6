"""Runs meet other code than they started with: changed, lost or new functions, both ways round."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import connection
from django.test import override_settings
from django.test.utils import CaptureQueriesContext

import django_durable as durable
from django_durable.core.functions import registry
from django_durable.core.functions.functions import DurableFunction
from django_durable.engine.runs import catalog
from django_durable.models import Function, MatchFailure, Run, Step
from tests.engine.conftest import Engine, failure_of

Code = Callable[[], object]


@contextmanager
def worker(*code: Code) -> Iterator[None]:
    """Be a worker that has only this code, and has just started."""
    registry._functions.clear()
    catalog.forget()
    for each in code:
        each()
    catalog.sync()
    yield
    registry._functions.clear()
    catalog.forget()


def old(**options: Any) -> DurableFunction[Any]:
    @durable.function("fn", trigger="test/start", **options)
    def fn(event: durable.Event, step: durable.Step) -> str:
        step.run("first", int, 1)
        step.sleep("nap", "1h")
        step.run("second", int, 2)
        return "old"

    return fn


def new(**options: Any) -> DurableFunction[Any]:
    @durable.function("fn", trigger="test/start", **options)
    def fn(event: durable.Event, step: durable.Step) -> str:
        step.run("one", int, 1)
        step.sleep("nap", "1h")
        return "new"

    return fn


def broken() -> DurableFunction[Any]:
    @durable.function("fn", trigger="test/start", retries=0)
    def fn(event: durable.Event, step: durable.Step) -> str:
        raise ValueError

    return fn


def extra() -> DurableFunction[Any]:
    @durable.function("extra", trigger=durable.On("test/*", if_="event.data.n > 0"), queue="slow", on_complete=ignore)
    def extra(event: durable.Event, step: durable.Step) -> str:
        return "extra"

    return extra


def ignore(event: durable.Event, step: durable.Step) -> None:
    """Do nothing."""


# Changed code


def test_a_run_goes_on_with_changed_code_and_remembers_both_versions(engine: Engine) -> None:
    with worker(old):
        run = engine.start()
    with worker(new):
        run = engine.advance("1h")

    assert (run.status, run.output) == ("completed", '"new"')
    assert (run.code_version, run.last_code_version) == (old().code_version, new_version())


def new_version() -> str:
    registry._functions.clear()
    return new().code_version


def test_a_run_whose_code_did_not_change_notes_nothing(engine: Engine) -> None:
    with worker(old), CaptureQueriesContext(connection) as queries:
        engine.start()
        run = engine.advance("1h")

    assert (run.status, run.last_code_version) == ("completed", "")
    assert not [query for query in queries.captured_queries if 'SET "last_code_version"' in query["sql"]]


def test_a_pinned_run_waits_for_a_worker_with_its_code(engine: Engine) -> None:
    with worker(lambda: old(on_code_change="pin")):
        engine.start()
    with worker(lambda: new(on_code_change="pin")):
        run = engine.advance("1h")
        assert (run.status, run.waiting_kind) == ("waiting", "code")
        assert run.waiting_for == (
            f"a worker with version {run.code_version} of project/fn; "
            f"here it is {registry.find('project/fn').code_version}"
        )
        assert engine.advance("3h").status == "waiting"
    with worker(lambda: old(on_code_change="pin")):
        run = engine.advance("1m")

    assert (run.status, run.output, run.last_code_version) == ("completed", '"old"', "")


def test_a_run_fails_on_changed_code_where_that_is_asked_for(engine: Engine) -> None:
    with worker(lambda: old(on_code_change="fail")):
        engine.start()
    with worker(lambda: new(on_code_change="fail", on_failure=ignore)):
        engine.advance("1h")
        current = registry.find("project/fn").code_version

    run = Run.objects.get(function="project/fn")
    assert run.status == "failed"
    assert failure_of(run).type == "django_durable.exceptions.CodeChanged"
    assert failure_of(run).message == (
        f"The run started with version {run.code_version} of project/fn, and this worker's code has version {current}. "
        'Replay it with the present code, or write on_code_change="continue"'
    )
    assert Run.objects.filter(function="project/fn.on_failure", status="completed").exists()


@pytest.mark.parametrize(("setting", "status"), [("continue", "completed"), ("pin", "waiting"), ("fail", "failed")])
def test_the_setting_holds_for_functions_that_say_nothing(engine: Engine, setting: str, status: str) -> None:
    with override_settings(DURABLE={"DRIVER": "inline", "ON_CODE_CHANGE": setting}):
        with worker(old):
            engine.start()
        with worker(new):
            assert engine.advance("1h").status == status


@pytest.mark.parametrize("policy", ["continue", "pin", "fail"])
def test_a_run_that_has_not_started_takes_the_code_that_it_meets(engine: Engine, policy: str) -> None:
    with worker(old), override_settings(DURABLE={"DRIVER": "tests.engine.conftest.DeafDriver"}):
        durable.send_event("test/start")
        list(ingest())
    with worker(lambda: new(on_code_change=policy)):
        engine.settle()
        run = engine.advance("1h")

    assert (run.status, run.output) == ("completed", '"new"')
    assert (run.code_version, run.last_code_version) == (new_version(), "")


def ingest() -> Iterator[Any]:
    from django_durable.engine.workers.ingest import ingest_events

    return ingest_events()


def test_a_run_that_went_on_with_other_code_and_comes_back_is_at_home(engine: Engine) -> None:
    with worker(old):
        engine.start()
    with worker(broken):
        registry.find("project/fn").retries = 1
        assert engine.advance("1h").waiting_kind == "retry"
    with worker(lambda: old(on_code_change="fail")):
        run = engine.advance("1h")

    assert (run.status, run.last_code_version) == ("completed", run.code_version)


# Steps that are not asked for any more


def test_recorded_steps_that_the_last_pass_did_not_ask_for_are_marked_and_logged(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    with worker(old):
        engine.start()
    with worker(new), caplog.at_level(logging.WARNING, "django_durable"):
        run = engine.advance("1h")

    assert dict(Step.objects.values_list("name", "unused")) == {"first": True, "nap": False, "one": False}
    assert f"Run {run.id} did not ask for steps it has recorded: first" in caplog.text


def test_a_repeated_step_is_unused_from_the_use_that_fell_away(engine: Engine) -> None:
    def loop(times: int) -> Code:
        def register() -> object:
            @durable.function("fn", trigger="test/start")
            def fn(event: durable.Event, step: durable.Step) -> None:
                for number in range(times):
                    step.run("step", int, number)
                step.sleep("nap", "1h")

            return fn

        return register

    with worker(loop(3)):
        engine.start()
    with worker(loop(1)):
        engine.advance("1h")

    steps = Step.objects.filter(name="step").order_by("ordinal")
    assert list(steps.values_list("unused", flat=True)) == [False, True, True]


def test_a_run_that_fails_before_it_reaches_its_steps_marks_none(engine: Engine) -> None:
    with worker(old):
        engine.start()
    with worker(broken):
        run = engine.advance("1h")

    assert run.status == "failed"
    assert not Step.objects.filter(unused=True).exists()


def test_a_run_that_asks_for_all_it_has_ends_in_one_statement_as_before(engine: Engine) -> None:
    with worker(old):
        engine.start()
        with CaptureQueriesContext(connection) as queries:
            run = engine.advance("1h")

    assert run.status == "completed"
    assert not [query for query in queries.captured_queries if '"unused" =' in query["sql"]]


# Lost and new functions


def test_a_run_whose_function_the_code_lost_waits_until_a_worker_has_it_again(engine: Engine) -> None:
    with worker(old):
        engine.start()
    with worker():
        run = engine.advance("1h")
        assert (run.status, run.waiting_kind, run.attempt) == ("waiting", "code", 0)
        assert run.waiting_for == "a worker whose code has project/fn"
        assert not Function.objects.get(id="project/fn").in_code
        engine.advance("1h")
    with worker(old):
        run = engine.advance("1m")

    assert (run.status, run.output) == ("completed", '"old"')
    assert Function.objects.get(id="project/fn").in_code


def test_an_old_worker_starts_the_runs_of_a_function_that_only_new_code_has(engine: Engine) -> None:
    with worker(old, extra):
        version = registry.find("project/extra").code_version
    registry.add(old())  # an old worker: it started before the new one, and does not look again at the rows

    durable.send_event("test/start", {"n": 1})
    durable.send_event("test/other", {"n": 0})

    [run] = Run.objects.filter(function="project/extra")
    assert (run.queue, run.code_version) == ("slow", version)
    assert run.waiting_for == "a worker whose code has project/extra"
    with worker(old, extra):
        engine.advance("5s")
    run.refresh_from_db()
    assert (run.status, run.output) == ("completed", '"extra"')


def test_a_run_that_another_worker_is_known_to_have_code_for_is_looked_at_sooner(engine: Engine) -> None:
    with worker(old, extra):
        pass
    registry.add(old())
    durable.send_event("test/start", {"n": 1})

    run = Run.objects.get(function="project/extra")

    assert run.next_at is not None
    assert 4 < (run.next_at - run.created_at).total_seconds() < 10


def test_a_new_worker_starts_no_runs_of_a_function_that_its_code_dropped(engine: Engine) -> None:
    with worker(old, extra):
        pass
    with worker(new):
        durable.send_event("test/start", {"n": 1})

    assert list(Run.objects.values_list("function", flat=True)) == ["project/fn"]


def test_a_condition_of_a_function_that_only_new_code_has_may_error(engine: Engine) -> None:
    with worker(extra):
        pass
    durable.send_event("test/start", {})

    assert MatchFailure.objects.get().function_id == "project/extra"
    assert not Run.objects.exists()


@pytest.mark.parametrize("trigger", [{"event": "test/start", "if": "a new (syntax"}, {"cron": "* * * * *"}, 7, [7]])
def test_a_trigger_that_old_code_cannot_read_stops_nobody(
    engine: Engine, caplog: pytest.LogCaptureFixture, trigger: Any
) -> None:
    with worker(extra):
        Function.objects.update(config={"triggers": [trigger]})
    old()

    with caplog.at_level(logging.ERROR, "django_durable"):
        durable.send_event("test/start")

    assert list(Run.objects.values_list("function", flat=True)) == ["project/fn"]
    assert "This worker's code lacks project/extra and cannot read its trigger" in caplog.text


def test_foreign_functions_cost_one_small_query_for_each_batch(engine: Engine) -> None:
    with worker(extra):
        pass
    with override_settings(DURABLE={"DRIVER": "tests.engine.conftest.DeafDriver"}):
        durable.send_events(durable.Event("test/start", {"n": number}) for number in range(50))
        with CaptureQueriesContext(connection) as queries:
            list(ingest())

    read = [query for query in queries.captured_queries if re.search("FROM .?django_durable_function", query["sql"])]
    assert len(read) == 1
    assert Run.objects.count() == 49


def branching(version: str, **options: Any) -> Code:
    def code() -> object:
        @durable.function("fn", trigger="test/start", **options)
        def fn(event: durable.Event, step: durable.Step) -> str:
            step.parallel(lambda: step.sleep("one", "1h"), lambda: step.sleep("two", "1h"))
            return version

        fn.__dict__["code_version"] = version
        return fn

    return code


def test_a_branch_goes_on_with_changed_code(engine: Engine) -> None:
    with worker(branching("old")):
        engine.start()
    with worker(branching("new")):
        run = engine.advance("2h")

    assert (run.status, run.output) == ("completed", '"new"')
    assert (run.code_version, run.last_code_version) == ("old", "new")


def test_a_branch_of_a_pinned_run_waits_for_the_old_code(engine: Engine) -> None:
    with worker(branching("old", on_code_change="pin")):
        engine.start()
    with worker(branching("new", on_code_change="pin")):
        run = engine.advance("2h")
        assert run.status == "waiting"
    with worker(branching("old", on_code_change="pin")):
        run = engine.advance("2h")

    assert (run.status, run.output) == ("completed", '"old"')


def test_a_branch_fails_its_run_where_changed_code_is_to_fail(engine: Engine) -> None:
    with worker(branching("old", on_code_change="fail")):
        engine.start()
    with worker(branching("new", on_code_change="fail")):
        run = engine.advance("2h")

    assert (run.status, failure_of(run).type) == ("failed", "django_durable.exceptions.CodeChanged")


def test_an_async_run_goes_on_with_changed_code(engine: Engine) -> None:
    def code(version: str) -> Code:
        def register() -> object:
            @durable.function("fn", trigger="test/start")
            async def fn(event: durable.Event, step: durable.Step) -> str:
                await step.sleep("nap", "1h")
                return version

            fn.__dict__["code_version"] = version
            return fn

        return register

    with worker(code("old")):
        engine.start()
    with worker(code("new")):
        run = engine.advance("2h")

    assert (run.output, run.code_version, run.last_code_version) == ('"new"', "old", "new")
