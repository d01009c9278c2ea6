"""Which store works on the durable database: that of PostgreSQL, or the one for every other database."""

from __future__ import annotations

import functools

from django.db import connections

from .portable.runs import Store
from .transactions import alias


def get_store() -> Store:
    """Return the store of the durable database."""
    name = alias()
    return _store(name, connections[name].vendor)


@functools.cache
def _store(name: str, vendor: str) -> Store:
    if vendor == "postgresql":
        # Only here, because its module needs the driver.
        from .postgresql.store import PostgreSQLStore

        return PostgreSQLStore(name)
    return Store(name)
