from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal, NamedTuple, NewType, NotRequired, TypedDict, TypeVar
from uuid import UUID

import pytest

from django_durable.core.values.coercion import Converter, fields_of, is_record


class Currency(enum.Enum):
    """A currency."""

    EUR = "eur"


class Line(NamedTuple):
    """A line of an order."""

    name: str
    count: int = 1


@dataclasses.dataclass
class Customer:
    """Who ordered."""

    email: str
    name: str | None = None


@dataclasses.dataclass
class Order:
    """What was ordered."""

    number: int
    customer: Customer
    lines: list[Line] = dataclasses.field(default_factory=list)
    total: Decimal = Decimal(0)


class Address(TypedDict):
    """Where somebody lives."""

    city: str
    since: NotRequired[date]


@dataclasses.dataclass
class Percentage:
    """A part of a hundred."""

    value: int

    def __post_init__(self) -> None:
        if self.value > 100:
            raise ValueError("a percentage is at most 100")


OrderId = NewType("OrderId", int)
T = TypeVar("T")
UUID_TEXT = "0188c0f4-8f5e-7c3b-9c1e-000000000001"

FITTING: list[tuple[Any, Any, Any]] = [
    (7, int, 7),
    (7, float, 7.0),
    (True, bool, True),
    ("x", str, "x"),
    (None, None, None),
    ({"x": 1}, Any, {"x": 1}),
    ({"x": 1}, object, {"x": 1}),
    ([1], T, [1]),
    ("9.90", Decimal, Decimal("9.90")),
    (9, Decimal, Decimal(9)),
    (Decimal("9.90"), Decimal, Decimal("9.90")),
    ("2030-01-02T03:04:05+00:00", datetime, datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)),
    ("2030-01-02", date, date(2030, 1, 2)),
    ("03:04", time, time(3, 4)),
    (90, timedelta, timedelta(seconds=90)),
    (UUID_TEXT, UUID, UUID(UUID_TEXT)),
    ("eur", Currency, Currency.EUR),
    (Currency.EUR, Currency, Currency.EUR),
    (7, OrderId, 7),
    (7, Annotated[int, "the number"], 7),
    ("a", Literal["a", "b"], "a"),
    (None, int | None, None),
    (7, int | None, 7),
    ("9.90", Decimal | str, "9.90"),
    (["9.90"], list[Decimal], [Decimal("9.90")]),
    ([1, 2], Sequence[int], [1, 2]),
    ([1, 2], list, [1, 2]),
    ([1, 2], set[int], {1, 2}),
    ({1, 2}, frozenset[int], frozenset({1, 2})),
    ([1, "x"], tuple[int, str], (1, "x")),
    ([1, 2, 3], tuple[int, ...], (1, 2, 3)),
    ([1, 2], tuple, (1, 2)),
    ({"a": "1.5"}, dict[str, Decimal], {"a": Decimal("1.5")}),
    ({"a": 1}, Mapping[str, int], {"a": 1}),
    ({"a": 1}, dict, {"a": 1}),
    ({"name": "pen"}, Line, Line("pen")),
    ({"city": "Rome", "since": "2030-01-02"}, Address, {"city": "Rome", "since": date(2030, 1, 2)}),
    ({"city": "Rome", "zip": 1}, Address, {"city": "Rome", "zip": 1}),
    ({"email": "a@b.c", "new": 1}, Customer, Customer("a@b.c")),
    ({"email": "a@b.c"}, Customer | None, Customer("a@b.c")),
    (
        {"number": 7, "customer": {"email": "a@b.c"}, "lines": [{"name": "pen", "count": 2}], "total": "9.90"},
        Order,
        Order(7, Customer("a@b.c"), [Line("pen", 2)], Decimal("9.90")),
    ),
    (Order(7, Customer("a@b.c")), Order, Order(7, Customer("a@b.c"))),
]
WRONG: list[tuple[Any, Any, list[str]]] = [
    ("seven", int, ["it must be int, not 'seven'"]),
    (True, int, ["it must be int, not True"]),
    (1, bool, ["it must be bool, not 1"]),
    (7.5, int, ["it must be int, not 7.5"]),
    (7, str, ["it must be str, not 7"]),
    ("x", None, ["it must be None, not 'x'"]),
    ("x", Decimal, ["it must be Decimal, not 'x'"]),
    ("soon", datetime, ["it must be datetime, not 'soon'"]),
    (datetime(2030, 1, 2), date, ["it must be date, not datetime.date...0, 1, 2, 0, 0)"]),
    ("x", UUID, ["it must be UUID, not 'x'"]),
    ("usd", Currency, ["it must be Currency, not 'usd'"]),
    ("c", Literal["a", "b"], ["it must be one of 'a', 'b', not 'c'"]),
    ("x", list[int], ["it must be list, not 'x'"]),
    ([1, "x"], list[int], ["[1] must be int, not 'x'"]),
    ([1], tuple[int, str], ["it must be a tuple of 2, not [1]"]),
    ({"a": "x"}, dict[str, int], ["['a'] must be int, not 'x'"]),
    ([1], dict[str, int], ["it must be a dictionary, not [1]"]),
    (7, Customer, ["it must be Customer, not 7"]),
    ({}, Line, ["name is missing"]),
    ({}, Address, ["city is missing"]),
    ({"name": 7}, Customer | None, ["name must be str, not 7", "email is missing"]),
    ({"value": 101}, Percentage, ["a percentage is at most 100"]),
    (
        {"number": "x", "customer": {"name": 1}, "lines": [{"name": "pen", "count": "two"}]},
        Order,
        [
            "number must be int, not 'x'",
            "customer.name must be str, not 1",
            "customer.email is missing",
            "lines[0].count must be int, not 'two'",
        ],
    ),
    (Order("x", Customer(7)), Order, ["number must be int, not 'x'", "customer.email must be str, not 7"]),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("value", "annotation", "expected"), FITTING)
