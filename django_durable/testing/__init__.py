"""What tests of durable functions use."""

from __future__ import annotations

from .histories import Asked, Report, replay_history

__all__ = ["Asked", "Report", "replay_history"]
