"""Typed events on the real engine: sent as plain JSON, received as instances of their class."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

import django_durable as durable
from django_durable import Event, EventType, FailureEvent, InvalidEvent
from django_durable.core.values import classes
from django_durable.models import Event as StoredEvent
from django_durable.models import Run
from tests.engine.conftest import Engine, failure_of


@dataclass
class Line:
    """A line of an order."""

    name: str
    price: Decimal


@dataclass
class OrderPaid:
    """The data of an event."""

    order_id: int
    amount: Decimal
    paid_at: datetime | None = None
    lines: list[Line] = field(default_factory=list)


ORDER_PAID = EventType("shop/order.paid", OrderPaid)
PAID = OrderPaid(7, Decimal("9.90"), datetime(2030, 1, 2, tzinfo=UTC), [Line("pen", Decimal("1.10"))])


def keep(seen: list[Any]) -> Any:
    """Return a handler that keeps the data of its event."""
    return lambda event, step: seen.append(event.data)


@pytest.mark.parametrize("event", [ORDER_PAID(PAID), Event("shop/order.paid", PAID)])
def test_data_is_stored_as_plain_fields_and_received_as_the_class(engine: Engine, event: Event[OrderPaid]) -> None:
    seen: list[Any] = []
    engine.function(trigger=ORDER_PAID)(keep(seen))

    durable.send_event(event)

    stored = StoredEvent.objects.get().data
    assert stored["order_id"] == 7
    assert stored["lines"] == [{"name": "pen", "price": {"$": "decimal", "v": "1.10"}}]
    assert seen == [PAID]


def test_a_type_and_its_data_can_be_sent_side_by_side(engine: Engine) -> None:
    seen: list[Any] = []
    engine.function(trigger=[durable.On(ORDER_PAID, if_="event.data.order_id == 7"), "app/other"])(keep(seen))

    durable.send_event(ORDER_PAID, PAID, id="order-7")
    durable.send_event(ORDER_PAID, OrderPaid(8, Decimal(1)))
    durable.send_event("app/other", {"x": 1})

    assert seen == [PAID, {"x": 1}]


def test_plain_data_that_fits_is_received_as_the_class(engine: Engine) -> None:
    seen: list[Any] = []
    engine.function(trigger=ORDER_PAID)(keep(seen))

    durable.send_event("shop/order.paid", {"order_id": 7, "amount": "9.90", "paid_at": "2030-01-02T00:00:00+00:00"})

    assert seen == [OrderPaid(7, Decimal("9.90"), datetime(2030, 1, 2, tzinfo=UTC))]


def test_data_that_does_not_fit_is_refused_when_it_is_sent_by_its_type(engine: Engine) -> None:
    wrong = OrderPaid("seven", Decimal(1))  # type: ignore[arg-type]

    with pytest.raises(InvalidEvent, match="order_id must be int, not 'seven'"):
        durable.send_event(ORDER_PAID, wrong)

    assert not StoredEvent.objects.exists()


def test_data_that_does_not_fit_fails_the_run_at_once_and_names_the_fields(engine: Engine) -> None:
    seen: list[Any] = []
    engine.function(trigger=ORDER_PAID, retries=9)(keep(seen))

    durable.send_event("shop/order.paid", {"order_id": "seven"})

    run = engine.run()
    assert (run.status, seen) == ("failed", [])
    assert failure_of(run).type == "django_durable.exceptions.InvalidEvent"
    assert failure_of(run).message == (
        "The data of the event 'shop/order.paid' does not fit OrderPaid: "
        "order_id must be int, not 'seven'; amount is missing"
    )


def test_a_handler_that_says_the_type_of_its_event_gets_it_without_an_event_type(engine: Engine) -> None:
    seen: list[Any] = []

    @engine.function()
    def handler(event: Event[OrderPaid], step: Any) -> None:
        seen.append(event.data)

    engine.start({"order_id": 7, "amount": "9.90"})

    assert seen == [OrderPaid(7, Decimal("9.90"))]


def test_each_pass_gets_data_of_its_own(engine: Engine) -> None:
    seen: list[Any] = []

    @engine.function(trigger=ORDER_PAID)
    def handler(event: Any, step: Any) -> None:
        seen.append(event.data.order_id)
        event.data.order_id += 1
        step.sleep("nap", "1h")

    durable.send_event(ORDER_PAID, PAID)
    engine.advance("1h")

    assert seen == [7, 7]


def test_a_child_gets_the_class_that_its_handler_names(engine: Engine) -> None:
    seen: list[Any] = []

    @engine.function("child", trigger=None)
    def child(event: Event[OrderPaid], step: Any) -> str:
        seen.append(event.data)
        return event.data.lines[0].name

    @engine.function("parent")
    def parent(event: Any, step: Any) -> Any:
        return step.invoke("child", child, PAID)

    engine.start()

    assert seen == [PAID]
    assert Run.objects.get(function__slug="parent").output == '"pen"'


def test_a_registered_class_is_plain_fields_to_a_child_that_names_no_class(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(classes, "_registered", {})
    durable.register_type(OrderPaid)
    child = engine.function("child", trigger=None)(keep(seen))
    engine.function("parent")(lambda event, step: step.invoke("child", child, OrderPaid(7, Decimal("9.90"))))

    engine.start()

    assert seen == [{"order_id": 7, "amount": Decimal("9.90"), "paid_at": None, "lines": []}]


def test_a_child_without_annotations_gets_the_class_of_its_only_trigger(engine: Engine) -> None:
    seen: list[Any] = []
    child = engine.function("child", trigger=ORDER_PAID)(keep(seen))
    engine.function("parent")(lambda event, step: step.invoke("child", child, PAID))

    engine.start()

    assert seen == [PAID]


def test_a_wait_for_a_type_returns_its_class_in_every_pass(engine: Engine) -> None:
    seen: list[Any] = []

    @engine.function()
    def handler(event: Any, step: Any) -> None:
        paid = step.wait_for_event("paid", event=ORDER_PAID, match="data.order_id", timeout="1h")
        seen.append(paid and paid.data)
        step.sleep("nap", "1h")

    engine.start({"order_id": 7})
    durable.send_event(ORDER_PAID, PAID)
    run = engine.advance("1h")

    assert (run.status, seen) == ("completed", [PAID, PAID])


def test_a_wait_for_a_type_that_times_out_returns_none(engine: Engine) -> None:
    engine.function()(lambda event, step: step.wait_for_event("paid", event=ORDER_PAID, timeout="1h") is None)
    engine.start()

    assert engine.advance("2h").output == "true"


def test_an_awaited_event_that_does_not_fit_fails_the_run_with_its_step(engine: Engine) -> None:
    engine.function()(lambda event, step: step.wait_for_event("paid", event=ORDER_PAID, timeout="1h"))
    engine.start()

    durable.send_event("shop/order.paid", {"order_id": 7})

    run = engine.run()
    assert run.status == "failed"
    assert "Step 'paid'" in failure_of(run).message
    assert "does not fit OrderPaid: amount is missing" in failure_of(run).message


def test_a_step_sends_typed_events(engine: Engine) -> None:
    seen: list[Any] = []
    engine.function("receiver", trigger=ORDER_PAID)(keep(seen))
    engine.function()(lambda event, step: step.send_event("send", ORDER_PAID(PAID)))

    engine.start()

    assert seen == [PAID]


def test_the_handler_of_a_failure_gets_the_data_of_the_failed_run_as_its_class(engine: Engine) -> None:
    seen: list[Any] = []

    @engine.function(trigger=ORDER_PAID, retries=0)
    def failing(event: Any, step: Any) -> None:
        raise ValueError

    @failing.on_failure
    def on_failure(event: FailureEvent[OrderPaid], step: Any) -> None:
        seen.append(event.original.data)

    durable.send_event(ORDER_PAID, PAID)

    assert seen == [PAID]


def test_the_handler_of_a_failure_gets_plain_data_where_it_did_not_fit(engine: Engine) -> None:
    seen: list[Any] = []
    failing = engine.function(trigger=ORDER_PAID)(keep([]))

    @failing.on_failure
    def on_failure(event: FailureEvent[OrderPaid], step: Any) -> None:
        seen.append((event.original.data, event.error.type))

    durable.send_event("shop/order.paid", {"order_id": "seven"})

    assert seen == [({"order_id": "seven"}, "django_durable.exceptions.InvalidEvent")]
