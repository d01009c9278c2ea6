from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_durable.core.events.events import (
    Event,
    FailureEvent,
    check_name,
    check_pattern,
    check_sendable,
    pattern_matches,
    patterns_of,
)
from django_durable.core.values.errors import ErrorInfo
from django_durable.exceptions import InvalidEvent

names = st.text(st.sampled_from("ab/."), min_size=1, max_size=12)


def test_an_event_needs_no_more_than_a_name() -> None:
    event = Event("app/user.created")

    assert (event.data, event.id, event.user, event.batch) == ({}, None, None, ())


def test_events_do_not_share_their_data() -> None:
    assert Event("a").data is not Event("b").data


def test_an_event_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Event("a").name = "b"  # type: ignore[misc]


def test_a_failure_event_is_an_event_that_knows_what_failed() -> None:
    original = Event("shop/order.paid", {"id": 7})
    error = ErrorInfo(type="builtins.ValueError", message="no")

    failure = FailureEvent("durable/function.failed", error=error, run_id="1", original=original)

    assert isinstance(failure, Event)
    assert (failure.error, failure.run_id, failure.original) == (error, "1", original)


@pytest.mark.parametrize("name", ["app/user.created", "a", "Ärger mit Leerzeichen", "x" * 255, "durable/done", "a*"])
def test_printable_text_up_to_255_characters_names_an_event(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "must be text such as 'app/user.created', not ''"),
        (None, "must be text such as 'app/user.created', not None"),
        (7, "not 7"),
        ("x" * 256, "has 256 characters; the limit is 255"),
        ("a\nb", r"holds the character '\n'; use printable text"),
        ("a\0", r"holds the character '\x00'"),
        ("a\x85", r"holds the character '\x85'"),
        ("a\ud800", r"holds the character '\ud800'"),
    ],
)
def test_what_cannot_name_an_event_is_refused_with_the_reason(name: Any, reason: str) -> None:
    with pytest.raises(InvalidEvent) as refused:
        check_name(name)

    assert reason in str(refused.value)


def test_a_name_of_the_engine_cannot_be_sent() -> None:
    with pytest.raises(InvalidEvent, match=r"'durable/function\.failed' is reserved"):
        check_sendable("durable/function.failed")


def test_a_wildcard_cannot_be_sent() -> None:
    with pytest.raises(InvalidEvent, match="wildcards listen, they are not sent"):
        check_sendable("app/*")


def test_other_names_can_be_sent() -> None:
    assert check_sendable("durables/paid") == "durables/paid"


@pytest.mark.parametrize("pattern", ["app/user.created", "app/*", "app/user.*", "durable/function.failed", "a/b/*"])
def test_an_exact_name_or_a_prefix_can_be_listened_to(pattern: str) -> None:
    assert check_pattern(pattern) == pattern


@pytest.mark.parametrize("pattern", ["*", "app*", "app/*.created", "app/us*", "app/**", "a/*/*"])
def test_a_wildcard_elsewhere_is_refused_with_an_example(pattern: str) -> None:
    with pytest.raises(InvalidEvent, match=r"it stands once, last, after '/' or '\.' \(app/user\.\*\)"):
        check_pattern(pattern)


def test_a_name_is_listened_to_by_itself_and_each_of_its_prefixes() -> None:
    assert patterns_of("a/b.c") == ("a/b.c", "a/*", "a/b.*")


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("app/user.created", "app/user.created", True),
        ("app/user.created", "app/user.created2", False),
        ("app/user.*", "app/user.created", True),
        ("app/*", "app/user.created", True),
        ("app/user.*", "app/users.created", False),
        ("app/user.*", "app/user", False),
        ("App/*", "app/user", False),
    ],
)
def test_a_pattern_matches_its_name_or_what_begins_with_its_prefix(pattern: str, name: str, matches: bool) -> None:
    assert pattern_matches(pattern, name) is matches


@given(names, names)
def test_the_patterns_of_a_name_are_exactly_those_that_match_it(name: str, other: str) -> None:
    candidates = {name, *patterns_of(name), *patterns_of(other)}

    assert {pattern for pattern in candidates if pattern_matches(pattern, name)} == set(patterns_of(name))
