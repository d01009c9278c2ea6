"""Locks that exclude others until a transaction ends."""

from __future__ import annotations

from collections.abc import Iterable

from django.db import connections

from ....models import Lock
from ..stored_events import digest
from .queries import Queries


class Locks(Queries):
    """Locks, in portable ORM."""

    def lock_names(self, names: Iterable[str], *, shared: bool) -> None:
        # SQLite's transactions exclude one another anyway. Elsewhere each name has a row, and rows cannot be shared.
        if connections[self.alias].vendor != "sqlite":
            self._lock_rows([f"name:{name}" for name in names])

    def lock_ingest(self) -> bool:
        if connections[self.alias].vendor == "sqlite":
            return True
        self._lock_rows(["ingest"])
        return True

    def _lock_rows(self, names: list[str]) -> None:
        # Hashed: a name may be as long as the column, and a collation may take two names for one: that only locks more.
        locks = [Lock(name=digest(name).hex()) for name in sorted(set(names))]
        Lock.objects.using(self.alias).bulk_create(locks, ignore_conflicts=True)
        list(self._locked(Lock.objects.using(self.alias).filter(name__in=[lock.name for lock in locks]), "name"))
