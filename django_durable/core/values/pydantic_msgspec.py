"""Models of pydantic and structs of msgspec, in projects that use these: how a value is taken apart, and built again.

Neither library is imported here: a value of theirs exists only where the project has imported it.
"""

from __future__ import annotations

import functools
import inspect
import sys
import typing
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from .tags import Unstorable


@dataclass(frozen=True, slots=True)
class Library:
    """How values of a library's classes are taken apart and made again.

    *parts* gives a value's fields, *unset* the names of those that it only has by default, *annotations* the types of a
    class's fields; *build* makes a value of its fields and of the names of the unset ones, and checks them.
    """

    parts: Callable[[Any], Iterator[tuple[str, Any]]]
    unset: Callable[[Any], list[str]]
    annotations: Callable[[Any], Iterable[object]]
    build: Callable[[Any, dict[str, Any], Collection[str]], Any]


def library_of(cls: type) -> Library | None:
    """Return how to treat values of *cls*; None if it is neither a model of pydantic nor a struct of msgspec."""
    if _derives(cls, "pydantic.main", "BaseModel"):
        return _PYDANTIC
    return _MSGSPEC if _derives(cls, "msgspec", "Struct") else None


def _derives(cls: type, module: str, name: str) -> bool:
    base = getattr(sys.modules.get(module), name, None)
    return base is not None and issubclass(cls, base)


def rebuild(library: Library, cls: type, stored: dict[str, Any], unset: Collection[str]) -> Any:
    """Build a value of *cls*; Unstorable, with the reasons, if the class does not take the stored fields."""
    try:
        return library.build(cls, stored, unset)
    except Exception as error:
        raise Unstorable(
            f"{cls.__module__}.{cls.__qualname__} does not take the recorded value: {_reasons(error)}",
            "Give new fields a default, and let the class take what it took before",
        ) from error


def _reasons(error: Exception) -> str:
    if not _derives(type(error), "pydantic_core", "ValidationError"):
        return str(error)
    # The values are left out: they do not belong in a log.
    found = error.errors(include_url=False, include_input=False, include_context=False)  # type: ignore[attr-defined]
    return "; ".join(f"{'.'.join(map(str, each['loc'])) or 'value'}: {each['msg']}" for each in found)


def _model_parts(model: Any) -> Iterator[tuple[str, Any]]:
    for name in type(model).model_fields:
        yield name, getattr(model, name)
    yield from (model.model_extra or {}).items()


def _model_unset(model: Any) -> list[str]:
    return [name for name in type(model).model_fields if name not in model.model_fields_set]


def _model_annotations(cls: Any) -> Iterator[object]:
    # The fields know what type variables stand for.
    return (field.annotation for field in cls.model_fields.values())


def _build_model(cls: Any, stored: dict[str, Any], unset: Collection[str]) -> Any:
    taken = cls.model_config.get("extra") == "allow"
    known = {name: part for name, part in stored.items() if taken or name in cls.model_fields}
    if _derives(cls, "pydantic.root_model", "RootModel"):
        model = cls.model_validate(known["root"])
    elif cls.__pydantic_custom_init__ or not _validates_by_name():
        # An __init__ of the class's own is called with the data alone, and reads it by alias.
        model = cls.model_validate({_alias(cls, name): part for name, part in known.items()})
    else:
        model = cls.model_validate(known, by_alias=False, by_name=True)
    for name in known.keys() & cls.model_fields.keys():
        model.__dict__[name] = _kept(known[name], model.__dict__[name])
    model.model_fields_set.difference_update(unset)
    return model


@functools.cache
def _validates_by_name() -> bool:
    # Since pydantic 2.11.
    return "by_name" in inspect.signature(sys.modules["pydantic.main"].BaseModel.model_validate).parameters


def _alias(cls: Any, name: str) -> str:
    alias = cls.model_fields[name].validation_alias if name in cls.model_fields else None
    choices = getattr(alias, "choices", [alias])
    return next((each for each in choices if isinstance(each, str)), name)


def _kept(stored: Any, made: Any) -> Any:
    """Return the stored field, unless the class has turned it into another type.

    A validator that changes a valid value, such as one that adds a suffix, must not change it once more.
    """
    return stored if isinstance(stored, type(made)) else made


_PYDANTIC = Library(_model_parts, _model_unset, _model_annotations, _build_model)


def _struct_parts(struct: Any) -> Iterator[tuple[str, Any]]:
    absent = sys.modules["msgspec"].UNSET
    parts = ((name, getattr(struct, name)) for name in struct.__struct_fields__)
    return ((name, part) for name, part in parts if part is not absent)


def _struct_annotations(cls: Any) -> Iterable[object]:
    # Resolved against the arguments of a generic struct, as get_type_hints would not.
    return typing.get_type_hints(cls).values()


def _build_struct(cls: Any, stored: dict[str, Any], unset: Collection[str]) -> Any:
    msgspec = sys.modules["msgspec"]
    names = [name for name in cls.__struct_fields__ if name in stored]
    shown = dict(zip(cls.__struct_fields__, cls.__struct_encode_fields__, strict=True))
    # From attributes: a field may hold a struct of a class derived from the field's.
    struct = msgspec.convert({shown[name]: stored[name] for name in names}, cls, from_attributes=True)
    for name in names:
        msgspec.structs.force_setattr(struct, name, _kept(stored[name], getattr(struct, name)))
    return struct


_MSGSPEC = Library(_struct_parts, lambda struct: [], _struct_annotations, _build_struct)
