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
