"""The public API used wrongly: each line marked ``# E:`` is an error to mypy --strict and to pyright, no other is."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TypedDict

import django_durable as durable
from django_durable import AsyncStep, Event, EventType, FailureEvent, Step


@dataclass
class OrderPaid:
    """The data of an event."""

    order_id: int
    amount: Decimal


class UserCreated(TypedDict):
    """The data of another event."""

    email: str


ORDER_PAID = EventType("shop/order.paid", OrderPaid)
USER_CREATED = EventType("app/user.created", UserCreated)


def charge(order_id: int, *, currency: str = "EUR") -> str:
    """Do something in a step."""
    return f"{order_id} {currency}"


EventType("shop/order.paid", 7)  # E: no class

ORDER_PAID({"order_id": 7})  # E: a dictionary in place of the class
ORDER_PAID(OrderPaid(7, Decimal(1)), key="order-7")  # E: no such argument
USER_CREATED({"mail": "ann@example.com"})  # E: no such key

durable.send_event(7)  # E: no name
durable.send_event(ORDER_PAID, {"order_id": 7})  # E: a dictionary in place of the class
durable.send_event("app/anything", ["x"])  # E: no dictionary
durable.send_events([OrderPaid(7, Decimal(1))])  # E: data in place of an event


@durable.function()
def send_receipt(event: Event[OrderPaid], step: Step) -> str:
    """Return a text."""
    return event.data.email  # E: no such field


@durable.function(trigger=7)  # E: no trigger
def fulfil_order(event: Event[OrderPaid], step: Step) -> None:
    """Use each step wrongly."""
    step.run("charge", charge, "seven")  # E: no int
    step.run("charge", charge, 7, curency="USD")  # E: no such argument
    step.run("charge", charge)  # E: an argument is missing
    step.run("charge", 7)  # E: no function
    step.run(fn=charge, id="charge")  # E: the id comes first
    step.atomic("charge", charge, 7, 8)  # E: one argument too many
    total: int = step.run("charge", charge, 7)  # E: a text
    total = step.atomic("charge", charge, 7)  # E: a text

    step.sleep("nap")  # E: no duration
    step.sleep_until("nap", 7)  # E: no moment

    step.invoke("receipt", send_receipt, {"order_id": 7})  # E: a dictionary in place of the class
    step.invoke("receipt", send_receipt)  # E: data is missing
    total = step.invoke("receipt", send_receipt, event.data)  # E: a text
    step.invoke("receipt", charge, {})  # E: no durable function

    paid = step.wait_for_event("paid", event=ORDER_PAID, timeout="1h")
    print(paid.data)  # E: may be None
    if paid is not None:
        print(paid.data.email, total)  # E: no such field
    step.wait_for_event("paid", event=ORDER_PAID)  # E: no timeout
    step.wait_for_event("paid", event=7, timeout="1h")  # E: no name

    step.send_event("send", "app/anything")  # E: a name in place of an event


async def fetch(order_id: int, *, timeout: float = 3) -> str:
    """Do something asynchronous in a step."""
    return f"{order_id}"


@durable.function()
async def enrich(event: Event[OrderPaid], step: AsyncStep) -> str:
    """Use each step of an async handler wrongly."""
    total: int = await step.run("fetch", fetch, 7)  # E: a text
    total = await step.run("charge", charge, 7)  # E: a text
    total = step.run("size", lambda: 7)  # E: not awaited
    total = await step.atomic("charge", charge, 7)  # E: a text
    await step.run("fetch", fetch, "seven")  # E: no int
    await step.run("fetch", fetch, 7, timeuot=3)  # E: no such argument
    await step.run("fetch")  # E: no function; it does not decorate
    await step.parallel(lambda: step.run("fetch", fetch, 7))  # E: asyncio.gather in its place
    await step.map("fetch", fetch, [7])  # E: asyncio.gather in its place

    await step.invoke("receipt", send_receipt, {"order_id": 7})  # E: a dictionary in place of the class
    total = await step.invoke("receipt", send_receipt, event.data)  # E: a text

    paid = await step.wait_for_event("paid", event=ORDER_PAID, timeout="1h")
    print(paid.data, total)  # E: may be None
    await step.wait_for_event("paid", event=ORDER_PAID)  # E: no timeout
    await step.sleep("nap")  # E: no duration
    step.run_id = "7"  # E: read-only
    return event.data.order_id  # E: an int


@durable.function(retires=3)  # E: no such option
def misspelt(event: Event, step: Step) -> None:
    """Ask for more attempts."""


@durable.function(backoff=object())  # E: no back-off
def without_pauses(event: Event, step: Step) -> None:
    """Ask for odd pauses."""


@durable.function()  # E: a plain handler gets a Step
def plain_with_async_steps(event: Event, step: AsyncStep) -> None:
    """Ask for the wrong kind of step."""


@durable.function()  # E: one parameter
def one_parameter(event: Event) -> None:
    """Get no step."""


@fulfil_order.on_failure
def refund_order(event: FailureEvent[OrderPaid], step: Step) -> None:
    """Read what is not there."""
    print(event.original.data.email)  # E: no such field
