from __future__ import annotations

import json
import sys
import traceback
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_durable.core import durations, retries
from django_durable.core.values.errors import ErrorInfo, decode_error, encode_error
from django_durable.exceptions import EncodingError, InvokeError, NonRetriable, StepError


class CardError(ValueError):
    pass


def recorded(error: BaseException, **options: Any) -> ErrorInfo:
    return decode_error(encode_error(error, **options))


def raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    try:
        if cause is None:
            raise error
        raise error from cause
    except type(error) as caught:
        return caught


def test_type_message_and_bases() -> None:
    info = recorded(CardError("stolen"))
    assert (info.type, info.message) == (f"{__name__}.CardError", "stolen")
    assert info.bases == (
        f"{__name__}.CardError",
        "builtins.ValueError",
        "builtins.Exception",
        "builtins.BaseException",
    )


def test_the_traceback_shows_the_users_frames_without_locals() -> None:
    def charge() -> None:
        secret = "4111-1111"
        raise CardError(len(secret))

    with pytest.raises(CardError) as caught:
        charge()
    text = recorded(caught.value).traceback
    assert text.startswith("Traceback (most recent call last):\n")
    assert text.endswith(f"{__name__}.CardError: 9\n")
    assert "in charge" in text
    assert "raise CardError(len(secret))" in text
    assert text.count("4111-1111") == text.count('secret = "4111-1111"') == 0


def test_frames_of_the_package_are_folded() -> None:
    def user_backoff() -> None:
        durations.parse_duration("1 month")

    with pytest.raises(ValueError, match="month") as caught:
        user_backoff()
    text = recorded(caught.value).traceback
    assert "in user_backoff" in text
    assert "frames of django_durable]" in text
    assert "_from_text" not in text


def test_one_frame_of_the_package_is_folded_too() -> None:
    with pytest.raises(Exception, match="backoff must be") as caught:
        retries.make_backoff("backoff", {})
    assert "  [1 frame of django_durable]\n" in recorded(caught.value).traceback


def test_a_deep_traceback_keeps_head_and_tail() -> None:
    def descend(levels: int) -> None:
        ascend(levels)

    def ascend(levels: int) -> None:
        if not levels:
            raise CardError("at the bottom")
        descend(levels - 1)

    with pytest.raises(CardError) as caught:
        descend(200)
    text = recorded(caught.value).traceback
    assert len(text) < 8_100
    assert text.startswith("Traceback")
    assert text.endswith("CardError: at the bottom\n")
    assert "characters left out" in text


def test_a_message_of_a_megabyte_is_cut_and_does_not_push_out_the_frames() -> None:
    info = recorded(raised(CardError("head" + "x" * 1_000_000 + "tail")))
    assert len(info.message) < 8_100
    assert info.message.startswith("head")
    assert info.message.endswith("tail")
    assert "992,008 characters left out" in info.message
    assert "in raised" in info.traceback


def test_the_limit_can_be_chosen() -> None:
    assert len(recorded(raised(CardError("x" * 5_000)), limit=100).message) < 150


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class Wrong(Exception):
    def __str__(self) -> str:
        return 5  # type: ignore[return-value]


@pytest.mark.parametrize(("error", "why"), [(Mute(), "RuntimeError"), (Wrong(), "TypeError")])
def test_an_exception_without_readable_text(error: Exception, why: str) -> None:
    info = recorded(raised(error))
    assert info.message == f"(its __str__ raised {why})"
    assert "in raised" in info.traceback


def test_odd_notes_do_no_harm() -> None:
    error = CardError("stolen")
    error.__notes__ = 5  # type: ignore[assignment]
    assert recorded(error).message == "stolen"
    error.__notes__ = ["call the bank"]
    assert "call the bank\n" in recorded(error).traceback


def test_nul_and_surrogates_are_shown_as_escapes() -> None:
    """A page or a text column could take neither."""
    info = recorded(raised(CardError("a\0b\ud800🐘")))
    assert info.message == "a\\x00b\\ud800🐘"
    assert "a\\x00b" in info.traceback


# --- causes


@pytest.mark.parametrize("character", ["\0", "\ud800", "x"])
@pytest.mark.parametrize("count", [90, 150, 250, 1_000])
def test_a_message_is_no_longer_than_the_limit_once_it_is_escaped(character: str, count: int) -> None:
    info = recorded(raised(ValueError(character * count)), limit=100)

    assert len(info.message) <= 100 + len("\n… 10,000 characters left out …\n")


