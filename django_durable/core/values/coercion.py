"""Plain data, turned into the types that an annotation names; every part that does not fit is listed.

Values that are already of the wanted type stay as they are, so that the same walk also checks data to be sent.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import enum
import reprlib
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from . import classes
from .tags import Unstorable

_Parse = Callable[[Any], Any]

# The types of JSON that may stand for a value of each type; a type that is missing here takes only its own values.
_PARSERS: dict[type, tuple[tuple[type, ...], _Parse]] = {
    float: ((int,), float),
    Decimal: ((int, str), Decimal),
    datetime: ((str,), datetime.fromisoformat),
    date: ((str,), date.fromisoformat),
    time: ((str,), time.fromisoformat),
    timedelta: ((int, float), lambda seconds: timedelta(seconds=seconds)),
    UUID: ((str,), UUID),
}
_SETS = (set, frozenset, collections.abc.Set)
_LISTS = (list, collections.abc.Sequence, collections.abc.Iterable, collections.abc.Collection)
_MAPPINGS = (dict, collections.abc.Mapping)
_OPTIONALITY = (typing.Required, typing.NotRequired)
_QUALIFIERS = {typing.Annotated, typing.Required, typing.NotRequired, typing.Final, typing.ClassVar}


def is_record(cls: object) -> bool:
    """Tell whether values of *cls* have named fields: a dataclass, NamedTuple, TypedDict or pydantic model."""
    if not isinstance(cls, type):
        return False
    return dataclasses.is_dataclass(cls) or classes.is_namedtuple(cls) or typing.is_typeddict(cls) or is_model(cls)


def is_model(cls: object) -> bool:
    """Tell whether *cls* is a pydantic model, which validates by itself."""
    return isinstance(cls, type) and hasattr(cls, "model_validate") and hasattr(cls, "model_dump")


def fields_of(value: Any) -> Any:
    """Return a dictionary of the fields of a dataclass, a NamedTuple or a pydantic model; other values as they are."""
    if is_model(type(value)):
        return value.model_dump()
    if classes.is_namedtuple(type(value)) or (dataclasses.is_dataclass(value) and not isinstance(value, type)):
        return {name: getattr(value, name) for name in classes.field_names(type(value))}
    return value


class Converter:
    """Turns plain data into the types of annotations; ``problems`` lists the parts that did not fit."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def convert(self, value: Any, annotation: Any, path: str = "") -> Any:
        """Return *value* as *annotation* asks for it; a part that does not fit is noted and left as it is."""
        annotation = _bare(annotation)
        if annotation is Any or annotation is object or isinstance(annotation, (typing.TypeVar, str)):
            return value
        if annotation is None or annotation is type(None):
            return value if value is None else self._misfit(value, "None", path)
        origin = typing.get_origin(annotation)
        if origin in (typing.Union, types.UnionType):
            return self._one_of(value, typing.get_args(annotation), path)
        if origin is typing.Literal:
            choices = typing.get_args(annotation)
            return value if value in choices else self._misfit(value, f"one of {', '.join(map(repr, choices))}", path)
        cls = origin or annotation
        return self._instance(value, cls, typing.get_args(annotation), path) if isinstance(cls, type) else value

    def _misfit(self, value: Any, wanted: str, path: str) -> Any:
        self.problems.append(f"{path or 'it'} must be {wanted}, not {reprlib.repr(value)}")
        return value

    def _one_of(self, value: Any, members: Iterable[Any], path: str) -> Any:
        """Return *value* as the first member that it fits; its own type counts before those it can turn into."""
        attempts: list[tuple[list[str], Any]] = []
        # "None" comes last, because the problems of a member that nearly fits say more.
        for member in sorted(members, key=lambda each: each is type(None)):
            attempt = Converter()
            converted = attempt.convert(value, member, path)
            if not attempt.problems and type(converted) is type(value):
                return converted
            attempts.append((attempt.problems, converted))
        fitting = [converted for problems, converted in attempts if not problems]
        if fitting:
            return fitting[0]
        self.problems += attempts[0][0]
        return value

    def _instance(self, value: Any, cls: Any, arguments: tuple[Any, ...], path: str) -> Any:
        if is_model(cls):
            return self._model(value, cls, path)
        if is_record(cls):
            return self._record(value, cls, path)
        if issubclass(cls, enum.Enum):
            return self._parsed(value, cls, cls, path)
        if issubclass(cls, tuple):
            return self._tuple(value, arguments, path)
        if issubclass(cls, _SETS) or cls in _LISTS:
            return self._items(value, cls, arguments, path)
        if cls in _MAPPINGS:
            return self._mapping(value, arguments, path)
        return self._scalar(value, cls, path)

    def _scalar(self, value: Any, cls: type, path: str) -> Any:
        # A bool is an int and a datetime is a date, but an annotation of int or date does not mean these.
        if isinstance(value, bool) and cls is not bool:
            return self._misfit(value, cls.__name__, path)
        if isinstance(value, cls) and not (cls is date and isinstance(value, datetime)):
            return value
        accepted, parse = _PARSERS.get(cls, ((), cls))
        return (
            self._parsed(value, cls, parse, path)
            if isinstance(value, accepted)
            else self._misfit(value, cls.__name__, path)
        )

    def _parsed(self, value: Any, cls: type, parse: _Parse, path: str) -> Any:
        try:
            return parse(value)
        except (ValueError, ArithmeticError, TypeError):
            return self._misfit(value, cls.__name__, path)

    def _items(self, value: Any, cls: Any, arguments: tuple[Any, ...], path: str) -> Any:
        if not isinstance(value, (list, tuple, set, frozenset)):
            return self._misfit(value, cls.__name__, path)
        item = arguments[0] if arguments else Any
        converted = [self.convert(each, item, f"{path}[{number}]") for number, each in enumerate(value)]
        return frozenset(converted) if cls is frozenset else set(converted) if issubclass(cls, _SETS) else converted

    def _tuple(self, value: Any, arguments: tuple[Any, ...], path: str) -> Any:
        if not isinstance(value, (list, tuple)):
            return self._misfit(value, "a tuple", path)
        wanted = arguments or (Any, ...)
        if wanted[-1] is ...:
            wanted = (wanted[0],) * len(value)
        if len(wanted) != len(value):
            return self._misfit(value, f"a tuple of {len(wanted)}", path)
        pairs = enumerate(zip(value, wanted, strict=True))
        return tuple(self.convert(each, item, f"{path}[{number}]") for number, (each, item) in pairs)

    def _mapping(self, value: Any, arguments: tuple[Any, ...], path: str) -> Any:
        if not isinstance(value, Mapping):
            return self._misfit(value, "a dictionary", path)
        key_type, item_type = arguments or (Any, Any)
        return {
            self.convert(key, key_type, f"{path}[{key!r}]"): self.convert(item, item_type, f"{path}[{key!r}]")
            for key, item in value.items()
        }

    def _record(self, value: Any, cls: Any, path: str) -> Any:
        is_made = not typing.is_typeddict(cls) and isinstance(value, cls)
        given = fields_of(value) if is_made else value
        if not isinstance(given, Mapping):
            return self._misfit(value, cls.__name__, path)
        known = len(self.problems)
        hints, prefix = _hints(cls), f"{path}." if path else ""
        names = [name for name in _names(cls) if name in given]
        parts = {name: self.convert(given[name], hints.get(name, Any), prefix + name) for name in names}
        self.problems += [f"{prefix}{name} is missing" for name in _required(cls) if name not in given]
        if is_made or len(self.problems) > known:
            return value
        return {**given, **parts} if typing.is_typeddict(cls) else self._built(cls, parts, path)

    def _built(self, cls: Any, parts: dict[str, Any], path: str) -> Any:
        try:
            return classes.build(cls, parts)
        except (ValueError, TypeError, Unstorable) as error:
            self.problems.append(f"{path}: {error}" if path else str(error))
            return parts

    def _model(self, value: Any, cls: Any, path: str) -> Any:
        try:
            return cls.model_validate(value)
        except ValueError as error:
            details: Any = error.errors() if hasattr(error, "errors") else [{"loc": (), "msg": str(error)}]
        for each in details:
            where = ".".join(str(part) for part in (*filter(None, [path]), *each["loc"]))
            self.problems.append(f"{where}: {each['msg']}" if where else str(each["msg"]))
        return value


