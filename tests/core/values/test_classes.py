from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable
from dataclasses import InitVar, dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Generic, Literal, NamedTuple, NewType, TypedDict, TypeVar

import pytest

from django_durable.core.values.classes import classes_in, register_type
from django_durable.core.values.encoding import decode, encode, from_json
from django_durable.exceptions import ConfigurationError, EncodingError

if TYPE_CHECKING:
    from elsewhere import Unknown

T = TypeVar("T")


class Colour(enum.Enum):
    RED = 1


class Leaf(NamedTuple):
    colour: Colour


@dataclass
class Tree:
    leaves: list[Leaf]
    children: list[Tree] = field(default_factory=list)


class Forest(TypedDict):
    trees: dict[str, Tree]


@dataclass
class Page(Generic[T]):
    items: list[T]


@dataclass
class Vague:
    part: Unknown


Bounded = TypeVar("Bounded", bound=Leaf)
Wrapped = NewType("Wrapped", Leaf)


@pytest.mark.parametrize(
    ("annotation", "names"),
    [
        (Leaf, {"Leaf", "Colour"}),
        (Tree | None, {"Tree", "Leaf", "Colour"}),
        (Annotated[Colour, 1] | None, {"Colour"}),
        (dict[str, tuple[Leaf, ...]], {"Leaf", "Colour"}),
        (Forest, {"Tree", "Leaf", "Colour"}),
        (Page[Leaf], {"Page", "Leaf", "Colour"}),
        (Awaitable[list[Colour]], {"Colour"}),
        (Callable[[Colour], None], {"Colour"}),
        (Annotated[Colour, "note"], {"Colour"}),
        (Literal[Colour.RED], {"Colour"}),
        (Bounded, {"Leaf", "Colour"}),
        (Wrapped, {"Leaf", "Colour"}),
        (Vague, {"Vague"}),
        (int, set()),
        (None, set()),
        ("Leaf", set()),
        (Any, set()),
    ],
)
def test_the_classes_named_anywhere_in_an_annotation(annotation: object, names: set[str]) -> None:
    assert set(classes_in(annotation)) == {f"{__name__}.{name}" for name in names}


@pytest.mark.parametrize("cls", [int, dict, TypedDict, "Leaf", Leaf(Colour.RED)])
def test_only_classes_of_objects_can_be_registered(cls: Any) -> None:
    with pytest.raises(ConfigurationError, match="register_type takes an enum, a dataclass or a NamedTuple"):
        register_type(cls)


def test_a_class_that_was_renamed_is_found_by_its_former_path() -> None:
    @dataclass
    class Renamed:
        a: int

    register_type(Renamed, formerly=["shop.Old"])
    assert decode('{"$":"obj","t":"shop.Old","v":{"a":1}}') == Renamed(1)


# --- classes that changed since a value was recorded


@dataclass
class Quote:
    price: int
    currency: str = "EUR"
    lines: list[int] = field(default_factory=list)


class Range(NamedTuple):
    low: int
    high: int = 9


def read(cls: type, stored: Any) -> Any:
    return from_json({"$": "obj", "t": f"{cls.__module__}.{cls.__qualname__}", "v": stored}, lambda: cls)


@pytest.mark.parametrize(
    ("cls", "stored", "expected"),
    [
        (Quote, {"price": 1}, Quote(1, "EUR", [])),
        (Quote, {"price": 1, "gone": {"$": "decimal", "v": "1"}}, Quote(1)),
        (Range, {"low": 1}, Range(1, 9)),
        (Range, {"low": 1, "high": 2, "gone": 3}, Range(1, 2)),
    ],
)
def test_unknown_fields_are_ignored_and_missing_ones_take_their_default(cls: type, stored: Any, expected: Any) -> None:
    assert read(cls, stored) == expected


@pytest.mark.parametrize(("cls", "name"), [(Quote, "price"), (Range, "low")])
def test_a_new_field_without_default_is_named(cls: type, name: str) -> None:
    with pytest.raises(EncodingError, match=rf"{cls.__qualname__} has fields that the recorded value lacks: {name}"):
        read(cls, {})


def test_a_member_that_is_gone_is_refused() -> None:
    with pytest.raises(EncodingError, match="99 is not a valid Colour"):
        read(Colour, 99)


@dataclass(frozen=True, slots=True)
class Computed:
    price: int
    tax: int = field(init=False)
    rate: InitVar[int] = 2

    def __post_init__(self, rate: int) -> None:
        object.__setattr__(self, "tax", self.price * rate)
        object.__setattr__(self, "price", self.price + 1)


def test_fields_keep_what_was_recorded_over_what_post_init_computes() -> None:
    value = Computed(10, rate=7)
    again = decode(encode(value), lambda: Computed)
    assert (again.price, again.tax) == (value.price, value.tax) == (11, 70)


def test_a_class_that_refuses_its_recorded_value_is_named_as_the_reason() -> None:
    @dataclass
    class Positive:
        number: int

        def __post_init__(self) -> None:
            if self.number < 0:
                raise ValueError("must be positive")

    with pytest.raises(EncodingError, match="must be positive"):
        read(Positive, {"number": -1})


def test_an_annotation_that_cannot_be_hashed_names_its_classes_too() -> None:
    assert decode(encode(Leaf(Colour.RED)), lambda: Annotated[Leaf, []]) == Leaf(Colour.RED)
