from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

import pytest

from django_durable.core.events import event_types
from django_durable.core.events.event_types import EventType
from django_durable.core.events.events import Event, FailureEvent
from django_durable.core.functions.triggers import On, make_triggers
from django_durable.exceptions import ConfigurationError, InvalidEvent

if TYPE_CHECKING:
    from nowhere import Missing


@dataclass
class OrderPaid:
    """The data of an event."""

    order_id: int
    amount: Decimal = Decimal(0)


class UserCreated(TypedDict):
    """The data of another event."""

    email: str


class Point(NamedTuple):
    """The data of a third one."""

    x: int


ORDER_PAID = EventType("shop/order.paid", OrderPaid)
USER_CREATED = EventType("app/user.created", UserCreated)


def test_calling_a_type_makes_an_event_of_its_name_with_the_data_as_given() -> None:
    data = OrderPaid(7)

    event = ORDER_PAID(data, id="order-7", user={"id": 1}, v="2")

    assert event == Event("shop/order.paid", data, id="order-7", user={"id": 1}, v="2")
    assert event.data is data


def test_data_of_another_class_is_refused() -> None:
    with pytest.raises(
        InvalidEvent, match=r"^shop/order.paid: its data is a OrderPaid, not dict. Write OrderPaid\(…\)$"
    ):
        ORDER_PAID({"order_id": 7})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: ORDER_PAID(OrderPaid("seven")), "does not fit OrderPaid: order_id must be int, not 'seven'"),
        (lambda: USER_CREATED({"mail": "x"}), "does not fit UserCreated: email is missing"),
        (
            lambda: EventType("a/b", dict[str, int])({"x": "y"}),
            r"does not fit dict\[str, int\]: \['x'\] must be int, not 'y'",
        ),
        (lambda: EventType("a/b")([1]), r"does not fit dict: it must be a dictionary, not \[1\]"),
    ],
)
def test_data_that_does_not_fit_is_refused_with_the_fields(make: Any, problem: str) -> None:
    with pytest.raises(InvalidEvent, match=problem):
        make()


def test_stored_data_is_read_as_the_class() -> None:
    assert ORDER_PAID.read({"order_id": 7, "amount": "9.90"}) == OrderPaid(7, Decimal("9.90"))
    assert USER_CREATED.read({"email": "a@b.c"}) == {"email": "a@b.c"}
    assert EventType("a/b", Point).read({"x": 1}) == Point(1)
    assert EventType("a/b").read({"x": 1}) == {"x": 1}


def test_stored_data_that_does_not_fit_is_refused_with_event_class_and_fields() -> None:
    with pytest.raises(InvalidEvent) as raised:
        ORDER_PAID.read({"amount": "much"})

    assert str(raised.value) == (
        "The data of the event 'shop/order.paid' does not fit OrderPaid: "
        "amount must be Decimal, not 'much'; order_id is missing"
    )


@pytest.mark.parametrize("data", [int, list, 7, list[int], "OrderPaid"])
def test_a_type_of_data_without_fields_is_refused(data: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"its data is a dataclass, .* not "):
        EventType("a/b", data)


@pytest.mark.parametrize("name", ["", "app/*", "durable/function.failed", 7])
def test_a_name_that_cannot_be_sent_is_refused(name: Any) -> None:
    with pytest.raises(ConfigurationError, match="cannot be used"):
        EventType(name, OrderPaid)


def test_a_type_shows_its_name() -> None:
    assert repr(ORDER_PAID) == "<EventType shop/order.paid>"


def test_a_type_is_a_trigger_alone_in_a_list_and_under_a_condition() -> None:
    conditional = On(ORDER_PAID, if_="event.data.order_id > 7")

    [alone] = make_triggers(ORDER_PAID)
    several = make_triggers([ORDER_PAID, conditional, "app/x"])

    assert alone == On(ORDER_PAID)
    assert [(on.name, on.type) for on in several if isinstance(on, On)] == [
        ("shop/order.paid", ORDER_PAID),
        ("shop/order.paid", ORDER_PAID),
        ("app/x", None),
    ]
    assert conditional.if_ == "event.data.order_id > 7"


def test_of_several_types_the_one_of_the_name_reads_an_event() -> None:
    types = [USER_CREATED, ORDER_PAID]

    assert event_types.typed(Event("shop/order.paid", {"order_id": 7}), types).data == OrderPaid(7)
    assert event_types.typed(Event("app/other", {"order_id": 7}), types).data == {"order_id": 7}


def annotated(event: Event[OrderPaid], step: Any) -> None: ...
def with_a_union(event: Event[OrderPaid | Point], step: Any) -> None: ...
def bare(event: Event, step: Any) -> None: ...
def unannotated(event, step): ...  # type: ignore[no-untyped-def]
def hidden(event: Event[Missing], step: Any) -> None: ...
def other_hidden(event: Event[OrderPaid], step: Missing) -> Missing: ...
def of_a_failure(event: FailureEvent[OrderPaid], step: Any) -> None: ...


@pytest.mark.parametrize(
    ("handler", "data"),
    [
        (annotated, OrderPaid),
        (with_a_union, OrderPaid | Point),
        (bare, Any),
        (unannotated, Any),
        (hidden, Any),
        (other_hidden, OrderPaid),
        (of_a_failure, Any),
    ],
)
def test_the_annotation_of_a_handler_names_the_class_where_it_can_be_read(handler: Any, data: Any) -> None:
    assert event_types.annotated_data(handler) == data


def test_an_event_can_be_made_with_its_type_spelled_out() -> None:
    assert Event[OrderPaid]("shop/order.paid", OrderPaid(7)).data == OrderPaid(7)
