"""Values to JSON text and back, with their types.

``decode(encode(value)) == value``, of the same type, for what JSON has and for tuple, set, frozenset, datetime, date,
time, timedelta, Decimal, UUID, bytes, complex, enums, dataclasses, NamedTuples, models of pydantic, structs of msgspec
and dictionaries with any of these as keys. Other subclasses of these types come back as their base. References
(:mod:`.references`) are loaded afresh. A value that JSON lacks is written as an object with the key
``$`` (:mod:`.tags`).
"""

from __future__ import annotations

import json
import reprlib
from typing import Any

from ...exceptions import EncodingError, InvalidEvent, PayloadTooLarge
from .classes import register_type
from .references import NotLoaded
from .tags import BY_NAME, Unstorable
from .writing import Hint, Reader, Writer, dump, is_bare, is_text

__all__ = ["decode", "encode", "event_data", "from_json", "plain", "register_type", "to_json"]


def encode(
    value: object,
    *,
    root: str = "result",
    limit: int | None = None,
    objects: bool = True,
    hint: Hint | None = None,
) -> str:
    """Write a value as ASCII JSON text.

    *root* names the value in error messages, *limit* is the greatest number of bytes; for *objects* see
    :func:`to_json`. *hint* is the one that :func:`decode` will be given: with it, objects whose class it does not name
    are refused. Raises EncodingError with the path of a part that cannot be stored, PayloadTooLarge beyond the limit.
    """
    text = _bare_text(value) or _text(to_json(value, root=root, objects=objects, hint=hint), root)
    return _checked(text, root, limit)


def decode(text: str, hint: Hint | None = None) -> Any:
    """Read text that :func:`encode` wrote.

    *hint* returns an annotation that names the classes of recorded objects; it is called only if there are such.
    Raises EncodingError if a class is not known or the text cannot be read.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _unreadable(error) from error
    # Every tag has this key, and quotes inside of texts are escaped.
    return from_json(data, hint) if '"$"' in text else data


def to_json(value: object, *, root: str = "result", objects: bool = True, hint: Hint | None = None) -> Any:
    """Write a value as a structure of JSON's own types, a copy.

    Without *objects*, objects whose class is not registered are written as plain values, and references are refused:
    for readers that have no annotation to find the class by. For *hint* see :func:`encode`.
    """
    return _write(Writer(objects=objects, reader=Reader(hint) if hint else None), value, root)


def from_json(data: Any, hint: Hint | None = None) -> Any:
    """Read a structure that :func:`to_json` wrote; see :func:`decode`.

    An error of loading a reference is passed on: StaleReference if the row is gone.
    """
    try:
        return Reader(hint).read(data)
    except NotLoaded as failed:
        raise failed.error from None
    except Unstorable as refused:
        raise EncodingError("value", refused.problem, refused.remedy) from None
    except Exception as error:
        raise _unreadable(error) from error


def plain(data: Any) -> Any:
    """Turn a structure that :func:`to_json` wrote into JSON without tags, for expressions and people.

    A decimal is its text, a datetime ISO text, a timedelta its seconds, bytes are base64; tuples and sets are lists,
    objects and references their fields, keys text. Raises EncodingError for what :func:`to_json` never writes.
    """
    try:
        return _plain(data)
    except Exception as error:
        raise _unreadable(error) from error


def _plain(data: Any) -> Any:
    if isinstance(data, list):
        return [_plain(item) for item in data]
    if not isinstance(data, dict):
        return data
    if "$" not in data:
        return {key: _plain(item) for key, item in data.items()}
    name = data["$"]
    if name == "dict":
        return {_plain_key(key): _plain(item) for key, item in data["v"]}
    if name in BY_NAME:
        return BY_NAME[name].plain(data)
    return _plain(data["v"]) if "v" in data else {key: _plain(item) for key, item in data.items() if key != "$"}


def _plain_key(key: Any) -> str:
    bare = _plain(key)
    return bare if isinstance(bare, str) else dump(bare)


def event_data(value: object, *, root: str = "data", limit: int | None = None) -> dict[str, Any]:
    """Write an event's data, an object that every database can store and search.

    *limit* is the greatest number of bytes of JSON. Raises InvalidEvent if it is not a dictionary with text keys,
    EncodingError for parts that cannot be stored, among them NUL and lone surrogates.
    """
    if not isinstance(value, dict):
        raise InvalidEvent(f"{root}: an event's data is a dictionary, not {type(value).__qualname__}")
    for key in value:
        if not is_text(key):
            raise InvalidEvent(f"{root}: the keys of an event's data are text, not {reprlib.repr(key)}")
    data: dict[str, Any] = _write(Writer(objects=False, check_text=_check_searchable), value, root)
    _checked(_text(data, root), root, limit)
    return data


def _check_searchable(text: str) -> None:
    if "\0" in text:
        raise Unstorable("the text holds a NUL character", r'Remove it: text.replace("\0", "")')
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise Unstorable("the text holds half of a surrogate pair", 'Remove it: text.encode(errors="ignore").decode()')


def _write(writer: Writer, value: object, root: str) -> Any:
    try:
        return writer.write(value)
    except Unstorable as refused:
        raise EncodingError(root + _short(refused.path), refused.problem, refused.remedy) from None
    except RecursionError:
        raise _too_deep(root) from None
    except Exception as error:
        raise EncodingError(
            root, f"reading its parts raised {type(error).__name__}", "Return plain values that nothing else changes"
        ) from error


def _bare_text(value: object) -> str | None:
    try:
        return dump(value) if is_bare(value) else None
    except (ValueError, RecursionError):
        # NaN, or an int too long to be written as digits: the thorough way knows the path and the remedy.
        return None


def _text(data: Any, root: str) -> str:
    try:
        return dump(data)
    except RecursionError:
        raise _too_deep(root) from None


def _checked(text: str, root: str, limit: int | None) -> str:
    if limit is not None and len(text) > limit:
        raise PayloadTooLarge(root, len(text), limit)
    return text


def _too_deep(root: str) -> EncodingError:
    return EncodingError(root, "it is nested too deeply", "Return a flatter structure")


def _short(path: list[str]) -> str:
    parts = path[::-1]
    return "".join(parts if len(parts) <= 20 else [*parts[:10], " … ", *parts[-5:]])


def _unreadable(error: Exception) -> EncodingError:
    return EncodingError(
        "value",
        f"it cannot be read back ({type(error).__name__}: {reprlib.repr(str(error))})",
        "Restore the class that it was recorded with, or replay the run from the start",
    )