def test_data_that_fits_gets_the_types_of_the_annotation(value: Any, annotation: Any, expected: Any) -> None:
    converter = Converter()

    converted = converter.convert(value, annotation)

    assert (converted, type(converted), converter.problems) == (expected, type(expected), [])


@pytest.mark.parametrize(("value", "annotation", "problems"), WRONG)
def test_every_part_that_does_not_fit_is_named(value: Any, annotation: Any, problems: list[str]) -> None:
    converter = Converter()

    converter.convert(value, annotation)

    assert len(converter.problems) == len(problems)
    for said, problem in zip(converter.problems, problems, strict=True):
        assert said.startswith(problem)


def test_fields_whose_types_cannot_be_read_take_any_value() -> None:
    hidden = dataclasses.make_dataclass("Hidden", [("x", "NowhereToBeFound")])

    assert Converter().convert({"x": 7}, hidden) == hidden(7)


@pytest.mark.parametrize("cls", [Order, Line, Address])
def test_classes_with_named_fields_are_records(cls: type) -> None:
    assert is_record(cls)


@pytest.mark.parametrize("cls", [int, dict, Currency, "Order", Order(7, Customer("a@b.c"))])
def test_nothing_else_is_a_record(cls: Any) -> None:
    assert not is_record(cls)


def test_the_fields_of_a_record_are_a_dictionary_and_its_parts_stay() -> None:
    customer = Customer("a@b.c")

    assert fields_of(Order(7, customer)) == {"number": 7, "customer": customer, "lines": [], "total": Decimal(0)}
    assert fields_of(Line("pen")) == {"name": "pen", "count": 1}


@pytest.mark.parametrize("value", [{"x": 1}, [1], 7, None, Order])
def test_other_values_stay_as_they_are(value: Any) -> None:
    assert fields_of(value) is value


def test_a_pydantic_model_validates_by_itself() -> None:
    pydantic = pytest.importorskip("pydantic")
    model = pydantic.create_model("Paid", number=(int, ...), total=(Decimal, Decimal(0)))
    holder = dataclasses.make_dataclass("Holder", [("paid", model)])
    converter = Converter()

    assert converter.convert({"number": "7", "total": "1.50"}, model) == model(number=7, total=Decimal("1.50"))
    assert fields_of(model(number=7)) == {"number": 7, "total": Decimal(0)}
    assert converter.problems == []

    converter.convert({"paid": {"number": "x"}}, holder)

    [problem] = converter.problems
    assert problem.startswith("paid.number: Input should be a valid integer")
