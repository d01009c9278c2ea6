"""What each step does: functions, transactions, sent events, children, recorded values, new runs."""

from __future__ import annotations

import datetime
import logging
from typing import Any

import pytest
from django.db import transaction

import django_durable as durable
from django_durable.core.functions.steps import step as durable_step
from django_durable.models import Event, Run
from tests.scenarios.conftest import Play
from tests.testapp.models import Tag

# step.run and step.atomic


def test_a_step_gets_its_arguments(play: Play) -> None:
    add = play.body("add", does=lambda a, *, b: a + b)

    async def handler(event: durable.Event, step: durable.Step) -> Any:
        return await step.run("add", add, 1, b=2)

    play.start(handler)

    assert play.result == 3


def test_a_local_function_is_run_where_it_is_decorated(play: Play) -> None:
    async def handler(event: durable.Event, step: durable.Step) -> Any:
        @step.run("total")
        async def total() -> int:
            play.calls.append("total")
            return 42

        value = await total
        await step.sleep("nap", "1h")
        return value

    play.start(handler)
    play.advance("1h")

    assert play.result == 42
    assert play.calls == ["total"]


@durable_step
def send_invoice(order_id: int) -> str:
    return f"invoice {order_id}"


@durable_step
async def send_invoice_async(order_id: int) -> str:
    return f"invoice {order_id}"


def test_a_function_marked_as_a_step_is_one_inside_a_run_and_plain_outside(play: Play) -> None:
    def plain(event: durable.Event, step: durable.Step) -> Any:
        return send_invoice(7)

    async def asynchronous(event: durable.Event, step: durable.Step) -> Any:
        return await send_invoice_async(7)

    play.start(plain, asynchronous)

    assert play.result == "invoice 7"
    assert play.run.step_set.get().name in ("send-invoice", "send-invoice-async")
    assert send_invoice(8) == "invoice 8"


def test_plain_and_async_functions_are_steps_of_any_handler(play: Play) -> None:
    async def asynchronous() -> str:
        return "async"

    async def handler(event: durable.Event, step: durable.Step) -> Any:
        return [await step.run("plain", str, "plain"), await step.run("async", asynchronous)]

    play.start(handler)

    assert play.result == ["plain", "async"]


def test_a_step_inside_a_step_is_refused_by_name_and_not_retried(play: Play) -> None:
    async def handler(event: durable.Event, step: durable.Step) -> None:
        async def outer() -> None:
            play.calls.append("outer")
            await step.run("inner", play.body("inner"))

        await step.run("outer", outer)

    play.start(handler)

    assert play.failure.type == "django_durable.exceptions.NestedStep"
    assert "'inner'" in play.failure.message
    assert "'outer'" in play.failure.message
    assert play.calls == ["outer"]


def test_a_step_inside_a_step_cannot_be_caught(play: Play) -> None:
    async def handler(event: durable.Event, step: durable.Step) -> str:
        async def outer() -> str:
            try:
                await step.run("inner", play.body("inner"))
            except Exception:
                return "caught"
            return "went on"

        try:
            return await step.run("outer", outer)
        except Exception:
            return "caught outside"

    play.start(handler)

    assert play.failure.type == "django_durable.exceptions.NestedStep"
    assert play.calls == []


def test_an_atomic_step_commits_its_writes_with_its_record(play: Play) -> None:
    async def handler(event: durable.Event, step: durable.Step) -> Any:
        note = await step.atomic("write", write)
        await step.sleep("nap", "1h")
        return note

    def write() -> str:
        assert transaction.get_connection().in_atomic_block
        return Tag.objects.create(word="kept").word

    play.start(handler)
    play.advance("1h")

    assert play.result == "kept"
    assert Tag.objects.count() == 1


def test_an_atomic_step_that_fails_leaves_no_writes(play: Play) -> None:
    async def handler(event: durable.Event, step: durable.Step) -> Any:
        return await step.atomic("write", write)

    def write() -> int:
        play.calls.append("write")
        Tag.objects.create(word=f"attempt {len(play.calls)}")
        if len(play.calls) < 3:
            raise ValueError("not yet")
        return len(play.calls)

    play.start(handler)
    play.to_the_end()

    assert play.result == 3
    assert [tag.word for tag in Tag.objects.all()] == ["attempt 3"]


# step.send_event


