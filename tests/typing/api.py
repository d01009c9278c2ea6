"""The public API as type checkers see it, used rightly: neither mypy --strict nor pyright has anything to say."""

from __future__ import annotations

import asyncio
import datetime
import uuid
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, TypedDict, assert_type

import django_durable as durable
from django_durable import AsyncStep, DurableFunction, Event, EventType, FailureEvent, On, Step


@dataclass
class OrderPaid:
    """The data of an event."""

    order_id: int
    amount: Decimal


class UserCreated(TypedDict):
    """The data of another event."""

    email: str


@dataclass
class Receipt:
    """What a child gets."""

    order_id: int


ORDER_PAID = EventType("shop/order.paid", OrderPaid)
USER_CREATED = EventType("app/user.created", UserCreated)
ANYTHING = EventType("app/anything")

assert_type(ORDER_PAID, EventType[OrderPaid])
assert_type(USER_CREATED, EventType[UserCreated])
assert_type(ANYTHING, EventType[dict[str, Any]])


def charge(order_id: int, amount: Decimal, *, currency: str = "EUR") -> str:
    """Do something in a step."""
    return f"{order_id} {amount} {currency}"


# Sending

assert_type(ORDER_PAID(OrderPaid(7, Decimal("9.90"))), Event[OrderPaid])
assert_type(ORDER_PAID(OrderPaid(7, Decimal("9.90")), id="order-7").data, OrderPaid)
assert_type(USER_CREATED({"email": "ann@example.com"}).data["email"], str)
assert_type(Event("app/anything", {"x": 1}, id="1").name, str)

durable.send_event("app/anything")
durable.send_event("app/anything", {"x": 1}, user={"id": 7})
durable.send_event(ORDER_PAID, OrderPaid(7, Decimal("9.90")), id="order-7")
durable.send_event(ORDER_PAID(OrderPaid(7, Decimal("9.90"))))
durable.send_event(Event("app/anything"))
durable.send_events(
    [ORDER_PAID(OrderPaid(7, Decimal(1))), USER_CREATED({"email": ""}), Event("app/anything", {"x": 1})]
)


# Handlers


@durable.function()
def send_receipt(event: Event[Receipt], step: Step) -> str:
    """Get typed data without a trigger, and return a text."""
    return step.run("send", str, event.data.order_id)


@durable.function("untyped", trigger="app/anything")
def untyped(event: Event, step: Step) -> dict[str, int]:
    """Get any data."""
    assert_type(event.data, Any)
    return {"x": event.data["x"]}


@durable.function()
def with_a_dictionary(event: Event[dict[str, Any]], step: Step) -> None:
    """Get a dictionary."""


@durable.function(trigger=[ORDER_PAID, On(ORDER_PAID, if_="event.data.order_id > 7"), "app/anything"], retries=3)
def fulfil_order(event: Event[OrderPaid], step: Step) -> int:
    """Use each step."""
    assert_type(event.data, OrderPaid)
    assert_type(event.data.amount, Decimal)

    assert_type(step.run("charge", charge, event.data.order_id, event.data.amount, currency="USD"), str)
    assert_type(step.run("size", lambda: 7), int)
    assert_type(step.atomic("charge-too", charge, event.data.order_id, Decimal(1)), str)

    assert_type(step.invoke("receipt", send_receipt, Receipt(7)), str)
    assert_type(step.invoke("receipt", send_receipt, Receipt(7), timeout="1h"), str)
    assert_type(step.invoke("untyped", untyped, {"x": 1}), dict[str, int])
    assert_type(step.invoke("untyped", untyped), dict[str, int])
    assert_type(step.invoke("by-id", "shop/send-receipt", {"x": 1}), Any)
    step.invoke("nothing", with_a_dictionary)

    paid = step.wait_for_event("paid", event=ORDER_PAID, match="data.order_id", timeout="1h")
    assert_type(paid, Event[OrderPaid] | None)
    created = step.wait_for_event("created", USER_CREATED, timeout="1h")
    assert_type(created.data["email"] if created else "", str)
    assert_type(step.wait_for_event("anything", event="app/*", timeout=3), Event[Any] | None)

    assert_type(step.send_event("send", ORDER_PAID(event.data), Event("app/anything", {"x": 1})), list[str])
    return 7


