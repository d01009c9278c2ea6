"""Containers and objects, written as structures of JSON's own types and read back.

Dictionaries with text keys and lists stand for themselves; everything else is tagged (:mod:`.tags`).
"""

from __future__ import annotations

import enum
import json
import reprlib
from collections.abc import Callable, Collection, Iterable
from typing import Any

from . import classes, references, tags
from .remedies import refusal
from .tags import Unstorable

DEEPEST = 200
"""How deep containers may be nested; Python's own recursion limit is not far above."""

_TEXT = frozenset({str})
_SCALARS = frozenset({str, int, float, bool, type(None)})
_BARE = _SCALARS | {list, dict}

Hint = Callable[[], object]
_Place = Callable[[Any], str]

dump = json.JSONEncoder(check_circular=False, allow_nan=False, separators=(",", ":")).encode


def is_bare(value: Any, depth: int = 0) -> bool:
    """Tell fast whether *value* holds only types of JSON, no key ``$``, and is not too deep."""
    if type(value) is dict:
        if "$" in value or not _TEXT.issuperset(map(type, value)):
            return False
        parts: Collection[Any] = value.values()
    elif type(value) is list:
        parts = value
    else:
        return type(value) in _SCALARS
    types = set(map(type, parts))
    if types <= _SCALARS:
        return True
    return depth < DEEPEST - 1 and types <= _BARE and all(is_bare(part, depth + 1) for part in parts)


class Writer:
    """Writes one value.

    Without *objects*, objects are written as plain values. *reader* is the one that will read the result: a class that
    it does not know is refused. *check_text* raises Unstorable for a text that may not be stored.
    """

    __slots__ = ("check_text", "objects", "open", "reader")

    def __init__(
        self, *, objects: bool, reader: Reader | None = None, check_text: Callable[[str], None] | None = None
    ) -> None:
        self.objects = objects
        self.reader = reader
        self.check_text = check_text
        self.open: set[int] = set()

    def write(self, value: Any) -> Any:
        """Write a value of any type; raises Unstorable if it cannot be stored."""
        writer = _WRITERS.get(type(value)) or _find_writer(value)
        return writer(self, value)

    def enter(self, value: object) -> None:
        """Note that the parts of *value* are being written; refuses cycles and too deep nesting."""
        if id(value) in self.open:
            raise Unstorable("it contains itself", "Return a structure without cycles, with ids in place of references")
        if len(self.open) >= DEEPEST:
            raise Unstorable(f"it is nested more than {DEEPEST} levels deep", "Return a flatter structure")
        self.open.add(id(value))

    def leave(self, value: object) -> None:
        """Note that the parts of *value* are written."""
        self.open.remove(id(value))

    def text(self, value: str) -> str:
        """Write a text; one of a subclass of str becomes a plain one."""
        if self.check_text is not None:
            self.check_text(value)
        return str.__str__(value)

    def items(self, value: Iterable[Any], place: str = "[{}]") -> list[Any]:
        """Write the items of a list, a tuple or a set."""
        self.enter(value)
        written: list[Any] = []
        try:
            for item in value:
                written.append(self.write(item))
        except Unstorable as refused:
            refused.path.append(place.format(len(written)))
            raise
        self.leave(value)
        return written

    def entries(
        self, value: object, items: Iterable[tuple[Any, Any]], write_key: Callable[[Any], Any], place: _Place
    ) -> list[list[Any]]:
        """Write the pairs of a dictionary or an object; *place* turns a key into its part of the path."""
        self.enter(value)
        written: list[list[Any]] = []
        key: object = None
        try:
            for key, item in items:
                written.append([write_key(key), self.write(item)])
        except Unstorable as refused:
            refused.path.append(place(key))
            raise
        self.leave(value)
        return written

    def mapping(self, value: dict[Any, Any]) -> dict[str, Any]:
        """Write a dictionary: as it is with text keys, as pairs with others."""
        if "$" in value or not (_TEXT.issuperset(map(type, value)) or all(map(is_text, value))):
            return {"$": "dict", "v": self.entries(value, value.items(), self.write, _key_place)}
        written = dict(self.entries(value, value.items(), self.text, _text_place))
        if len(written) != len(value):
            raise Unstorable("two of its keys are the same text", "Return a dictionary with plain text keys")
        return written

    def sorted_items(self, value: Iterable[Any]) -> list[Any]:
        """Write a set."""
        # The order of a set changes from process to process; equal sets should have equal text.
        return sorted(self.items(value, "{{…}}"), key=dump)

    def instance(self, value: Any) -> Any:
        """Write an enum member, or another object by the names of its fields."""
        cls = type(value)
        name = classes.class_name(cls)
        if self.objects and self.reader is not None:
            self.reader.find(name)
        if isinstance(value, enum.Enum):
            written, unset = self.write(value.value), []
        else:
            written = dict(self.entries(value, classes.parts_of(value), str, ".{}".format))
            unset = classes.unset_in(value)
        if not self.objects and not classes.is_registered(cls):
            return written
        tagged = {"$": "obj", "t": name, "v": written}
        return {**tagged, "unset": unset} if unset else tagged

    def reference(self, value: Any) -> dict[str, Any]:
        """Write a value that is loaded afresh when it is read."""
        kind = references.find(value)
        if kind is None or not self.objects:
            raise refusal(value)
        return {"$": kind.name, **{name: self.write(part) for name, part in kind.write(value).items()}}


