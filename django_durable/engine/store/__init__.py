"""The statements that must be fast, behind one contract."""

from __future__ import annotations

import functools

from django.db import connections

from ..transactions import alias
from .base import Store


def get_store() -> Store:
    """Return the store of the durable database."""
    name = alias()
    return _store(name, connections[name].vendor)


@functools.cache
def _store(name: str, vendor: str) -> Store:
    if vendor == "postgresql":
        from .postgresql import PostgreSQLStore

        return PostgreSQLStore(name)
    return Store(name)
