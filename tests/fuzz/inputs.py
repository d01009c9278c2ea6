"""What the fuzzers feed: JSON, our tags in any disorder, values, CEL, durations, names and events."""

from __future__ import annotations

import json
from datetime import UTC, timedelta, timezone
from typing import Any

from hypothesis import strategies as st

NAMES = ["decimal", "datetime", "date", "time", "timedelta", "uuid", "bytes", "complex", "int"]
NAMES += ["dict", "tuple", "set", "frozenset", "obj", "model", "codec"]
CLASSES = ["django_durable.core.events.events.Event", "django_durable.core.values.errors.ErrorInfo"]
CLASSES += ["os.system", "antigravity.Fly"]
LEAVES = ["1.5", "1e999999999", "2030-01-01", "2030-01-01T09:00:00+01:00", "10:00", "0xff", "YWI=", "a/b", "UTC"]
LABELS = ["auth.user", "django_durable.run", "testapp.author", "x"]

# The database "default" is for the target that has one.
texts = st.text(st.characters(codec=None), max_size=20)
numbers = st.integers() | st.integers(-(10**700), 10**700) | st.floats(allow_nan=False, allow_infinity=False)
json_scalars = st.none() | st.booleans() | numbers | texts | st.sampled_from(NAMES + LEAVES)
json_keys = st.sampled_from(["a", "b", "$", "v", "t", "0"]) | texts
documents = st.recursive(
    json_scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(json_keys, inner, max_size=4),
    max_leaves=12,
)
objects = st.dictionaries(json_keys, documents, max_size=4)


def _tagged(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    tag = st.sampled_from(NAMES) | inner
    parts = {"v": inner, "t": st.sampled_from(CLASSES) | inner, "zone": inner, "fold": inner, "unset": inner}
    parts |= {"m": st.sampled_from(LABELS) | inner, "pk": inner, "db": st.just("nowhere") | inner}
    return st.fixed_dictionaries({"$": tag}, optional=parts) | st.lists(inner, max_size=3)


tagged = st.recursive(json_scalars | st.sampled_from(LEAVES), _tagged, max_leaves=10)
json_texts = (tagged | documents).map(json.dumps)


@st.composite
def damaged(draw: st.DrawFn) -> str:
    """Give JSON text of which a part was cut out, doubled or replaced."""
    text = draw(json_texts)
    start = draw(st.integers(0, len(text)))
    end = draw(st.integers(start, min(len(text), start + 8)))
    return text[:start] + draw(st.just(text[start:end] * 2) | st.text(max_size=3)) + text[end:]


keys = documents | st.uuids().map(str) | st.integers(1, 3)
references = st.fixed_dictionaries(
    {"$": st.just("model")},
    optional={"m": st.sampled_from(LABELS) | documents, "pk": keys, "db": st.just("default") | documents},
)

offsets = st.timedeltas(timedelta(hours=-23), timedelta(hours=23)).map(
    lambda offset: timezone(timedelta(minutes=offset // timedelta(minutes=1)))
)
value_scalars = (
    st.none()
    | st.booleans()
    | numbers
    | texts
    | st.binary(max_size=20)
    | st.decimals(allow_nan=False)
    | st.uuids()
    | st.dates()
    | st.times(timezones=st.none() | offsets)
    | st.datetimes(timezones=st.none() | st.timezones() | st.just(UTC) | offsets)
    | st.timedeltas()
    | st.complex_numbers(allow_nan=False, allow_infinity=False)
)
values = st.recursive(
    value_scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(value_scalars | st.just("$"), inner, max_size=4)
        | st.sets(value_scalars, max_size=4)
        | st.frozensets(value_scalars, max_size=4)
    ),
    max_leaves=15,
)

PIECES = [
    "1",
    "1.5",
    "1h",
    "h",
    "m",
    "M",
    "ms",
    "µs",
    " ",
    "day",
    "months",
    "P",
    "T",
    "D",
    "S",
    "W",
    "-",
    "+",
    ".",
    ",",
]
PIECES += ["2030", "01", ":", "Z", "+25:00", "\u0661", "9" * 400, "inf", "nan", "\ud800", "\0"]
duration_texts = st.lists(st.sampled_from(PIECES), max_size=12).map("".join) | texts
durations = duration_texts | numbers | st.floats() | st.timedeltas() | documents

PATHS = ["event", "async", ".data", ".a", ".b", "['a']", "[0]", "['0']", ".user", ".`b-c`", ".name", ".$", ".v"]
paths = st.lists(st.sampled_from(PATHS), min_size=1, max_size=5).map("".join)
LITERALS = [
    "1",
    "1u",
    "-1",
    "1.0",
    "9223372036854775807",
    "'a'",
    "'['",
    "b'a'",
    "null",
    "true",
    "[]",
    "{}",
    "x",
    "'1s'",
]
OPERATORS = [" == ", " != ", " < ", " && ", " || ", " + ", " - ", " * ", " / ", " % ", " in "]
FUNCTIONS = [
    "size",
    "int",
    "string",
    "double",
    "timestamp",
    "duration",
    "type",
    "has",
    "dyn",
    "bytes",
    "bool",
    "nothing",
]
METHODS = ["matches", "contains", "startsWith", "size", "getFullYear"]
MACROS = ["exists", "all", "exists_one", "map", "filter"]


def _larger(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return (
        st.builds("({}{}{})".format, inner, st.sampled_from(OPERATORS), inner)
        | st.builds("{}({})".format, st.sampled_from(FUNCTIONS), inner)
        | st.builds("{}.{}({})".format, inner, st.sampled_from(METHODS), inner)
        | st.builds("{}.{}(x, {})".format, inner, st.sampled_from(MACROS), inner)
        | st.builds("({} ? {} : {})".format, inner, inner, inner)
        | st.builds("!{}".format, inner)
        | st.builds("[{}, {}]".format, inner, inner)
        | st.builds("{{'a': {}}}".format, inner)
        | st.builds("{}[{}]".format, inner, inner)
    )


terms = st.recursive(paths | st.sampled_from(LITERALS), _larger, max_leaves=8)
equalities = st.builds("{} == {}".format, paths, terms) | st.builds("{} == {}".format, terms, paths)
conditions = st.lists(terms | equalities, min_size=1, max_size=4).map(" && ".join)
cel_pieces = st.sampled_from(PATHS + LITERALS + OPERATORS + ["(", ")", ",", "?", ":", ".exists(x, ", "\n", "//"])
expressions = conditions | st.lists(cel_pieces, max_size=20).map("".join) | texts

event_names = (
    st.sampled_from(["fuzz/a", "fuzz/b.c", "fuzz/reply", "durable/function.failed", "fuzz/*", "/", "."]) | texts
)
event_names |= st.lists(texts, max_size=4).map("/".join).map("fuzz/{}".format)
event_options = st.fixed_dictionaries(
    {},
    optional={
        "id": texts | documents,
        "user": objects | documents,
        "v": texts | documents,
        "ts": st.datetimes(timezones=st.none() | st.timezones() | offsets) | documents,
    },
)
events = st.tuples(event_names | documents, objects | values, event_options)
hints = st.tuples(
    st.sampled_from(["celery", "fuzz"]) | documents,
    st.lists(st.uuids().map(str) | documents, max_size=4) | documents,
    documents,
)
