"""The codec that encrypts."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.test import override_settings

from django_durable.codecs import get_codec
from django_durable.encryption import FernetCodec
from django_durable.exceptions import CodecError, ConfigurationError

NEWEST, OLDER, OTHER = (Fernet.generate_key().decode() for _ in range(3))


def codec(*keys: str, **options: Any) -> FernetCodec:
    """Return the codec of a project with these keys."""
    with override_settings(DURABLE={"ENCRYPTION_KEYS": keys, "MATCH_KEYS": ["matching"], **options}):
        return FernetCodec()


def test_a_text_is_encrypted_and_comes_back() -> None:
    sealed = codec(NEWEST).encode('{"a":1}')

    assert Fernet(NEWEST).decrypt(sealed) == b'{"a":1}'
    assert codec(NEWEST).decode(sealed) == '{"a":1}'


def test_the_first_key_encrypts_and_every_key_decrypts() -> None:
    old, new = codec(OLDER).encode("old"), codec(NEWEST, OLDER).encode("new")

    assert [codec(NEWEST, OLDER).decode(each) for each in (old, new)] == ["old", "new"]
    assert codec(NEWEST).decode(new) == "new"


@pytest.mark.parametrize("change", [lambda text: text, lambda text: text[:-4] + "AAAA", lambda text: "not a token"])
def test_what_no_key_fits_and_what_was_changed_is_refused(change: Any) -> None:
    sealed = change(codec(OTHER).encode("x"))

    with pytest.raises(CodecError, match=r'no key of DURABLE\["ENCRYPTION_KEYS"\] fits, or the payload was changed'):
        codec(NEWEST, OLDER).decode(sealed)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"ENCRYPTION_KEYS": []}, r'DURABLE\["ENCRYPTION_KEYS"\] is empty; put a key there'),
        ({"ENCRYPTION_KEYS": [NEWEST, "my-secret"]}, r'DURABLE\["ENCRYPTION_KEYS"\]\[1\] is not a key; make one with'),
        ({"ENCRYPTION_KEYS": ["é" * 44]}, r'DURABLE\["ENCRYPTION_KEYS"\]\[0\] is not a key'),
        ({"MATCH_KEYS": []}, r'DURABLE\["MATCH_KEYS"\] is empty, so hashes of encrypted values could be guessed; put'),
    ],
)
def test_keys_that_are_missing_or_cannot_work_are_named(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem) as refused:
        codec(**{"ENCRYPTION_KEYS": [NEWEST], **options})

    assert "my-secret" not in str(refused.value)


def test_without_the_library_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.fernet", None)

    with pytest.raises(ConfigurationError, match=r"install it: pip install \"django-durable-functions\[encryption\]\""):
        codec(NEWEST)


def test_a_change_of_the_settings_makes_another_codec() -> None:
    options = {"CODEC": "django_durable.encryption.FernetCodec", "MATCH_KEYS": ["matching"]}

    with override_settings(DURABLE={**options, "ENCRYPTION_KEYS": [NEWEST]}):
        made = get_codec()
        assert isinstance(made, FernetCodec)
        assert made is get_codec()
    with override_settings(DURABLE={**options, "ENCRYPTION_KEYS": [OLDER]}):
        assert get_codec() is not made
    assert get_codec() is None
