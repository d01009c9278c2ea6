from __future__ import annotations

import json

import pytest

from django_durable.admin.shared.payloads import (
    Payload,
    error_line,
    json_payload,
    printable,
    stored_error,
    stored_payload,
)
from django_durable.core.values.encoding import encode
from django_durable.core.values.errors import encode_error


def read(text: str | None, limit: int = 100) -> dict[str, object]:
    """Return what the database reads of a text."""
    head = text[:limit] if text is not None else None
    size = len(text) if text is not None else None
    return {"output_head": head, "output_size": size, "error_head": head, "error_size": size}


def test_a_value_is_laid_out() -> None:
    assert stored_payload(read('{"a":[1,"é"]}'), "output") == Payload('{\n  "a": [\n    1,\n    "é"\n  ]\n}')


def test_no_value_is_none() -> None:
    assert stored_payload(read(None), "output") is None


def test_a_typed_value_is_shown_plainly() -> None:
    assert stored_payload(read(encode((1, b"x"))), "output") == Payload('[\n  1,\n  "eA=="\n]')


def test_a_long_value_is_cut_and_says_how_much_is_missing() -> None:
    assert stored_payload(read(json.dumps("x" * 998)), "output") == Payload('"' + 99 * "x", 900)


@pytest.mark.parametrize("text", ["no JSON", '{"$": "unknown"}', '{"$": []}', "[" * 90])
def test_what_cannot_be_read_is_shown_as_it_is(text: str) -> None:
    payload = stored_payload(read(text), "output")

    assert payload is not None
    assert payload.text


def test_layout_never_makes_a_deep_value_huge() -> None:
    deep = "[" * 400 + "]" * 400

    assert stored_payload(read(deep, 10_000), "output") == Payload(deep)


def test_a_long_event_is_cut() -> None:
    payload = json_payload({"text": "x" * 50_000})

    assert len(payload.text) == 20_000
    assert payload.left_out > 30_000


def test_an_event_that_was_written_by_hand_is_shown_as_it_is() -> None:
    assert json_payload({"$": "dict", "v": 5}) == Payload('{\n  "$": "dict",\n  "v": 5\n}')


def test_an_error_is_read_with_its_causes() -> None:
    try:
        raise ValueError("outer") from KeyError("inner")
    except ValueError as error:
        stored = stored_error(read(encode_error(error), 20_000))

    assert stored is not None
    assert (stored.type, stored.message) == ("builtins.ValueError", "outer")
    assert stored.cause is not None
    assert stored.cause.type == "builtins.KeyError"


@pytest.mark.parametrize("text", ["no JSON", "[]", "{", '{"type": 1, "message": {}}'])
def test_a_malformed_error_is_shown_as_it_is(text: str) -> None:
    error = stored_error(read(text))

    assert error is not None
    assert text in error.message or text == "[]" or "type" in text


def test_a_long_error_is_shown_as_far_as_it_was_read() -> None:
    traceback = "Traceback:\n" + "x" * 500
    error = stored_error(read(json.dumps({"type": "shop.CardError", "message": "refused", "traceback": traceback})))

    assert error is not None
    assert (error.type, error.message) == ("shop.CardError", "refused")
    assert error.traceback.startswith("Traceback:\nxx")
    assert error.traceback.endswith("xx …")


@pytest.mark.parametrize(
    ("head", "line"),
    [
        ('{"type":"shop.errors.CardError","message":"do not\\nhonour","traceback":"Tr', "CardError: do not honour"),
        ('{"type":"shop.CardError","message":"cut in the midd', "CardError: cut in the midd"),
        ('{"type":"shop.CardError","message":"half an escape \\u00', "CardError: half an escape"),
        ('{"type":"shop.CardError","message":"said \\"no\\""', 'CardError: said "no"'),
        ('{"type":"shop.CardError","message":"half a pair \\ud83d', "CardError: half a pair \\ud83d"),
        ("something else", "something else"),
        (None, ""),
    ],
)
def test_an_error_fits_a_line(head: str | None, line: str) -> None:
    assert error_line(head) == line


def test_text_keeps_its_lines_and_loses_what_misleads() -> None:
    assert printable("a\n\tb\x00\x1b[2J\ud800\u202e") == "a\n\tb\\x00\\x1b[2J\\ud800\\u202e"
