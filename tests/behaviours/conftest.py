"""What the tests of behaviours may take: the engine, and people who look at the admin."""

from __future__ import annotations

from tests.admin.conftest import staff
from tests.engine.conftest import engine, on_postgresql, other_database, read_only, recorder

__all__ = ["engine", "on_postgresql", "other_database", "read_only", "recorder", "staff"]
