"""The statements that must be fast, behind one contract."""

from __future__ import annotations

import functools

from django import db

from .portable.runs import Store
from .transactions import alias


def get_store() -> Store:
    """Return the store of the durable database."""
    name = alias()
    return _store(name, db.connections[name].vendor)


@functools.cache
def _store(name: str, vendor: str) -> Store:
    if vendor == "postgresql":
        from .postgresql.store import PostgreSQLStore

        return PostgreSQLStore(name)
    return Store(name)
