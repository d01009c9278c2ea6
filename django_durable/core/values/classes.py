"""Classes that a recorded value may become again: those of an annotation, and those registered.

A dotted path from the database never imports anything.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import typing
from collections.abc import Collection, Iterable, Iterator
from typing import Any, TypeVar

from ...exceptions import ConfigurationError
from .pydantic_msgspec import library_of, rebuild
from .tags import Unstorable

T = TypeVar("T")

_registered: dict[str, type] = {}


def register_type(cls: type[T], *, formerly: Iterable[str] = ()) -> type[T]:
    """Let recorded values of a class be read back without an annotation; see :func:`is_object_class` for the classes.

    *formerly* lists dotted paths that the class had before it was moved or renamed. Also usable as a decorator.
    Raises ConfigurationError for any other class.

    Example::

        @register_type
        @dataclass
        class Quote: ...
    """
    if not (isinstance(cls, type) and is_object_class(cls)):
        raise ConfigurationError(
            "register_type takes an enum, a dataclass or a NamedTuple, a pydantic model or a msgspec Struct, "
            f"not {cls!r}"
        )
    for name in (class_name(cls), *formerly):
        _registered[name] = cls
    return cls


def is_registered(cls: type) -> bool:
    """Tell whether values of *cls* can be read back anywhere."""
    return _registered.get(class_name(cls)) is cls


def registered(name: str) -> type | None:
    """Return the registered class of that dotted path."""
    return _registered.get(name)


def class_name(cls: type) -> str:
    """Return the dotted path of a class, as it is stored."""
    return f"{cls.__module__}.{cls.__qualname__}"


def is_object_class(cls: type) -> bool:
    """Tell whether values of *cls* are stored with the name of their class.

    These are enums, dataclasses, NamedTuples, models of pydantic and structs of msgspec.
    """
    if issubclass(cls, enum.Enum) or dataclasses.is_dataclass(cls) or is_namedtuple(cls):
        return True
    return library_of(cls) is not None


def is_namedtuple(cls: type) -> bool:
    """Tell whether *cls* is a NamedTuple."""
    return issubclass(cls, tuple) and hasattr(cls, "_fields") and hasattr(cls, "_field_defaults")


def parts_of(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the fields of an object that is not an enum member, by name."""
    cls = type(value)
    library = None if dataclasses.is_dataclass(cls) else library_of(cls)
    if library is not None:
        return library.parts(value)
    return ((name, getattr(value, name)) for name in field_names(cls))


def field_names(cls: Any) -> tuple[str, ...]:
    """Return the names of the fields of a dataclass or a NamedTuple."""
    return tuple(cls._fields if is_namedtuple(cls) else (field.name for field in dataclasses.fields(cls)))


def unset_in(value: Any) -> list[str]:
    """Return the names of the fields that an object has by default only; pydantic tells these apart."""
    library = library_of(type(value))
    return library.unset(value) if library else []


def classes_in(annotation: object) -> dict[str, type]:
    """Return the classes named anywhere in an annotation, in the fields of these classes too, by dotted path."""
    seen: dict[int, object] = {}
    todo = [annotation]
    while todo:
        part = todo.pop()
        if id(part) not in seen:
            seen[id(part)] = part
            todo.extend(_parts(part))
    return {class_name(part): part for part in seen.values() if isinstance(part, type) and is_object_class(part)}


_remembered = functools.lru_cache(maxsize=512)(classes_in)


def known_in(annotation: object) -> dict[str, type]:
    """Return the classes of :func:`classes_in`, remembered: no caller may change the result."""
    try:
        return _remembered(annotation)
    except TypeError:  # an annotation that cannot be hashed, for what Annotated adds to it
        return classes_in(annotation)


def _parts(annotation: object) -> Iterator[object]:
    if isinstance(annotation, list):
        # The parameters of a Callable.
        yield from annotation
        return
    if isinstance(annotation, enum.Enum):
        yield type(annotation)
    if isinstance(annotation, type):
        yield from _field_types(annotation)
    yield typing.get_origin(annotation)
    yield from typing.get_args(annotation)
    # NewType, TypeVar and the type statement of Python 3.12.
    yield from (getattr(annotation, name, None) for name in ("__supertype__", "__bound__", "__value__"))


@functools.lru_cache(maxsize=512)
def _field_types(cls: type) -> tuple[object, ...]:
    library = library_of(cls)
    try:
        if library is not None:
            return tuple(library.annotations(cls))
        return tuple(typing.get_type_hints(cls).values()) if cls.__module__ != "builtins" else ()
    except (NameError, TypeError, AttributeError):
        # A field's type that was imported for type checkers only cannot be read here; such classes are registered.
        return ()


def build(cls: type, value: Any, unset: Collection[str] = ()) -> Any:
    """Make an object of its stored value; *unset* names fields that it had by default only.

    Fields that the class no longer has are ignored, new ones take their default. Models of pydantic and structs of
    msgspec check what they get, as they do when they are made of other data.
    """
    if issubclass(cls, enum.Enum):
        return cls(value)
    if is_namedtuple(cls):
        return _build_namedtuple(cls, value)
    library = None if dataclasses.is_dataclass(cls) else library_of(cls)
    if library is not None:
        return rebuild(library, cls, value, unset)
    return _build_dataclass(cls, value)


def _build_namedtuple(cls: Any, stored: dict[str, Any]) -> Any:
    values = {**cls._field_defaults, **stored}
    _check_complete(cls, [name for name in cls._fields if name not in values])
    return cls._make(values[name] for name in cls._fields)


def _build_dataclass(cls: Any, stored: dict[str, Any]) -> Any:
    fields = dataclasses.fields(cls)
    known = {field.name: stored[field.name] for field in fields if field.name in stored}
    _check_complete(cls, [field.name for field in fields if field.name not in known and needs_value(field)])
    value = cls(**{field.name: known[field.name] for field in fields if field.init and field.name in known})
    # The recorded fields are what __post_init__ made of them: it must not be applied to its own result.
    for name, part in known.items():
        object.__setattr__(value, name, part)
    return value


def needs_value(field: dataclasses.Field[Any]) -> bool:
    """Tell whether an object of a dataclass cannot be made without a value for this field."""
    return field.init and field.default is field.default_factory is dataclasses.MISSING


def _check_complete(cls: type, missing: list[str]) -> None:
    if missing:
        raise Unstorable(
            f"{class_name(cls)} has fields that the recorded value lacks: {', '.join(missing)}",
            "Give new fields a default, so that values recorded earlier can be read",
        )