def test_events_are_sent_exactly_once(play: Play) -> None:
    async def handler(event: durable.Event, step: durable.Step) -> Any:
        ids = await step.send_event("emit", durable.Event("test/a"), durable.Event("test/b", {"n": 1}))
        await step.sleep("nap", "1h")
        return ids

    play.start(handler)
    play.advance("1h")

    sent = Event.objects.filter(name__in=["test/a", "test/b"]).order_by("name")
    assert [(event.name, event.data) for event in sent] == [("test/a", {}), ("test/b", {"n": 1})]
    assert play.result == [str(event.id) for event in sent]


def test_a_run_that_fails_afterwards_has_sent_its_events(play: Play) -> None:
    async def handler(event: durable.Event, step: durable.Step) -> None:
        await step.send_event("emit", durable.Event("test/a"))
        raise ValueError("too late")

    play.start(handler)
    play.to_the_end()

    assert play.status == "failed"
    assert Event.objects.filter(name="test/a").count() == 1


# step.invoke


def test_an_invoked_function_returns_its_result(play: Play) -> None:
    async def child(event: durable.Event, step: durable.Step) -> int:
        await step.sleep("nap", "1h")
        return event.data["n"] + 1

    async def handler(event: durable.Event, step: durable.Step) -> Any:
        return await step.invoke("ask", "child", {"n": 1})

    play.function("child", child)
    play.start(handler)
    assert play.status == "waiting"
    play.advance("1h")

    assert play.result == 2
    assert Run.objects.filter(parent=play.run).count() == 1


def test_a_failed_child_is_an_error_that_can_be_caught(play: Play) -> None:
    async def child(event: durable.Event, step: durable.Step) -> None:
        raise durable.NonRetriable("out of stock")

    async def handler(event: durable.Event, step: durable.Step) -> Any:
        try:
            await step.invoke("ask", "child")
        except durable.InvokeError as error:
            return [error.message, error.status, error.is_a(durable.NonRetriable)]

    play.function("child", child)
    play.start(handler)

    assert play.result == ["out of stock", "failed", True]


def test_a_child_that_takes_too_long_is_an_error_and_goes_on(play: Play) -> None:
    async def child(event: durable.Event, step: durable.Step) -> None:
        await step.sleep("nap", "3h")

    async def handler(event: durable.Event, step: durable.Step) -> Any:
        try:
            await step.invoke("ask", "child", timeout="1h")
        except durable.InvokeTimeout:
            return "late"

    play.function("child", child)
    play.start(handler)
    play.advance("1h")
    assert play.result == "late"

    play.advance("2h")
    assert Run.objects.get(parent=play.run).status == "completed"


def test_an_unknown_function_is_an_error_at_once(play: Play) -> None:
    async def handler(event: durable.Event, step: durable.Step) -> Any:
        try:
            await step.invoke("ask", "nobody")
        except durable.InvokeError as error:
            return [error.run_id, "nobody" in error.message]

    play.start(handler)

    assert play.result == [None, True]


def test_a_cancelled_child_is_an_error_at_once(play: Play) -> None:
    async def child(event: durable.Event, step: durable.Step) -> None:
        await step.sleep("nap", "3h")

    async def handler(event: durable.Event, step: durable.Step) -> Any:
        try:
            await step.invoke("ask", "child")
        except durable.InvokeError as error:
            return error.status

    play.function("child", child)
    play.start(handler)
    durable.cancel_run(Run.objects.get(parent=play.run).id)

    assert play.result == "cancelled"


@pytest.mark.parametrize("cancels", [True, False], ids=["cancelled with it", "left alone"])
def test_a_cancelled_run_cancels_the_child_that_it_waits_for(play: Play, cancels: bool) -> None:
    async def child(event: durable.Event, step: durable.Step) -> None:
        await step.sleep("nap", "3h")

    async def handler(event: durable.Event, step: durable.Step) -> Any:
        await step.invoke("ask", "child", cancel_children=cancels)

    play.function("child", child)
    play.start(handler)
    durable.cancel_run(play.run.id)
    play.advance("3h")

    assert play.status == "cancelled"
    assert Run.objects.get(parent=play.run).status == ("cancelled" if cancels else "completed")


# Recorded values


def test_now_uuid_and_random_are_the_same_in_every_pass(play: Play) -> None:
    seen = []

    async def handler(event: durable.Event, step: durable.Step) -> None:
        seen.append((await step.now(), await step.uuid(), await step.random()))
        await step.sleep("nap", "1h")

    play.start(handler)
    play.advance("1h")

    assert play.status == "completed"
    assert len(seen) >= 2
    assert len(set(seen)) == 1
    assert isinstance(seen[0][0], datetime.datetime)


