from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_durable.core.events.match_keys import MISSING, UNINDEXED, UNMATCHABLE, index_key, lookup, parse_path, same
from django_durable.exceptions import InvalidPath

EVENT: dict[str, Any] = {"name": "shop/paid", "user": None, "data": {"id": 7, "lines": [{"sku": "a"}, {"sku": "b"}]}}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def key(value: Any) -> bytes | None:
    return index_key("data.v", {"data": {"v": value}})


@pytest.mark.parametrize(
    ("text", "segments"),
    [
        ("data.user.id", ("data", "user", "id")),
        ("user", ("user",)),
        ("data.lines.0.sku", ("data", "lines", "0", "sku")),
    ],
)
def test_a_path_is_split_at_its_dots(text: str, segments: tuple[str, ...]) -> None:
    assert parse_path(text) == segments


@pytest.mark.parametrize("text", ["", ".", "data.", "data..id", "data.a b", "data.a&b", "data.a\n", " data"])
def test_a_malformed_path_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(InvalidPath, match=r"names joined by dots, such as 'data\.user\.id'"):
        parse_path(text)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("user_id", "data.user_id"),
        ("payload.id", "data.payload.id"),
        ("event.data.id", "data.id"),
        ("async.user", "user"),
        ("event.id_no", "data.id_no"),
        ("event", "data"),
    ],
)
def test_a_path_outside_an_event_is_refused_with_what_was_meant(text: str, meant: str) -> None:
    with pytest.raises(InvalidPath) as refused:
        parse_path(text)
    assert f"Did you mean {meant!r}?" in str(refused.value)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("data.id", 7),
        ("user", None),
        ("data.lines.1.sku", "b"),
        ("data.lines.2.sku", MISSING),
        ("data.lines.-1.sku", MISSING),
        ("data.lines.x", MISSING),
        ("data.lines." + "9" * 5000, MISSING),
        ("data.none", MISSING),
        ("data.id.deeper", MISSING),
        ("user.id", MISSING),
        ("name.0", MISSING),
    ],
)
def test_lookup_follows_keys_and_positions(path: str, value: object) -> None:
    assert lookup(EVENT, path.split(".")) == value


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (1, 1.0),
        (0.0, -0.0),
        (2**53 + 1, 2.0**53),
        ([1, {"a": 2}], [1.0, {"a": 2.0}]),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
    ],
)
def test_what_compares_equal_or_nearly_so_shares_a_key(left: object, right: object) -> None:
    assert key(left) == key(right)


def test_an_integer_beyond_every_double_has_a_key() -> None:
    assert len({key(value) for value in (10**400, -(10**400), 0)}) == 3


def test_values_of_different_type_or_content_have_different_keys() -> None:
    values = [None, True, False, 0, 1, 1.5, "", "1", "true", "null", [], [1], ["1"], [[1]], {}, {"a": 1}, {"a": "1"}]
    assert len({key(value) for value in values}) == len(values)


def test_a_key_depends_on_its_paths_and_on_which_value_is_where() -> None:
    event = {"data": {"a": 1, "b": 2, "c": 1}}
    paths = ["data.a", "data.c", "data.a & data.b", "data.a & data.c", "data.b & data.c"]
    assert len({index_key(path, event) for path in paths}) == len(paths)


def test_a_key_is_the_same_in_every_process() -> None:
    assert index_key("data.id", EVENT) == bytes.fromhex("956a98ec0ca8ab121d5310be9f681c08")


def test_an_event_without_one_of_the_paths_has_no_key() -> None:
    assert index_key("data.id & data.none", EVENT) is None


def test_every_event_has_the_same_key_for_no_paths() -> None:
    assert index_key("", EVENT) == index_key("", {}) == UNINDEXED != UNMATCHABLE


def test_a_very_deep_value_has_a_key() -> None:
    deep: list[Any] = []
    for _ in range(20_000):
        deep = [deep]
    assert key(deep) is not None


def test_text_that_is_no_unicode_has_a_key() -> None:
    assert key("\ud800") not in (None, key("\ud801"))


@given(json_values, json_values)
def test_equal_values_share_a_key(left: object, right: object) -> None:
    assert not same(left, right) or key(left) == key(right)


@given(json_values)
def test_a_value_equals_itself(value: object) -> None:
    assert same(value, value)


@pytest.mark.parametrize(
    ("left", "right", "equal"),
    [
        (1, 1.0, True),
        (1, True, False),
        (0, False, False),
        (True, True, True),
        (1, "1", False),
        (None, 0, False),
        ("", None, False),
        ([1, [2]], [1.0, [2.0]], True),
        ([1], [True], False),
        ([1], [1, 2], False),
        ([], {}, False),
        ({"a": 1}, {"a": 1.0}, True),
        ({"a": 1}, {"a": True}, False),
        ({"a": 1}, {"b": 1}, False),
        (2**53 + 1, 2.0**53, False),
        (float("nan"), float("nan"), False),
    ],
)
def test_same_compares_json_by_value_and_kind(left: object, right: object, equal: bool) -> None:
    assert same(left, right) is same(right, left) is equal
