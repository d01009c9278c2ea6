"""How does a project test its durable functions?"""

from __future__ import annotations

from .histories import OpenStep, Report, replay_history

__all__ = ["OpenStep", "Report", "replay_history"]