def test_each_now_uuid_and_random_is_another(play: Play) -> None:
    async def handler(event: durable.Event, step: durable.Step) -> Any:
        return [await step.uuid() != await step.uuid(), await step.random() != await step.random()]

    play.start(handler)

    assert play.result == [True, True]


def test_a_key_is_the_same_in_every_attempt_and_pass(play: Play) -> None:
    keys = []

    async def handler(event: durable.Event, step: durable.Step) -> Any:
        keys.append(step.idempotency_key("charge"))
        await step.options(idempotency_key="key").run("charge", charge)

    async def async_charge(key: str) -> None:
        plain_charge(key)

    def plain_charge(key: str) -> None:
        play.calls.append(key)
        if len(play.calls) < 3:
            raise ValueError("declined")

    charge = async_charge if play.mode.asynchronous else plain_charge
    play.start(handler)
    play.to_the_end()

    assert play.status == "completed"
    assert (len(play.calls), len(set(play.calls)), len(set(keys))) == (3, 1, 1)


def test_a_line_is_logged_once(play: Play, caplog: pytest.LogCaptureFixture) -> None:
    async def handler(event: durable.Event, step: durable.Step) -> None:
        step.logger.info("before")
        await step.sleep("nap", "1h")
        step.logger.info("after")
        await step.sleep("rest", "1h")

    with caplog.at_level(logging.INFO, "django_durable.runs"):
        play.start(handler)
        play.to_the_end()

    assert [record.getMessage() for record in caplog.records if record.name == "django_durable.runs"] == [
        "before",
        "after",
    ]


def test_a_summary_is_shown_with_the_run(play: Play) -> None:
    async def handler(event: durable.Event, step: durable.Step) -> None:
        await step.summary("order 7")
        await step.sleep("nap", "1h")
        await step.summary("order 7, paid")

    play.start(handler)
    assert play.run.summary == "order 7"
    play.advance("1h")

    assert play.run.summary == "order 7, paid"


# step.continue_as_new


def test_a_run_ends_and_goes_on_as_a_new_one(play: Play) -> None:
    work = play.body("work")

    async def handler(event: durable.Event, step: durable.Step) -> Any:
        left = event.data["left"]
        await step.run("work", work)
        if left:
            await step.continue_as_new({"left": left - 1})
        return left

    play.start(handler, data={"left": 2})

    runs = list(Run.objects.order_by("id"))
    assert [run.status for run in runs] == ["completed"] * 3
    assert runs[-1].output == "0"
    assert play.calls == ["work"] * 3


def test_whoever_invoked_a_run_that_goes_on_as_new_gets_the_last_result(play: Play) -> None:
    async def child(event: durable.Event, step: durable.Step) -> Any:
        if event.data["left"]:
            await step.sleep("nap", "1h")
            await step.continue_as_new({"left": event.data["left"] - 1})
        return "done"

    async def handler(event: durable.Event, step: durable.Step) -> Any:
        return await step.invoke("ask", "child", {"left": 2})

    play.function("child", child)
    play.start(handler)
    play.to_the_end()

    assert play.result == "done"


# What may stand in a handler


def test_a_step_in_a_transaction_of_the_handler_is_refused(play: Play) -> None:
    def plain(event: durable.Event, step: durable.Step) -> None:
        with transaction.atomic():
            step.run("work", play.body("work", plain=True))

    async def asynchronous(event: durable.Event, step: durable.Step) -> None:
        with transaction.atomic():
            await step.run("work", play.body("work", plain=True))

    play.start(plain, asynchronous, retries=0)

    # In async code Django itself refuses the transaction.
    refusal = "django.core.exceptions.SynchronousOnlyOperation"
    assert play.failure.type == (refusal if play.mode.asynchronous else "django_durable.exceptions.StepInTransaction")
    assert play.calls == []


def test_the_run_that_asks_for_one_step_too_many_fails_before_its_body(play: Play, settings: Any) -> None:
    settings.DURABLE = settings.DURABLE | {"MAX_STEPS": 3}
    work = play.body("work")

    async def handler(event: durable.Event, step: durable.Step) -> None:
        for _ in range(5):
            await step.run("work", work)

    play.start(handler)

    assert play.failure.type == "django_durable.exceptions.TooManySteps"
    assert play.calls == ["work"] * 3
