from __future__ import annotations

import enum
import json
import math
import sys
from collections import Counter, OrderedDict, namedtuple
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_durable.core.values.encoding import decode, encode, event_data, from_json, plain, register_type, to_json
from django_durable.exceptions import EncodingError, InvalidEvent, PayloadTooLarge

NEW_YORK = ZoneInfo("America/New_York")


class Colour(enum.Enum):
    RED = "red"
    MIX = (1, Decimal("0.5"))


class Status(enum.StrEnum):
    PAID = "paid"


class Rights(enum.IntFlag):
    READ = 1
    WRITE = 2


class Point(NamedTuple):
    x: int
    y: Decimal = Decimal(0)


@dataclass(frozen=True)
class Line:
    points: tuple[Point, ...]
    colour: Colour = Colour.RED


@dataclass
class Quote:
    lines: list[Any]
    total: Decimal = Decimal(0)
    notes: dict[Any, Any] = field(default_factory=dict)


@register_type
@dataclass(frozen=True)
class Money:
    amount: Decimal


Everything = Line | Quote | Status | Rights | None


def hint() -> object:
    return Everything


def same(left: Any, right: Any) -> bool:
    """Equal, of equal types all the way down, and with what equality ignores."""
    if type(left) is not type(right) or left != right:
        return False
    if isinstance(left, datetime | time):
        return (left.fold, str(left.tzinfo)) == (right.fold, str(right.tzinfo))
    if isinstance(left, Decimal | float | complex):
        return str(left) == str(right)
    if isinstance(left, dict):
        return all(map(same, left, right)) and all(map(same, left.values(), right.values()))
    if isinstance(left, list | tuple):
        return all(map(same, left, right))
    if isinstance(left, Line | Quote):
        return same(vars(left), vars(right))
    return True


VALUES = [
    None,
    True,
    0,
    -0.0,
    1e300,
    10**5000,
    -(1 << 2000),
    "",
    'a "quoted" \\ text',
    "nul \0, half \ud800, 🐘",
    "$",
    [],
    {},
    [[{"a": [None]}]],
    {"$": "decimal", "v": "1"},
    {"a": {"$": None}},
    {1: "a", "1": "b", None: "c", (1, 2): "e", 1.5: "f"},
    {date(2030, 1, 1): {"$": 1}},
    (),
    (1, (2, [3])),
    set(),
    {1, "a", None, (1, 2), frozenset({3})},
    frozenset({Colour.RED, Point(1)}),
    datetime(2030, 1, 31, 9, 30, 15, 123456),
    datetime(2030, 1, 31, 9, tzinfo=UTC),
    datetime(2030, 1, 31, 9, tzinfo=timezone(timedelta(hours=5, minutes=30))),
    datetime(2030, 1, 31, 9, tzinfo=timezone(timedelta(seconds=-1, microseconds=-5))),
    datetime(2030, 7, 1, 9, tzinfo=NEW_YORK),
    datetime(2030, 11, 3, 1, 30, tzinfo=NEW_YORK, fold=1),
    datetime(2030, 3, 10, 2, 30, tzinfo=NEW_YORK),  # an hour that does not exist
    datetime(2030, 1, 1, fold=1),
    datetime.min,
    datetime.max,
    date(1, 1, 1),
    time(9, 30, 15, 5),
    time(9, tzinfo=UTC),
    time(9, tzinfo=NEW_YORK, fold=1),
    timedelta.min,
    timedelta.max,
    timedelta(microseconds=-1),
    Decimal("1.50"),
    Decimal("-0"),
    Decimal("1E+3000"),
    Decimal("Infinity"),
    UUID(int=7),
    b"\x00\xff",
    complex(1.5, -0.0),
    Colour.MIX,
    Status.PAID,
    Rights.READ | Rights.WRITE,
    Point(1, Decimal("2.50")),
    Line((Point(1), Point(2)), Colour.MIX),
    Quote([{"$": 1}, Line(())], Decimal("9.99"), {1: {2}}),
    {Status.PAID: 1, "paid too": 2},
]


