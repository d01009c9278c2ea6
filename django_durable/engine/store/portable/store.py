"""The store for every database that Django has a backend for."""

from __future__ import annotations

from .branches import Branches
from .changes import Changes
from .claims import Claims
from .locks import Locks
from .lookups import Lookups
from .memos import Memos
from .scheduling import Scheduling
from .turn_writes import TurnWrites


class PortableStore(Claims, Memos, TurnWrites, Changes, Scheduling, Locks, Lookups, Branches):
    """The contract, in portable ORM."""
