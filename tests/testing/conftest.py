"""The engine, to record histories with."""

from __future__ import annotations

from tests.engine.conftest import engine

__all__ = ["engine"]
