"""Columns that hold payloads: sealed when a row is written, opened when it is read.

What cannot be opened here is given as it is stored, so that it harms no other row; :mod:`.codecs` says why when it is
needed. The columns are Django's own: a codec changes no migration.
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
        """Return a type that MySQL can index: its usual one for bytes cannot be."""
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
        """Return Django's field."""
        name, _, args, kwargs = super().deconstruct()
        return name, "django.db.models.TextField", args, kwargs

    def get_db_prep_save(self, value: Any, connection: BaseDatabaseWrapper) -> Any:
        """Return what is stored."""
        return super().get_db_prep_save(codecs.seal_text(value) if isinstance(value, str) else value, connection)

    def get_db_converters(self, connection: BaseDatabaseWrapper) -> list[Any]:
        """Return what opens the stored text; nothing is asked of each row without a codec."""
        converters = super().get_db_converters(connection)
        return converters if codecs.get_codec() is None else [*converters, _open_text]


class PayloadJSONField(models.JSONField):
    """A JSON structure."""

    def deconstruct(self) -> tuple[str, str, Any, Any]:
        """Return Django's field."""
        name, _, args, kwargs = super().deconstruct()
        return name, "django.db.models.JSONField", args, kwargs

    def get_db_prep_save(self, value: Any, connection: BaseDatabaseWrapper) -> Any:
        """Return what is stored."""
        return super().get_db_prep_save(codecs.seal_data(value) if isinstance(value, dict) else value, connection)

    def get_db_converters(self, connection: BaseDatabaseWrapper) -> list[Any]:
        """Return what opens the stored structure; nothing is asked of each row without a codec."""
        converters = super().get_db_converters(connection)
        return converters if codecs.get_codec() is None else [*converters, _open_data]


def _open_text(value: Any, expression: Any, connection: BaseDatabaseWrapper) -> Any:
    return _opened(value, codecs.open_text)


def _open_data(value: Any, expression: Any, connection: BaseDatabaseWrapper) -> Any:
    return _opened(value, codecs.open_data)
