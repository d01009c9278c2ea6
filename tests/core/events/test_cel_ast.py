from __future__ import annotations

import pytest

from django_durable.core.events.cel_ast import Equality
from django_durable.core.events.conditions import compile_condition


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("event.data.a == async.data.b", Equality("data.b", "data.a")),
        ("async.data.b == event.data.a", Equality("data.b", "data.a")),
        ("async.data.b == 'x'", Equality("data.b", None, "x")),
        ("'x' == async.data.b", Equality("data.b", None, "x")),
        ("async.data.b == 'é'", Equality("data.b", None, "é")),
        ("async.data.b == ''", Equality("data.b", None, "")),
        ("async.data.b == 0", Equality("data.b", None, 0)),
        ("async.data.b == -1", Equality("data.b", None, -1)),
        ("async.data.b == 9223372036854775807", Equality("data.b", None, 2**63 - 1)),
        ("async.data.b == -9223372036854775808", Equality("data.b", None, -(2**63))),
        ("async.data.b == 18446744073709551615u", Equality("data.b", None, 2**64 - 1)),
        ("async.data.b == -1.5", Equality("data.b", None, -1.5)),
        ("async.data.b == true", Equality("data.b", None, True)),
        ("async.data.b == null", Equality("data.b", None, None)),
        ("async.data['b'].c == 1", Equality("data.b.c", None, 1)),
        ("async.data.lines[2].sku == event.data['sku']", Equality("data.lines.2.sku", "data.sku")),
        (".async.data.b == .event.data.a", Equality("data.b", "data.a")),
        ("async.data.`b-c` == 1", Equality("data.b-c", None, 1)),
        ("async.user == 'ann'", Equality("user", None, "ann")),
    ],
)
def test_an_equality_with_the_arriving_event_is_lifted(source: str, expected: Equality) -> None:
    (lifted,) = compile_condition(source).equalities
    assert lifted == expected
    assert type(lifted.literal) is type(expected.literal)


def test_all_equalities_that_top_level_ands_join_are_lifted() -> None:
    condition = compile_condition("async.data.a == 1 && (async.data.b == 2 && async.data.n > 3) && async.data.c == 4")
    assert [equality.path for equality in condition.equalities] == ["data.a", "data.b", "data.c"]


@pytest.mark.parametrize(
    "source",
    [
        "async.data.b != 1",
        "!(async.data.b == 1)",
        "async.data.b == 1 || async.data.c == 1",
        "async.data.b == 1 ? true : false",
        "async.data.b == async.data.c",
        "event.data.a == event.data.b",
        "async.data.b == event.data.a + 1",
        "async.data.b == [1]",
        "async.data.b == b'x'",
        "has(async.data.b) == true",
        "async.data['b.c'] == 1",
        "async.data['b c'] == 1",
        "async.data['b&c'] == 1",
        "async.data[true] == 1",
        "async.data[0.0] == 1",
        "async.data[event.data.k] == 1",
        "async.other.b == 1",
        "async == event",
        "size(async.data.b) == 1",
        "event.data.l.exists(x, async.data.b == x)",
    ],
)
def test_nothing_else_is_lifted(source: str) -> None:
    assert compile_condition(source).equalities == ()


def test_a_long_chain_of_equalities_is_lifted_whole() -> None:
    condition = compile_condition(" && ".join(f"async.data.k{number} == {number}" for number in range(40)))
    assert [equality.literal for equality in condition.equalities] == list(range(40))