assert_type(send_receipt, DurableFunction[Receipt, str])
assert_type(untyped, DurableFunction[Any, dict[str, int]])
assert_type(fulfil_order, DurableFunction[OrderPaid, int])


async def fetch(order_id: int, *, timeout: float = 3) -> dict[str, int]:
    """Do something asynchronous in a step."""
    return {"order_id": order_id}


@durable.function("enrich", trigger=ORDER_PAID)
async def enrich(event: Event[OrderPaid], step: AsyncStep) -> str:
    """Await each step, some of them side by side; the function's result is what awaiting the handler gives."""
    assert_type(event.data, OrderPaid)
    assert_type(await step.run("fetch", fetch, event.data.order_id, timeout=1), dict[str, int])
    assert_type(await step.run("charge", charge, event.data.order_id, event.data.amount, currency="USD"), str)
    assert_type(await step.run("size", lambda: 7), int)
    assert_type(await step.options(timeout="3s", thread=True).run("fetch", fetch, 7), dict[str, int])
    assert_type(await step.atomic("charge-too", charge, event.data.order_id, Decimal(1)), str)
    assert_type(await asyncio.gather(step.run("a", fetch, 7), step.now()), tuple[dict[str, int], datetime.datetime])
    async with asyncio.TaskGroup() as group:
        task = group.create_task(step.run("b", charge, 7, Decimal(1)))
    assert_type(task.result(), str)

    assert_type(await step.uuid(), uuid.UUID)
    assert_type(await step.random(), float)
    assert_type(await step.patched("new"), bool)
    assert_type(step.idempotency_key("charge"), str)
    assert_type(step.run_id, str)
    step.logger.info("attempt %s", step.attempt)
    await step.summary("order 7")
    await step.sleep("nap", "1h")
    await step.sleep_until("morning", "2030-01-01")

    assert_type(await step.invoke("receipt", send_receipt, Receipt(7), timeout="1h"), str)
    assert_type(await step.invoke("untyped", untyped), dict[str, int])
    assert_type(await step.invoke("by-id", "shop/send-receipt", {"x": 1}), Any)

    paid = await step.wait_for_event("paid", event=ORDER_PAID, match="data.order_id", timeout="1h")
    assert_type(paid, Event[OrderPaid] | None)
    assert_type(await step.wait_for_event("anything", event="app/*", timeout=3), Event[Any] | None)
    assert_type(await step.wait_for_signal("approval", "approve-7", timeout="1h"), Any)

    assert_type(await step.send_event("send", ORDER_PAID(event.data)), list[str])
    await step.continue_as_new({"order_id": 7})
    return str(event.data.order_id)


@durable.function("from-plain")
def invokes_async(event: Event, step: Step) -> str:
    """Get the result of an async function from a plain one."""
    return step.invoke("enrich", enrich, OrderPaid(7, Decimal(1)))


@durable.function()
async def without_steps(event: Event[Receipt], step: object) -> int:
    """Call no step."""
    return event.data.order_id


assert_type(enrich, DurableFunction[OrderPaid, str])
assert_type(without_steps, DurableFunction[Receipt, int])


@fulfil_order.on_failure
def refund_order(event: FailureEvent[OrderPaid], step: Step) -> None:
    """Get the data of the run that failed."""
    assert_type(event.original.data.order_id, int)
    assert_type(event.error.message, str)


@durable.function(trigger="durable/function.failed")
def any_failure(event: FailureEvent, step: Step) -> None:
    """Get the failures of every function."""
    assert_type(event.original.data, Any)


@durable.function(trigger=[ORDER_PAID, USER_CREATED], on_failure=refund_order)
def several(event: Event[OrderPaid | UserCreated], step: Step) -> None:
    """Get data of one of two types."""
    assert_type(event.data, OrderPaid | UserCreated)
