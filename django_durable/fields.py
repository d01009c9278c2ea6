"""Columns of hashes and names, which every database compares as they are written; and columns of payloads.

A payload is sealed when its row is written, and opened when the row is read. A payload that cannot be opened here is
given as it is stored, so that it harms no other row; :mod:`.codecs` says why when its value is needed. For migrations,
the columns of payloads are Django's own: a codec changes none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from django.db import models

from . import codecs
from .exceptions import CodecError

if TYPE_CHECKING:
    from django.db.backends.base.base import BaseDatabaseWrapper


def _opened(value: Any, opened_by: Callable[[Any], Any]) -> Any:
    try:
        return opened_by(value)
    except CodecError:
        return value


class HashField(models.BinaryField):  # type: ignore[type-arg]
    """Sixteen bytes, compared as bytes, so that no collation merges ``A`` and ``a``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["max_length"] = 16
        super().__init__(*args, **kwargs)

    def db_type(self, connection: BaseDatabaseWrapper) -> str | None:
        """Return a type that MySQL can index, which its usual type for bytes is not."""
        return "binary(16)" if connection.vendor == "mysql" else super().db_type(connection)

    def from_db_value(self, value: Any, expression: Any, connection: BaseDatabaseWrapper) -> bytes | None:
        """Return plain bytes on every database."""
        return None if value is None else bytes(value)


class NameField(models.CharField):  # type: ignore[type-arg]
    """Text that is compared as it is written: MySQL's usual collations take ``A`` and ``a`` for one name."""

    def db_parameters(self, connection: BaseDatabaseWrapper) -> Any:
        """Return the column's type, with a collation by code points on MySQL."""
        parameters = super().db_parameters(connection)
        return {**parameters, "collation": "utf8mb4_bin"} if connection.vendor == "mysql" else parameters


class PayloadField(models.TextField):  # type: ignore[type-arg]
    """JSON text."""

    def deconstruct(self) -> tuple[str, str, Any, Any]:
        """Describe the column to migrations as Django's own."""
        name, _, args, kwargs = super().deconstruct()
        return name, "django.db.models.TextField", args, kwargs

    def get_db_prep_save(self, value: Any, connection: BaseDatabaseWrapper) -> Any:
        """Return the sealed payload."""
        return super().get_db_prep_save(codecs.seal_text(value) if isinstance(value, str) else value, connection)

    def get_db_converters(self, connection: BaseDatabaseWrapper) -> list[Any]:
        """Add the converter that opens stored text; without a codec no row passes through one."""
        converters = super().get_db_converters(connection)
        return converters if codecs.get_codec() is None else [*converters, _open_text]


class PayloadJSONField(models.JSONField):
    """A JSON structure."""

    def deconstruct(self) -> tuple[str, str, Any, Any]:
        """Describe the column to migrations as Django's own."""
        name, _, args, kwargs = super().deconstruct()
        return name, "django.db.models.JSONField", args, kwargs

    def get_db_prep_save(self, value: Any, connection: BaseDatabaseWrapper) -> Any:
        """Return the sealed payload."""
        return super().get_db_prep_save(codecs.seal_data(value) if isinstance(value, dict) else value, connection)

    def get_db_converters(self, connection: BaseDatabaseWrapper) -> list[Any]:
        """Add the converter that opens stored structures; without a codec no row passes through one."""
        converters = super().get_db_converters(connection)
        return converters if codecs.get_codec() is None else [*converters, _open_data]


def _open_text(value: Any, expression: Any, connection: BaseDatabaseWrapper) -> Any:
    return _opened(value, codecs.open_text)


def _open_data(value: Any, expression: Any, connection: BaseDatabaseWrapper) -> Any:
    return _opened(value, codecs.open_data)
