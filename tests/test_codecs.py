"""Payloads through a codec: what is stored, what is read, and what a codec may be."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import override_settings

from django_durable import codecs
from django_durable.exceptions import CodecError, ConfigurationError


class Reversing:
    """A codec that anybody can read backwards."""

    def encode(self, text: str) -> str:
        return text[::-1]

    def decode(self, text: str) -> str:
        return text[::-1]


class Broken(Reversing):
    """A codec that cannot read what it wrote."""

    def decode(self, text: str) -> str:
        raise LookupError("no key")


class Incomplete:
    """Lacks a method."""

    def encode(self, text: str) -> str:
        return text


ready_made = Reversing()


def through(codec: Any) -> Any:
    """Return the settings of a project with that codec."""
    return override_settings(DURABLE={"DRIVER": "inline", "CODEC": codec})


def test_without_a_codec_payloads_are_stored_as_they_are() -> None:
    data = {"a": 1}

    assert codecs.get_codec() is None
    assert codecs.seal_text("[1,2]") == codecs.open_text("[1,2]") == "[1,2]"
    assert codecs.seal_data(data) is data
    assert codecs.open_data(data) is data


@pytest.mark.parametrize("codec", [f"{__name__}.Reversing", f"{__name__}.ready_made", Reversing()])
def test_payloads_are_stored_as_the_codec_writes_them(codec: Any) -> None:
    with through(codec):
        assert codecs.seal_text("[1,2]") == "codec:]2,1["
        assert codecs.open_text("codec:]2,1[") == "[1,2]"
        assert codecs.seal_data({"a": 1}) == {"$": "codec", "v": '}1:"a"{'}
        assert codecs.open_data({"$": "codec", "v": '}1:"a"{'}) == {"a": 1}


@pytest.mark.parametrize("text", [None, ""])
def test_nothing_stays_nothing(text: str | None) -> None:
    with through(Reversing()):
        assert codecs.seal_text(text) == codecs.open_text(text) == text
        assert codecs.seal_data(None) is None


def test_what_is_sealed_is_not_sealed_again() -> None:
    with through(Reversing()):
        sealed = codecs.seal_text("[1]"), codecs.seal_data({"a": 1})

        assert (codecs.seal_text(sealed[0]), codecs.seal_data(sealed[1])) == sealed


def test_what_was_stored_before_the_codec_stays_readable() -> None:
    with through(Broken()):
        assert codecs.open_text("[1]") == "[1]"
        assert codecs.open_data({"a": 1}) == {"a": 1}


def test_whatever_the_codec_raises_is_a_clear_error() -> None:
    with through(Broken()), pytest.raises(CodecError, match="cannot be decoded: LookupError: no key"):
        codecs.open_text("codec:x")


def test_without_the_codec_what_it_wrote_cannot_be_read() -> None:
    with pytest.raises(CodecError, match=r'DURABLE\["CODEC"\] is not set'):
        codecs.open_data({"$": "codec", "v": "x"})


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("tests.nowhere.Codec", "'tests.nowhere.Codec' cannot be imported"),
        ("Codec", "'Codec' cannot be imported"),
        (f"{__name__}.Incomplete", "is not a codec; name a class with encode and decode"),
        (f"{__name__}.through", "is not a codec"),
    ],
)
def test_what_is_no_codec_is_refused_by_name(name: str, problem: str) -> None:
    with through(name), pytest.raises(ConfigurationError, match=r"DURABLE\['CODEC'\]") as refused:
        codecs.get_codec()

    assert problem in str(refused.value)


def test_errors_for_people_lose_their_messages_with_a_codec() -> None:
    error = ValueError("about somebody")

    plain = codecs.headline(error)
    with through(Reversing()):
        hidden = codecs.headline(error)

    assert (plain, hidden) == ("ValueError: about somebody", "ValueError")


def test_each_key_of_matching_gives_a_secret_and_none_at_all_comes_last() -> None:
    with override_settings(DURABLE={"DRIVER": "inline", "MATCH_KEYS": ["new", "x" * 1_000]}):
        new, old, none = codecs.match_secrets()

    assert none == b""
    assert new != old
    assert (len(new), len(old)) == (32, 32)
    assert codecs.match_secrets() == (b"",)


@pytest.mark.parametrize("stored", [{"$": "codec", "v": "x"}, {"$": "codec", "v": 7}, {"$": "codec"}])
def test_a_structure_that_was_damaged_is_a_clear_error(stored: Any) -> None:
    with through(Reversing()), pytest.raises(CodecError, match="cannot be decoded: "):
        codecs.open_data(stored)
