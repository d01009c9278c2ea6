from __future__ import annotations

import io
import pathlib
from collections import deque
from types import MappingProxyType
from typing import Any

import pytest

from django_durable.core.values.encoding import encode
from django_durable.exceptions import EncodingError


class Model:
    """Looks like a Django model: the core does not import Django."""

    _meta = object()
    pk = 7


class LazyObject:
    """Stands for another object, as Django's request.user does."""

    __class__ = Model  # type: ignore[assignment]


class QuerySet:
    def iterator(self) -> Any: ...
    def using(self, alias: str) -> Any: ...
    def __iter__(self) -> Any: ...


class QueryDict(dict[str, Any]):
    def getlist(self, key: str) -> list[Any]:
        return []


class LazyText:
    def _proxy____cast(self) -> str:
        return ""


class Array:
    def tolist(self) -> list[Any]:
        return []


class Schema:
    def model_dump(self) -> dict[str, Any]:
        return {}


async def later() -> None: ...


@pytest.mark.parametrize(
    ("value", "remedy"),
    [
        (Model(), "value.pk"),
        (LazyObject(), "value.pk"),
        (Model, "Return its name, or an instance"),
        (QuerySet(), 'list(queryset.values_list("pk", flat=True))'),
        (QueryDict(a=1), "value.dict()"),
        (io.StringIO(), "Return its path or its content"),
        ((number for number in ()), "list(value)"),
        (iter([]), "list(value)"),
        (len, "Call it and return its result"),
        (lambda: None, "Call it and return its result"),
        (io, "Return its name"),
        (LazyText(), "str(value)"),
        (ValueError("x"), "str(error)"),
        (bytearray(), "bytes(value)"),
        (memoryview(b""), "bytes(value)"),
        (pathlib.Path("x"), "str(value)"),
        (Array(), "value.tolist()"),
        (Schema(), "value.model_dump()"),
        (range(3), "list(value)"),
        (deque(), "list(value)"),
        ({}.keys(), "list(value)"),
        (MappingProxyType({}), "dict(value)"),
        (object(), "Return plain values"),
    ],
)
def test_the_remedy_fits_the_type(value: Any, remedy: str) -> None:
    with pytest.raises(EncodingError) as caught:
        encode([value])
    assert remedy in caught.value.remedy
    assert value.__class__.__qualname__ in caught.value.problem


def test_the_remedy_for_a_coroutine() -> None:
    coroutine = later()
    with pytest.raises(EncodingError, match="Await it"):
        encode(coroutine)
    coroutine.close()
