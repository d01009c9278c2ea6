"""Stored payloads and the codec of ``DURABLE["CODEC"]``: they are sealed when written, and opened when read.

Payloads are the values, inputs and errors of runs, steps and attempts, and what events carry. A sealed payload has
a mark that no JSON text and no event's data can have. So a payload that was written before a codec was set stays
readable, and a sealed one is never taken for a value. The columns of :mod:`.fields` seal and open by themselves;
statements in SQL call the functions here.
"""

from __future__ import annotations

import json
from hashlib import blake2b
from typing import Any, Protocol

from django.utils.module_loading import import_string

from .conf import cached_setting, get_settings
from .core.values import errors
from .core.values.writing import dump
from .exceptions import CodecError, ConfigurationError

MARK = "codec:"  #: begins a sealed text
TAG = "codec"  #: is the ``$`` of a sealed structure


class Codec(Protocol):
    """The methods of a codec. ``DURABLE["CODEC"]`` names a class that takes no arguments, or is an instance."""

    def encode(self, text: str) -> str:
        """Return the text to store in place of a payload's JSON text."""
        ...

    def decode(self, text: str) -> str:
        """Return the JSON text again; any exception means that it cannot be read here."""
        ...


@cached_setting
def get_codec() -> Codec | None:
    """Return the codec of the settings, or None; ConfigurationError if it cannot be made."""
    given = get_settings().codec
    codec: Codec | None = _made(given) if isinstance(given, str) else given
    return codec


def _made(given: str) -> Any:
    try:
        made = import_string(given)
    except ImportError as error:
        raise ConfigurationError(
            f"DURABLE['CODEC']: {given!r} cannot be imported ({error}); name a class with encode and decode"
        ) from error
    codec: Any = made() if isinstance(made, type) else made
    if not (callable(getattr(codec, "encode", None)) and callable(getattr(codec, "decode", None))):
        raise ConfigurationError(f"DURABLE['CODEC']: {given!r} is not a codec; name a class with encode and decode")
    return codec


def is_sealed(value: object) -> bool:
    """Tell whether a stored text, or a stored JSON structure, was sealed by a codec."""
    if isinstance(value, str):
        return value.startswith(MARK)
    return isinstance(value, dict) and value.get("$") == TAG


def seal_text(text: str | None) -> str | None:
    """Return a payload's JSON text as it is stored; an empty text, and a sealed one, stay as they are."""
    codec = get_codec()
    return text if codec is None or not text or is_sealed(text) else MARK + codec.encode(text)


def seal_data(data: Any) -> Any:
    """Return a payload that is a JSON structure as it is stored."""
    codec = get_codec()
    return data if codec is None or data is None or is_sealed(data) else {"$": TAG, "v": codec.encode(dump(data))}


def open_text(text: str | None) -> str | None:
    """Return the JSON text of a stored payload; raises CodecError if it cannot be decoded here."""
    return text if text is None or not is_sealed(text) else _decoded(text.removeprefix(MARK))


def open_data(data: Any) -> Any:
    """Return the JSON structure of a stored payload; raises CodecError if it cannot be decoded here."""
    if not is_sealed(data):
        return data
    text = _decoded(data.get("v"))
    try:
        return json.loads(text)
    except ValueError as error:
        raise CodecError(f"the codec's text is not JSON ({error})") from None


def _decoded(text: Any) -> str:
    codec = get_codec()
    if codec is None:
        raise CodecError('it was written through a codec, and DURABLE["CODEC"] is not set')
    try:
        return codec.decode(text)
    except CodecError:
        raise
    except Exception as error:
        raise CodecError(f"{type(error).__name__}: {error}") from error


@cached_setting
def match_secrets() -> tuple[bytes, ...]:
    """Return the secrets of the hashes that ``match`` compares: the first makes new hashes, all find stored ones.

    The last secret is always empty: it finds hashes that were stored before there were keys.
    """
    keys = get_settings().match_keys
    return (*(blake2b(key.encode(), digest_size=32, person=b"durable-match").digest() for key in keys), b"")


def headline(error: BaseException) -> str:
    """Return one line that tells people of an error; with a codec only its class: the line is stored in clear."""
    return errors.headline(error) if get_codec() is None else type(error).__qualname__


def reason(error: Any) -> str:
    """Return why an expression errored; with a codec a text that holds no part of the event."""
    return (
        str(getattr(error, "reason", error))[:500]
        if get_codec() is None
        else "it errored; the reason is not kept, because payloads are encoded"
    )