@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
def test_values_come_back_as_they_went_in(value: Any) -> None:
    text = encode(value)
    assert text.isascii()
    assert same(decode(text, hint), value)


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.just("$")
    | st.text(st.characters(codec=None), max_size=3)
    | st.binary()
    | st.decimals(allow_nan=False)
    | st.uuids()
    | st.dates()
    | st.times(timezones=st.none() | st.timezones())
    | st.datetimes(timezones=st.none() | st.timezones() | st.just(UTC))
    | st.timedeltas()
    | st.complex_numbers(allow_nan=False, allow_infinity=False)
    | st.sampled_from([*Colour, *Status, *Rights])
)
keys = st.recursive(scalars, lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3), max_leaves=4)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=3) | st.just("$"), inner, max_size=4)
        | st.dictionaries(keys, inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.sets(keys, max_size=3)
        | st.frozensets(keys, max_size=3)
        | st.builds(Point, inner, inner)
        | st.builds(Line, inner, inner)
        | st.builds(Quote, inner, inner, inner)
    ),
    max_leaves=12,
)


@given(values)
def test_any_value_comes_back_as_it_went_in(value: Any) -> None:
    text = encode(value)
    assert same(decode(text, hint), value)
    assert encode(decode(text, hint)) == text


@given(values)
def test_the_plain_form_of_any_value_is_json_without_tags(value: Any) -> None:
    json.dumps(plain(to_json(value)), allow_nan=False)


@given(st.recursive(scalars, st.lists, max_leaves=5))
def test_the_quick_and_the_thorough_way_write_the_same(value: Any) -> None:
    assert json.loads(encode(value)) == to_json(value)


def test_an_int_of_any_size_comes_back_whatever_the_limit_of_digits() -> None:
    limit = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(640)
    try:
        for value in (10**639, 10**640, -(10**5000)):
            assert decode(encode(to_json(value))) is not None
            assert from_json(to_json([value])) == [value]
    finally:
        sys.set_int_max_str_digits(limit)


def test_equal_sets_have_equal_text() -> None:
    assert encode({1, 9, "a"}) == encode({"a", 9, 1}) == '{"$":"set","v":["a",1,9]}'


class Shout(str):
    def __str__(self) -> str:
        return self.upper()


@pytest.mark.parametrize(
    ("value", "base"),
    [
        (Shout("quiet"), "quiet"),
        (type("Id", (int,), {})(7), 7),
        (type("Score", (float,), {})(0.5), 0.5),
        ({Shout("key"): 1}, {"key": 1}),
        (OrderedDict(a=1), {"a": 1}),
        (Counter("aab"), {"a": 2, "b": 1}),
        (type("Stamp", (datetime,), {})(2030, 1, 1), datetime(2030, 1, 1)),
    ],
)
def test_other_subclasses_come_back_as_their_base(value: Any, base: Any) -> None:
    assert same(decode(encode(value)), base)


# --- refusals


def cyclic() -> list[Any]:
    ring: list[Any] = [1]
    ring.append({"ring": ring})
    return ring


def nested(depth: int, container: Any = list) -> Any:
    value = container()
    for _ in range(depth - 1):
        value = container([value])
    return value


@pytest.mark.parametrize(
    ("value", "path", "problem"),
    [
        (object(), "result", "a value of type object cannot be stored"),
        ({"lines": [1, 2, 3, Line((Point(object()),))]}, 'result["lines"][3].points[0].x', "type object"),  # type: ignore[arg-type]
        ([0, math.nan], "result[1]", "nan is not a JSON number"),
        ({"a": math.inf}, 'result["a"]', "inf is not a JSON number"),
        ((complex(0, math.nan),), "result[0]", "nan is not a JSON number"),
        ({(1, object): 2}, "result[(1, <class 'object'>)][1]", "type type"),
        ({'say "hi"': len}, r'result["say \"hi\""]', "builtin_function_or_method"),
        ({frozenset({len})}, "result{…}{…}", "builtin_function_or_method"),
        (cyclic(), 'result[1]["ring"]', "it contains itself"),
        (nested(201), "result" + "[0]" * 10 + " … " + "[0]" * 5, "it is nested more than 200 levels deep"),
        ({Shout("a"): 1, type("Odd", (Shout,), {"__hash__": lambda self: 1})("a"): 2}, "result", "the same text"),
    ],
)
def test_what_cannot_be_stored_is_refused_with_its_path(value: Any, path: str, problem: str) -> None:
    with pytest.raises(EncodingError) as caught:
        encode(value)
    assert caught.value.path == path
    assert problem in caught.value.problem
    assert caught.value.remedy


