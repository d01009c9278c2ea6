from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from django_durable.core.events.conditions import compile_condition, match_rule
from django_durable.core.events.match_keys import UNINDEXED, UNMATCHABLE, index_key
from django_durable.exceptions import EvaluationFailed, InvalidExpression, InvalidPath


def event(name: str = "shop/paid", **data: Any) -> dict[str, Any]:
    return {"name": name, "id": "1", "ts": 0, "user": None, "v": None, "data": data}


@pytest.mark.parametrize(
    ("source", "line", "column", "reason"),
    [
        ("event.", 1, 7, "Syntax error: no viable alternative at input '.'"),
        ("event.data.a ==", 1, 16, "Syntax error: unexpected end"),
        ("", 1, 1, "Syntax error: unexpected end"),
        ("foo == 1", 1, 1, "undeclared reference to 'foo'; the variables are event, async"),
        ("true &&\n\n  foo", 3, 3, "undeclared reference to 'foo'; the variables are event, async"),
        ("event.a == 'é' && foo", 1, 19, "undeclared reference to 'foo'; the variables are event, async"),
        ("1 == 'a'", 1, 3, "found no matching overload for '_==_' applied to '(int, string)'"),
        ("event.a == 99999999999999999999", 1, 12, "invalid int literal"),
        ("true &&\n \0", 2, 2, "the character '\\x00' is not allowed"),
        ("'\ud800' == event.a", 1, 2, "the character '\\ud800' is not allowed"),
    ],
)
def test_a_bad_expression_is_refused_with_position_and_reason(source: str, line: int, column: int, reason: str) -> None:
    with pytest.raises(InvalidExpression) as refused:
        compile_condition(source)
    assert (refused.value.line, refused.value.column, refused.value.reason) == (line, column, reason)
    assert refused.value.expression == source


@pytest.mark.parametrize(
    ("source", "kind"),
    [("1", "int"), ("'a'", "string"), ("null", "null"), ("[1]", "list<int>"), ("event.a + 1", "int")],
)
def test_an_expression_that_can_give_no_bool_is_refused(source: str, kind: str) -> None:
    with pytest.raises(InvalidExpression, match=f"it gives {kind}, not true or false"):
        compile_condition(source)


def test_only_the_given_variables_are_known() -> None:
    with pytest.raises(InvalidExpression, match=r"undeclared reference to 'async\.data\.a'; the variables are event"):
        compile_condition("async.data.a == 1", ("event",))


def test_a_function_in_place_of_text_is_refused() -> None:
    with pytest.raises(InvalidExpression, match="CEL text, not function"):
        compile_condition(lambda event: True)


def test_a_condition_is_compiled_once() -> None:
    assert compile_condition("event.data.once == 1") is compile_condition("event.data.once == 1")


def test_importing_the_module_does_not_import_the_library() -> None:
    code = (
        "import sys, django_durable.core.events.conditions; sys.exit(any('cel_expr' in name for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@given(st.text())
@example("'a' + '\x00'")
@example("//")
@example("a\r\nb\u2028c")
@settings(max_examples=300)
def test_any_text_compiles_or_is_refused(source: str) -> None:
    with contextlib.suppress(InvalidExpression):
        compile_condition(source)


PIECES = [
    "event",
    "async",
    ".data",
    ".a",
    "[0]",
    "['x']",
    " == ",
    " && ",
    "1",
    "'x'",
    "(",
    ")",
    "!",
    ".exists(x, ",
    "null",
]


@given(st.lists(st.sampled_from(PIECES), max_size=30).map("".join))
@settings(max_examples=300)
def test_any_mixture_of_cel_compiles_or_is_refused(source: str) -> None:
    with contextlib.suppress(InvalidExpression):
        compile_condition(source)


def nested_exists(levels: int, width: int) -> str:
    source = "v == v"
    for _ in range(levels - 1):
        source = f"[[{','.join('v' * width)}]].exists(v, {source})"
    return f"[1].exists(v, {source})"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("event.a == '" + "x" * 1_000 + "'", "it has 1,013 characters, the limit is 1,000"),
        ("x" * 10_000_000, "the limit is 1,000"),
        ("(" * 100 + "true" + ")" * 100, "recursion limit"),
        ("[" * 400 + "]" * 400 + " == []", "recursion limit"),
        ("event" + ".a" * 400 + " == 1", "recursion depth"),
        ("1" + "+1" * 400 + " == 1", "recursion depth"),
        (nested_exists(4, 3), "more than 3 macros"),
        ("[[{'k': " + nested_exists(4, 3) + "}]] == []", "more than 3 macros"),
        ("[1].map(x, [x]).map(x, [x]).map(x, [x]).map(x, [x]) == []", "more than 3 macros"),
    ],
)
def test_an_expression_bomb_is_refused(source: str, reason: str) -> None:
    with pytest.raises(InvalidExpression, match=reason) as refused:
        compile_condition(source)
    assert len(str(refused.value)) < 1_500