def _bare(annotation: Any) -> Any:
    """Return the type that an annotation stands for, without NewType, a type's alias, Annotated and the like."""
    while True:
        if typing.get_origin(annotation) in _QUALIFIERS:
            annotation = typing.get_args(annotation)[0]
        elif hasattr(annotation, "__supertype__"):
            annotation = annotation.__supertype__
        elif type(annotation).__name__ == "TypeAliasType":
            annotation = annotation.__value__
        else:
            return annotation


def _hints(cls: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(cls)
    except (NameError, TypeError, AttributeError):
        # A field's type that was imported for type checkers only cannot be read here: any value will do.
        return {}


def _names(cls: Any) -> Iterable[str]:
    return cls.__annotations__.keys() if typing.is_typeddict(cls) else classes.field_names(cls)


def _required(cls: Any) -> Iterable[str]:
    if typing.is_typeddict(cls):
        return [name for name in cls.__annotations__ if _is_required_key(cls, name)]
    if classes.is_namedtuple(cls):
        return [name for name in cls._fields if name not in cls._field_defaults]
    return [field.name for field in dataclasses.fields(cls) if classes.needs_value(field)]


def _is_required_key(cls: Any, name: str) -> bool:
    # In a module with "from __future__ import annotations", TypedDict itself does not see these two.
    try:
        qualifier = typing.get_origin(typing.get_type_hints(cls, include_extras=True)[name])
    except (NameError, TypeError, AttributeError):
        qualifier = None
    return name in cls.__required_keys__ if qualifier not in _OPTIONALITY else qualifier is typing.Required