def test_a_broad_cycle_is_found_at_once() -> None:
    parent: dict[str, Any] = {"children": []}
    parent["children"] = [{"parent": parent} for _ in range(100)]
    with pytest.raises(EncodingError, match=r'result\["children"\]\[0\]\["parent"\]: it contains itself'):
        encode(parent)


def test_a_part_that_occurs_twice_is_no_cycle() -> None:
    part = [Decimal(1)]
    assert decode(encode([part, part])) == [part, part]


@pytest.mark.parametrize("wrap", [lambda value: [value], lambda value: {1: value}, lambda value: (value,)])
def test_two_hundred_levels_come_back(wrap: Any) -> None:
    value = wrap(None)
    for _ in range(199):
        value = wrap(value)
    assert encode(decode(encode(value))) == encode(value)


def test_where_python_itself_can_go_no_deeper_a_value_is_refused() -> None:
    """However little of the stack is left."""

    def descend(levels: int) -> str:
        return descend(levels - 1) if levels else encode(nested(190, tuple))

    outcomes = set()
    for levels in range(0, sys.getrecursionlimit() - 150, 10):
        try:
            outcomes.add(descend(levels)[:5])
        except EncodingError as error:
            outcomes.add(error.problem)
    assert outcomes == {'{"$":', "it is nested too deeply"}


def test_a_value_that_fails_while_it_is_read_is_refused() -> None:
    class Broken(dict[str, int]):
        def items(self) -> Any:
            raise RuntimeError("no")

    with pytest.raises(EncodingError, match="reading its parts raised RuntimeError"):
        encode(Broken())


def test_the_root_of_the_path_can_be_named() -> None:
    with pytest.raises(EncodingError, match=r'^data\["a"\]: '):
        encode({"a": object()}, root="data")


def test_a_text_larger_than_the_limit_is_refused() -> None:
    assert encode("é", limit=8) == '"\\u00e9"'
    with pytest.raises(PayloadTooLarge, match="result: 8 bytes of JSON exceed the limit of 7") as caught:
        encode("é", limit=7)
    assert (caught.value.size, caught.value.limit) == (8, 7)


# --- reading


def test_the_hint_is_asked_only_for_objects() -> None:
    def unasked() -> object:
        raise AssertionError

    assert decode(encode([Decimal(1), "$"]), unasked) == [Decimal(1), "$"]


def test_a_class_that_nothing_names_is_refused_with_the_remedy() -> None:
    with pytest.raises(EncodingError, match=rf"{__name__}.Point cannot be read back.*return annotation.*register_type"):
        decode(encode(Point(1)), lambda: int)
    with pytest.raises(EncodingError, match="register_type"):
        decode(encode(Point(1)))


def test_a_registered_class_needs_no_hint() -> None:
    assert decode(encode([Money(Decimal("1.50"))])) == [Money(Decimal("1.50"))]


@pytest.mark.parametrize("text", ["", "{", '{"$":"unknown"}', '{"$":"decimal","v":"x"}', '{"$":"date"}', '{"$":[]}'])
def test_text_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(EncodingError, match="it cannot be read back"):
        decode(text)


def test_nothing_is_imported_for_a_path_in_the_data() -> None:
    with pytest.raises(EncodingError, match="its class is not known here"):
        decode('{"$":"obj","t":"antigravity.Thing","v":{}}')
    assert "antigravity" not in sys.modules