def is_text(key: object) -> bool:
    """Tell whether a key can be one of a JSON object."""
    return isinstance(key, str) and not isinstance(key, enum.Enum)


def _key_place(key: object) -> str:
    return f"[{reprlib.repr(key)}]"


def _text_place(key: str) -> str:
    return f"[{dump(str.__str__(key)[:60])}]"


_Write = Callable[[Writer, Any], Any]


def _tagged(name: str, write: _Write) -> _Write:
    return lambda writer, value: {"$": name, "v": write(writer, value)}


def _leaf(tag: tags.Tag) -> _Write:
    return lambda writer, value: {"$": tag.name, **tag.write(value)}


# Subclasses are looked up in this order: a datetime is a date too.
_WRITERS: dict[type, _Write] = {
    str: Writer.text,
    **{tag.type: _leaf(tag) for tag in tags.LEAVES},
    int: lambda writer, value: tags.write_int(value),
    float: lambda writer, value: tags.write_float(value),
    bool: lambda writer, value: value,
    type(None): lambda writer, value: value,
    dict: Writer.mapping,
    list: Writer.items,
    tuple: _tagged("tuple", Writer.items),
    set: _tagged("set", Writer.sorted_items),
    frozenset: _tagged("frozenset", Writer.sorted_items),
}


def _find_writer(value: object) -> _Write:
    if classes.is_object_class(type(value)):
        return Writer.instance
    if references.find(value) is not None:
        return Writer.reference
    # Django's request.POST is a dictionary whose items() keep only the last of several values.
    if hasattr(type(value), "getlist"):
        raise refusal(value)
    for base, write in _WRITERS.items():
        if isinstance(value, base):
            return write
    raise refusal(value)


class Reader:
    """Reads one recorded structure back."""

    __slots__ = ("hint", "named")

    def __init__(self, hint: Hint | None) -> None:
        self.hint = hint
        self.named: dict[str, type] | None = None

    def read(self, data: Any) -> Any:
        """Read a structure of any type."""
        if isinstance(data, list):
            return self.items(data)
        if not isinstance(data, dict):
            return data
        if "$" in data:
            return _READERS.get(data["$"], Reader.reference)(self, data)
        return {key: self.read(item) for key, item in data.items()}

    def items(self, data: list[Any]) -> list[Any]:
        """Read the items of a list, a tuple or a set."""
        return [self.read(item) for item in data]

    def instance(self, data: dict[str, Any]) -> Any:
        """Read an enum member or another object."""
        return classes.build(self.find(data["t"]), self.read(data["v"]), data.get("unset", ()))

    def reference(self, data: dict[str, Any]) -> Any:
        """Load what the structure refers to."""
        return references.load(data["$"], {name: self.read(part) for name, part in data.items() if name != "$"})

    def find(self, name: str) -> type:
        """Return the class of a dotted path, among those registered and those of the hint."""
        cls = classes.registered(name) or self.in_hint().get(name)
        if cls is None:
            raise Unstorable(
                f"a value of class {name} cannot be read back: its class is not known here",
                "Name the class in the return annotation of the step's function, or call register_type on it",
            )
        return cls

    def in_hint(self) -> dict[str, type]:
        """Return the classes that the hint names, by dotted path; the hint is asked once."""
        if self.named is None:
            self.named = classes.known_in(self.hint()) if self.hint else {}
        return self.named


def _read_leaf(tag: tags.Tag) -> _Read:
    return lambda reader, data: tag.read(data)


_Read = Callable[[Reader, dict[str, Any]], Any]
_READERS: dict[str, _Read] = {
    **{tag.name: _read_leaf(tag) for tag in tags.LEAVES},
    "tuple": lambda reader, data: tuple(reader.items(data["v"])),
    "set": lambda reader, data: set(reader.items(data["v"])),
    "frozenset": lambda reader, data: frozenset(reader.items(data["v"])),
    "dict": lambda reader, data: {reader.read(key): reader.read(item) for key, item in data["v"]},
    "obj": Reader.instance,
}
