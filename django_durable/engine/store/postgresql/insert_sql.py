"""Statements that insert one row of a model: prepared, where those of the ORM are built and planned anew each time."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Field, Model

from ....managers import DatabaseNow
from ..portable.lookups import NOW


def statement(row: Model, connection: BaseDatabaseWrapper, *, ignore_conflicts: bool) -> tuple[str, dict[str, Any]]:
    """Return the statement that inserts *row*, and its parameters; columns without a value are left out."""
    moments: list[str] = []
    values: dict[str, Any] = {}
    for name, field in _fields(type(row)):
        value = getattr(row, name)
        if isinstance(value, DatabaseNow):
            moments.append(name)
            values[name] = value.later
        elif value is not None:
            values[name] = field.get_db_prep_save(value, connection)
    return _insert(row._meta.db_table, tuple(values), tuple(moments), ignore_conflicts), values


@lru_cache
def _fields(model: type[Model]) -> list[tuple[str, Field[Any, Any]]]:
    return [(field.attname, field) for field in model._meta.concrete_fields]


@lru_cache
def _insert(table: str, columns: tuple[str, ...], moments: tuple[str, ...], ignore_conflicts: bool) -> str:
    names = ", ".join(f'"{name}"' for name in columns)
    values = ", ".join(f"{NOW} + %({name})s" if name in moments else f"%({name})s" for name in columns)
    return f"""
INSERT INTO {table} ({names}) VALUES ({values}){" ON CONFLICT DO NOTHING" if ignore_conflicts else ""} RETURNING id
"""
