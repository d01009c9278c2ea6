"""The inline driver: everything in the caller's thread, at once."""

from __future__ import annotations

import threading

from django.db import connection, transaction
from django.test import override_settings

import django_durable as durable
from django_durable.drivers.base import get_driver
from django_durable.drivers.inline import InlineDriver
from django_durable.models import Event, Run
from tests.engine.conftest import Engine, engine, failing

__all__ = ["engine"]


def test_a_sent_event_has_done_its_work_when_the_call_returns(engine: Engine) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> int:
        return step.run("thread", threading.get_ident)

    durable.send_event("test/start")

    assert engine.run().output == str(threading.get_ident())


def test_work_starts_when_the_transaction_commits(engine: Engine) -> None:
    engine.function()(lambda event, step: None)

    with transaction.atomic():
        durable.send_event("test/start")
        assert not Run.objects.exists()

    assert engine.run().status == "completed"


def test_what_a_handler_sends_is_worked_on_before_the_call_returns(engine: Engine) -> None:
    order = []

    @engine.function("first")
    def first(event: durable.Event, step: durable.Step) -> None:
        step.send_event("emit", durable.Event("test/second"), durable.Event("test/second"))
        order.append("first goes on")

    @engine.function("second", trigger="test/second")
    def second(event: durable.Event, step: durable.Step) -> None:
        order.append("second")

    durable.send_event("test/start")

    assert order == ["first goes on", "second", "second"]


def test_an_event_that_is_sent_by_plain_code_of_a_handler_is_worked_on_too(engine: Engine) -> None:
    @engine.function("first")
    def first(event: durable.Event, step: durable.Step) -> None:
        step.run("send", durable.send_event, "test/second")

    engine.function("second", trigger="test/second")(lambda event, step: "done")

    durable.send_event("test/start")

    assert Run.objects.get(function__slug="second").output == '"done"'


def test_a_handler_that_waits_for_what_it_causes_gets_it(engine: Engine) -> None:
    @engine.function("asks")
    def asks(event: durable.Event, step: durable.Step) -> object:
        step.send_event("ask", durable.Event("test/question"))
        answer = step.wait_for_event("answer", "test/answer", timeout="1h")
        return answer and answer.data["value"]

    @engine.function("answers", trigger="test/question")
    def answers(event: durable.Event, step: durable.Step) -> None:
        step.send_event("answer", durable.Event("test/answer", {"value": 42}))

    durable.send_event("test/start")

    assert Run.objects.get(function__slug="asks").output == "42"


@override_settings(DURABLE={"DRIVER": "inline", "TURN_BUDGET": 0.000001})
def test_a_run_that_gives_way_is_gone_on_with(engine: Engine) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> list[int]:
        return [step.run("each", int, number) for number in range(5)]

    durable.send_events([durable.Event("test/start"), durable.Event("test/start")])

    assert list(Run.objects.values_list("status", "output")) == [("completed", "[0,1,2,3,4]")] * 2
    assert engine.run().fence > 5


@override_settings(DURABLE={"DRIVER": "inline", "TURN_BUDGET": 0.000001})
def test_every_queue_is_worked_on(engine: Engine) -> None:
    for queue in ("a", "b", "c"):
        engine.function(queue, queue=queue)(lambda event, step: step.run("step", int))

    durable.send_event("test/start")

    assert list(Run.objects.values_list("status", flat=True)) == ["completed"] * 3


def test_an_error_of_the_engine_is_not_the_callers(engine: Engine) -> None:
    engine.function()(lambda event, step: None)
    with connection.execute_wrapper(failing("django_durable_wait")):
        durable.send_event("test/start")
    assert Event.objects.get().ingested_at is None

    durable.send_event("test/start")

    assert Run.objects.filter(status="completed").count() == 2


def test_threads_work_on_their_own(engine: Engine) -> None:
    driver, inside, seen = get_driver(), threading.Event(), []

    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        thread = threading.Thread(target=lambda: seen.append(getattr(driver._at_work, "hints", None)))
        thread.start()
        thread.join()
        inside.set()

    durable.send_event("test/start")

    assert isinstance(driver, InlineDriver)
    assert inside.is_set()
    assert seen == [None]


def test_its_queue_is_the_setting_or_default(engine: Engine) -> None:
    assert InlineDriver().default_queue() == "default"
    with override_settings(DURABLE={"DRIVER": "inline", "QUEUE": "own"}):
        assert get_driver().default_queue() == "own"
