"""Which store works on the durable database: that of PostgreSQL, or the one for every other database."""

from __future__ import annotations

from django.db import connections

from ...conf import cached_setting
from .contract import Store
from .portable.store import PortableStore
from .transactions import alias


@cached_setting
def get_store() -> Store:
    """Return the store of the durable database."""
    name = alias()
    if connections[name].vendor == "postgresql":
        # Only here, because its module needs the driver.
        from .postgresql.store import PostgreSQLStore

        return PostgreSQLStore(name)
    return PortableStore(name)