# --- the plain form


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Decimal("1.50"), "1.50"),
        (datetime(2030, 7, 1, 9, tzinfo=NEW_YORK), "2030-07-01T09:00:00-04:00"),
        (date(2030, 7, 1), "2030-07-01"),
        (timedelta(minutes=1), 60),
        (timedelta(milliseconds=1500), 1.5),
        (UUID(int=7), "00000000-0000-0000-0000-000000000007"),
        (b"ab", "YWI="),
        ((1, {2}, frozenset()), [1, [2], []]),
        (Line((Point(1),)), {"points": [{"x": 1, "y": "0"}], "colour": "red"}),
        (Status.PAID, "paid"),
        ({"$": {1: Decimal(2)}}, {"$": {"1": "2"}}),
        ({None: 1, (1, "a"): 2}, {"null": 1, '[1,"a"]': 2}),
        ({"a": [1, None]}, {"a": [1, None]}),
    ],
)
def test_the_plain_form(value: Any, expected: Any) -> None:
    assert plain(to_json(value)) == expected


@pytest.mark.parametrize(
    "data", [{"$": []}, {"$": "dict", "v": 5}, {"$": "dict", "v": [1]}, {"$": "timedelta", "v": "x"}, {"$": "uuid"}]
)
def test_the_plain_form_of_what_was_never_written_is_refused(data: Any) -> None:
    with pytest.raises(EncodingError, match="it cannot be read back"):
        plain(data)


# --- events


def test_event_data_is_stored_with_its_types() -> None:
    data = event_data({"price": Decimal("1.50"), "when": {1: (2,)}})
    assert data["price"] == {"$": "decimal", "v": "1.50"}
    assert from_json(data) == {"price": Decimal("1.50"), "when": {1: (2,)}}


def test_event_data_is_a_copy() -> None:
    sent = {"a": [1]}
    data = event_data(sent)
    sent["a"].append(2)
    assert data == {"a": [1]}


def test_objects_in_event_data_are_plain_unless_registered() -> None:
    """A receiver has no annotation to find their classes by."""
    pair = namedtuple("pair", "a b")
    data = event_data({"status": Status.PAID, "line": Line(()), "pair": pair(1, 2), "money": Money(Decimal(5))})
    assert from_json(data) == {
        "status": "paid",
        "line": {"points": (), "colour": "red"},
        "pair": {"a": 1, "b": 2},
        "money": Money(Decimal(5)),
    }


@pytest.mark.parametrize("data", [None, [], "text", Line(()), {1: 2}, {Status.PAID: 1}])
def test_event_data_is_a_dictionary_with_text_keys(data: Any) -> None:
    with pytest.raises(InvalidEvent, match=r"^data: .* (dictionary|text), not "):
        event_data(data)


@pytest.mark.parametrize(
    ("data", "path"),
    [
        ({"a": ["x\0"]}, 'data["a"][0]'),
        ({"a": {"k\0": 1}}, 'data["a"]["k\\u0000"]'),
        ({"a": "half \udc00"}, 'data["a"]'),
        ({"\ud800": 1}, 'data["\\ud800"]'),
        ({"a": {("\0",): 1}}, "data[\"a\"][('\\x00',)][0]"),
        ({"a": Shout("\0")}, 'data["a"]'),
        ({"a": math.nan}, 'data["a"]'),
        ({"a": -math.inf}, 'data["a"]'),
    ],
)
def test_what_a_database_cannot_search_is_refused_in_event_data(data: Any, path: str) -> None:
    with pytest.raises(EncodingError) as caught:
        event_data(data)
    assert caught.value.path == path


def test_whole_surrogate_pairs_are_ordinary_text() -> None:
    assert event_data({"🐘": "🐘"}) == {"🐘": "🐘"}


def test_event_data_larger_than_the_limit_is_refused() -> None:
    with pytest.raises(PayloadTooLarge, match=r"^event: 9 bytes"):
        event_data({"a": "b"}, root="event", limit=8)