def test_three_macros_inside_one_another_are_allowed() -> None:
    condition = compile_condition("event.data.a.exists(x, x.b.exists(y, y.c.all(z, z > 1)))")
    assert condition.holds(event=event(a=[{"b": [{"c": [2, 3]}]}]))


def test_macros_side_by_side_do_not_count_as_nested() -> None:
    source = " && ".join(["event.data.a.exists(x, x == 1)"] * 5)
    assert compile_condition(source).holds(event=event(a=[1]))


def test_the_widest_nested_macros_end_quickly() -> None:
    condition = compile_condition(nested_exists(3, 200))
    started = time.perf_counter()
    condition.holds()
    assert time.perf_counter() - started < 1


def test_a_loop_over_too_many_elements_fails_quickly() -> None:
    condition = compile_condition("event.data.a.all(x, event.data.a.all(y, true))")
    started = time.perf_counter()
    with pytest.raises(EvaluationFailed, match="Iteration budget exceeded"):
        condition.holds(event=event(a=[1] * 5_000))
    assert time.perf_counter() - started < 1


def test_a_regular_expression_takes_linear_time() -> None:
    condition = compile_condition("event.data.a.matches('(a+)+$')")
    started = time.perf_counter()
    assert not condition.holds(event=event(a="a" * 30_000 + "b"))
    assert time.perf_counter() - started < 1


@pytest.mark.parametrize("source", ["event.data.m[event.data.a] == 1", "'x'.matches('[' + event.data.a)"])
def test_the_reason_of_a_failure_that_quotes_a_long_text_is_short_and_told_at_once(source: str) -> None:
    condition, document = compile_condition(source), event(a="a" * 500_000, m={})
    started = time.perf_counter()
    with pytest.raises(EvaluationFailed) as failed:
        condition.holds(event=document)
    assert time.perf_counter() - started < 5
    assert len(failed.value.reason) <= 201


@pytest.mark.parametrize(
    ("source", "data", "expected"),
    [
        ("event.data.a == 1", {"a": 1.0}, True),
        ("event.data.a == 1", {"a": True}, False),
        ("event.data.a == 1", {"a": "1"}, False),
        ("event.data.a == null", {"a": None}, True),
        ("has(event.data.a) && event.data.a > 1", {}, False),
        ("event.data.a in ['x', 'y']", {"a": "y"}, True),
        ("event.data.a.startsWith('x')", {"a": "xy"}, True),
        ("event.data.flag", {"flag": True}, True),
        ("event.data.a == 1 || event.data.b == 1", {"a": 1}, True),
    ],
)
def test_a_condition_holds_or_not(source: str, data: dict[str, Any], expected: bool) -> None:
    assert compile_condition(source).holds(event=event(**data)) is expected


@pytest.mark.parametrize(
    ("source", "data", "reason"),
    [
        ("event.data.a == 1", {}, 'Key not found in map : "a"'),
        ("event.data.a < 'b'", {"a": 1}, "No matching overloads found"),
        ("event.data.a", {"a": 1}, "it gives int, not true or false"),
        ("event.data.a", {"a": "x"}, "it gives string, not true or false"),
        ("event.data.a.matches('[')", {"a": "x"}, r"invalid regular expression: missing \]"),
        ("event.data.a == 1", {"a": 2**64}, "out of range"),
        ("event.data.a == 1", {"a": "\ud800"}, "."),
        ("async.data.a == 1", {"a": 1}, 'No value with name "async"'),
    ],
)
def test_a_condition_that_cannot_be_evaluated_says_why(source: str, data: dict[str, Any], reason: str) -> None:
    with pytest.raises(EvaluationFailed, match=reason) as failed:
        compile_condition(source).holds(event=event(**data))
    assert failed.value.expression == source


@pytest.mark.parametrize(
    ("match", "condition", "index_path"),
    [
        (None, None, ""),
        ("data.user.id", None, "data.user.id"),
        (None, "async.data.n > 1", ""),
        (None, "async.data.z == 1 && async.data.b == event.data.a", "data.b & data.z"),
        ("data.id", "async.data.kind == 'paid'", "data.id & data.kind"),
        ("data.id", "async.data.id == event.data.id", "data.id"),
    ],
)
def test_the_index_path_names_every_lifted_path_sorted(
    match: str | None, condition: str | None, index_path: str
) -> None:
    assert match_rule(match, condition).index_path == index_path


