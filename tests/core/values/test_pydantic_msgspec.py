"""Models of pydantic and structs of msgspec: written with their types, checked when they are read back."""

from __future__ import annotations

import enum
import subprocess
import sys
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any, Generic, TypeVar

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_durable.core.values.encoding import decode, encode, event_data, from_json, plain, register_type, to_json
from django_durable.exceptions import EncodingError

T = TypeVar("T")


class Colour(enum.Enum):
    RED = "red"


class Line(pydantic.BaseModel):
    price: Decimal
    due: date | None = None
    colour: Colour = Colour.RED


class Order(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True, arbitrary_types_allowed=True)

    lines: tuple[Line, ...] = ()
    by_key: dict[int, Line] = {}
    either: Line | Point | None = None


class Page(pydantic.BaseModel, Generic[T]):
    items: list[T]


class Camel(pydantic.BaseModel):
    post_code: int = pydantic.Field(alias="postCode")


class Choosy(pydantic.BaseModel):
    town: str = pydantic.Field(validation_alias=pydantic.AliasChoices("place", "town"))

    def __init__(self, **values: Any) -> None:
        super().__init__(**values)


class Open(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")

    a: int


class Shouting(pydantic.BaseModel):
    text: str

    @pydantic.field_validator("text")
    def louder(cls, text: str) -> str:
        return text + "!"


class Lines(pydantic.RootModel[list[Line]]):
    pass


class Point(msgspec.Struct, frozen=True):
    x: int
    y: Decimal = Decimal(0)


class Point3D(Point, frozen=True):
    z: int = 0


class Shape(msgspec.Struct, rename="camel", tag=True, forbid_unknown_fields=True, kw_only=True):
    corner_points: list[Point]
    center: Point
    line: Line | None = None
    note: str | msgspec.UnsetType = msgspec.UNSET


class Box(msgspec.Struct, Generic[T]):
    item: T


@dataclass
class Parcel:
    order: Order
    place: Point


Known = Order | Page[Line] | Camel | Choosy | Open | Shouting | Lines | Point3D | Shape | Box[Point] | Parcel


def hint() -> object:
    return Known


LINE = Line(price=Decimal("1.50"), due=date(2030, 1, 1))
VALUES = [
    LINE,
    Order(lines=(LINE, LINE), by_key={1: LINE}),
    Order(either=LINE),
    Order(either=Point(1)),
    [Order(), {"a": (LINE,)}],
    Page[Line](items=[LINE]),
    Camel(postCode=1),
    Choosy(place="Paris"),
    Open(a=1, b=(2,), c=LINE),
    Shouting(text="hey"),
    Lines([LINE]),
    Point(1, Decimal("2.50")),
    Shape(corner_points=[Point(1), Point3D(1, z=2)], center=Point3D(3), line=LINE),
    Shape(corner_points=[], center=Point(0), note="x"),
    Box(Point(1)),
    Parcel(Order(lines=(LINE,)), Point(1)),
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_value_comes_back_equal_and_of_its_type(value: Any) -> None:
    back = decode(encode(value, hint=hint), hint)

    assert back == value
    assert type(back) is type(value)


lines = st.builds(
    Line,
    price=st.decimals(allow_nan=False, allow_infinity=False),
    due=st.none() | st.dates(),
    colour=st.sampled_from(Colour),
)
points = st.builds(Point, st.integers(), st.decimals(allow_nan=False, allow_infinity=False))
models = st.builds(
    Order, lines=st.lists(lines, max_size=2).map(tuple), by_key=st.dictionaries(st.integers(), lines, max_size=1)
)
structs = st.builds(Shape, corner_points=st.lists(points, max_size=2), center=points, line=st.none() | lines)


@given(
    st.recursive(
        models | structs | points, lambda inner: st.lists(inner, max_size=2) | st.tuples(inner, inner), max_leaves=4
    )
)
def test_any_value_comes_back(value: Any) -> None:
    assert decode(encode(value, hint=hint), hint) == value


def test_a_model_knows_again_which_fields_were_given() -> None:
    back = decode(encode(Line(price=1), hint=hint), hint)

    assert back.model_dump(exclude_unset=True) == {"price": 1}


def test_a_validator_does_not_change_a_recorded_value_again() -> None:
    assert decode(encode(Shouting(text="hey"), hint=hint), hint).text == "hey!"


def test_a_field_whose_type_changed_is_made_of_what_was_recorded() -> None:
    back = decode(f'{{"$":"obj","t":"{__name__}.Line","v":{{"price":3,"colour":"red","gone":1}}}}', hint)

    assert (back.price, type(back.price), back.colour) == (3, Decimal, Colour.RED)


@pytest.mark.parametrize(
    ("name", "fields", "reason"),
    [
        ("Line", '{"colour":"blue"}', "price: Field required; colour: Input should be 'red'"),
        ("Lines", '{"root":[1]}', "0: Input should be a valid dictionary or instance of Line"),
        ("Point", '{"x":"one"}', "Expected `int`, got `str`"),
        ("Shape", '{"corner_points":[]}', "missing required field `center`"),
    ],
)
def test_a_recorded_value_that_the_class_does_not_take_is_refused_with_the_reasons(
    name: str, fields: str, reason: str
) -> None:
    with pytest.raises(EncodingError) as refused:
        decode(f'{{"$":"obj","t":"{__name__}.{name}","v":{fields}}}', hint)

    assert f"{__name__}.{name} does not take the recorded value: " in str(refused.value)
    assert reason in str(refused.value)
    assert "Give new fields a default" in refused.value.remedy


def test_a_refusal_does_not_show_the_value() -> None:
    with pytest.raises(EncodingError) as refused:
        decode(f'{{"$":"obj","t":"{__name__}.Line","v":{{"price":"my secret"}}}}', hint)

    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (Order.model_construct(lines=(LINE, object())), "result.lines[1]"),
        (Open(a=1, b={"c": open}), 'result.b["c"]'),
        ([Box(object())], "result[0].item"),
        (Page[Any](items=[[print]]), "result.items[0][0]"),
    ],
)
def test_a_part_that_cannot_be_stored_is_refused_with_its_path(value: Any, path: str) -> None:
    with pytest.raises(EncodingError) as refused:
        encode(value)

    assert refused.value.path == path