def test_the_cause_is_kept() -> None:
    info = recorded(raised(NonRetriable("give up"), KeyError("card")))
    assert info.cause is not None
    assert (info.cause.type, info.cause.message) == ("builtins.KeyError", "'card'")


def test_the_context_counts_unless_it_is_suppressed() -> None:
    def fail(**suppress: None) -> None:
        try:
            raise KeyError("card")
        except KeyError:
            error = CardError("stolen")
            if suppress:
                raise error from None
            raise error  # noqa: B904

    with pytest.raises(CardError) as shown:
        fail()
    with pytest.raises(CardError) as hidden:
        fail(cause=None)
    cause = recorded(shown.value).cause
    assert cause is not None
    assert cause.message == "'card'"
    assert recorded(hidden.value).cause is None


def depth(info: ErrorInfo | None) -> int:
    return 0 if info is None else 1 + depth(info.cause)


def test_a_cycle_of_causes_ends() -> None:
    first, second = CardError("1"), CardError("2")
    first.__cause__, second.__cause__ = second, first
    assert depth(recorded(first)) == 2


def test_five_causes_are_kept() -> None:
    error = CardError("0")
    for number in range(50):
        outer = CardError(str(number))
        outer.__cause__ = error
        error = outer
    assert depth(recorded(error)) == 6


# --- groups


def test_a_group_shows_its_parts() -> None:
    inner = ExceptionGroup("inner", [raised(KeyError("deep"))])  # type: ignore[type-var]
    info = recorded(raised(ExceptionGroup("two failed", [CardError("stolen"), inner])))
    assert info.message == "two failed (2 sub-exceptions)"
    assert f"  1 of 2:\n    {__name__}.CardError: stolen\n" in info.traceback
    assert "        builtins.KeyError: 'deep'\n" in info.traceback


def test_a_huge_group_is_cut() -> None:
    deep = wide = ExceptionGroup[Exception]("wide", [CardError("x" * 1_000) for _ in range(1_000)])
    for _ in range(100):
        deep = ExceptionGroup("deep", [deep])
    assert len(encode_error(wide)) < 30_000
    assert len(encode_error(deep)) < 30_000


# --- errors of steps


def test_the_cause_of_a_step_error_is_the_original_error() -> None:
    original = StepError("charge", type="shop.NetworkError", message="reset", bases=("builtins.OSError",))
    error = InvokeError(
        "pay", type="shop.CardError", message="stolen", traceback="File …", cause=original, bases=("shop.Base",)
    )
    info = recorded(raised(error))
    assert info.type == "django_durable.exceptions.InvokeError"
    assert info.message == "Step 'pay' failed after 1 attempt(s): shop.CardError: stolen"
    assert info.cause == ErrorInfo(
        type="shop.CardError",
        message="stolen",
        traceback="File …",
        bases=("shop.Base",),
        cause=ErrorInfo(type="shop.NetworkError", message="reset", bases=("builtins.OSError",)),
    )


def test_a_step_error_as_a_cause_keeps_its_original_too() -> None:
    info = recorded(raised(CardError("declined"), StepError("pay", type="shop.Stolen", message="stolen")))
    assert info.cause is not None
    assert info.cause.cause == ErrorInfo(type="shop.Stolen", message="stolen")


def test_a_cycle_of_step_errors_ends() -> None:
    error = StepError("pay", type="a.B", message="c")
    error.cause = error
    assert depth(recorded(error)) <= 6


def test_missing_parts_have_defaults() -> None:
    assert decode_error("{}") == ErrorInfo(type="builtins.Exception", message="")


@pytest.mark.parametrize("text", ["", "[]", "7", '{"bases": 7}', '{"cause": [1]}', "[" * 100_000])
def test_text_that_is_no_error_is_refused(text: str) -> None:
    with pytest.raises(EncodingError, match="it cannot be read back"):
        decode_error(text)


def test_nothing_is_imported_for_the_class_that_an_error_names() -> None:
    info = decode_error('{"type": "antigravity.Fly", "bases": ["antigravity.Fly", "os.system"]}')

    assert info.bases == ("antigravity.Fly", "os.system")
    assert "antigravity" not in sys.modules


@given(st.text(st.characters(codec=None)), st.integers(10, 100))
def test_any_message_can_be_recorded(message: str, limit: int) -> None:
    info = recorded(raised(CardError(message)), limit=limit)
    info.message.encode()
    json.dumps(info.traceback)
    assert "\0" not in info.message + info.traceback


def test_the_original_exception_is_left_as_it_was() -> None:
    error = raised(CardError("stolen"), KeyError("card"))
    before = traceback.format_exception(error)
    encode_error(error)
    assert traceback.format_exception(error) == before