@pytest.mark.parametrize(
    ("match", "condition", "arriving", "expected"),
    [
        (None, None, event(), True),
        ("data.id", None, event(id=7), True),
        ("data.id", None, event(id=7.0), True),
        ("data.id", None, event(id="7"), False),
        ("data.id", None, event(id=None), False),
        ("data.id", None, event(), False),
        (None, "async.data.id == event.data.id", event(id=7), True),
        (None, "async.data.id == event.data.id && async.data.n > 1", event(id=7, n=1), False),
        ("data.id", "async.data.n > 1", event(id=7, n=2), True),
        ("data.id", "async.data.n > 1", event(id=8, n=2), False),
    ],
)
def test_a_rule_matches_by_path_and_condition(
    match: str | None, condition: str | None, arriving: dict[str, Any], expected: bool
) -> None:
    rule, trigger = match_rule(match, condition), event(id=7)
    assert rule.matches(trigger, arriving) is expected
    assert not expected or index_key(rule.index_path, arriving) == rule.key_for(trigger)


def test_a_rule_whose_condition_errors_says_so() -> None:
    with pytest.raises(EvaluationFailed, match="Key not found"):
        match_rule("data.id", "async.data.n > 1").matches(event(id=7), event(id=7))


def test_the_condition_is_not_evaluated_where_match_already_differs() -> None:
    assert not match_rule("data.id", "async.data.n > 1").matches(event(id=7), event(id=8))


def test_a_trigger_without_the_match_path_is_an_error_naming_both() -> None:
    with pytest.raises(InvalidPath, match=r"'shop/paid' .* has no 'data\.user\.id'"):
        match_rule("data.user.id", None).key_for(event())


def test_null_matches_nothing_under_match_but_equals_null_in_a_condition() -> None:
    trigger, arriving = event(id=None), event(id=None)
    by_path, by_condition = match_rule("data.id", None), match_rule(None, "async.data.id == event.data.id")
    assert not by_path.matches(trigger, arriving)
    assert by_path.key_for(trigger) == UNMATCHABLE
    assert by_condition.matches(trigger, arriving)
    assert by_condition.key_for(trigger) == index_key("data.id", arriving)


def test_a_wait_whose_trigger_lacks_a_compared_value_has_a_key_that_no_event_has() -> None:
    assert match_rule(None, "async.data.id == event.data.id").key_for(event()) == UNMATCHABLE


def test_a_rule_without_anything_to_lift_has_the_key_of_every_event() -> None:
    assert match_rule(None, "async.data.n > 1").key_for(event()) == UNINDEXED == index_key("", event())


@pytest.mark.parametrize("match", ["user_id", "data.a b"])
def test_a_bad_match_path_is_refused(match: str) -> None:
    with pytest.raises(InvalidPath):
        match_rule(match, None)


NUMBERS = [0, 1, -1, 1.0, -0.0, 1.5, 2**53, 2**53 + 1, 2.0**53, 2**63, 2**64]
scalars = st.sampled_from([None, True, False, "", "1", "é", *NUMBERS])
values = scalars | st.lists(scalars, max_size=2) | st.dictionaries(st.sampled_from(["a", "0"]), scalars, max_size=2)
events = st.fixed_dictionaries({"a": values, "b": values}).map(lambda data: event() | {"data": data})
paths = st.sampled_from([".a", ".a", ".b", ".b", "['a']", ".a.a", ".a[0]", ".b['0']", ".b[1]", ".none"])
literals = st.sampled_from(
    [
        "null",
        "true",
        "0",
        "1",
        "1u",
        "-1",
        "1.0",
        "-0.0",
        "1.5",
        "9007199254740993",
        "9223372036854775808u",
        "''",
        "'1'",
    ]
)
others = st.sampled_from(["true", "async.data.a != 1", "has(async.data.a)", "(async.data.b == 1 || event.data.a != 1)"])


@st.composite
def equalities(draw: st.DrawFn) -> str:
    arriving, trigger = draw(paths.map("async.data{}".format)), draw(paths.map("event.data{}".format))
    return " == ".join(draw(st.permutations([arriving, draw(st.just(trigger) | literals)])))


conditions = st.lists(equalities() | others, min_size=1, max_size=3).map(" && ".join)


def as_doubles(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: as_doubles(item) for key, item in value.items()}
    return float(value) if type(value) is int else value


@given(st.none() | st.sampled_from(["data.a", "data.b.0"]), st.none() | conditions, events, st.data())
@settings(max_examples=500)
def test_every_event_that_matches_is_found_by_its_key(
    match: str | None, condition: str | None, trigger: dict[str, Any], data: st.DataObject
) -> None:
    rule = match_rule(match, condition)
    arriving = data.draw(st.just(trigger) | st.just(as_doubles(trigger)) | events)
    with contextlib.suppress(EvaluationFailed):
        if rule.matches(trigger, arriving):
            assert index_key(rule.index_path, arriving) == rule.key_for(trigger)


@given(literals, scalars)
@settings(max_examples=500)
def test_every_value_that_equals_a_literal_is_found_by_its_key(literal: str, value: Any) -> None:
    rule, arriving = match_rule(None, f"async.data.a == {literal}"), event(a=value)
    with contextlib.suppress(EvaluationFailed):
        if rule.matches(event(), arriving):
            assert index_key(rule.index_path, arriving) == rule.key_for(event())