def test_a_class_that_no_annotation_names_is_refused_when_it_is_written() -> None:
    with pytest.raises(EncodingError) as refused:
        encode({"order": [Order(either=Point(1))]}, hint=lambda: list[Line])

    assert refused.value.path == 'result["order"][0]'
    assert f"a value of class {__name__}.Order cannot be read back" in refused.value.problem
    assert "return annotation of the step's function, or call register_type" in refused.value.remedy


def test_a_registered_class_needs_no_annotation() -> None:
    @register_type
    class Registered(pydantic.BaseModel):
        a: int

    @register_type
    class Packed(msgspec.Struct):
        a: int

    values = [Registered(a=1), Packed(2)]
    assert decode(encode(values, hint=lambda: None)) == values


def test_in_event_data_they_are_plain_objects() -> None:
    data = event_data({"line": LINE, "shape": Shape(corner_points=[Point(1)], center=Point(0))})

    assert from_json(data) == {
        "line": {"price": Decimal("1.50"), "due": date(2030, 1, 1), "colour": "red"},
        "shape": {
            "corner_points": [{"x": 1, "y": Decimal(0)}],
            "center": {"x": 0, "y": Decimal(0)},
            "line": None,
        },
    }


def test_people_see_their_fields() -> None:
    assert plain(to_json(Order(lines=(LINE,)))) == {
        "lines": [{"price": "1.50", "due": "2030-01-01", "colour": "red"}],
        "by_key": {},
        "either": None,
    }


def test_neither_library_is_imported_for_a_project_without_it() -> None:
    code = (
        "import sys, dataclasses; from django_durable.core.values.encoding import encode\n"
        "encode(dataclasses.make_dataclass('A', ['a'])(1)); print({'pydantic', 'msgspec'} & {*sys.modules})"
    )

    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"
