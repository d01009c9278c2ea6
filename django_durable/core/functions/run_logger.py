"""The logger of a handler's own code, silent while recorded steps are replayed, so that each line comes once."""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import Any

from ..replay.replay import Replay


class RunLogger(logging.LoggerAdapter[logging.Logger]):
    """Writes to ``django_durable.runs`` once the pass has come to the end of what is recorded.

    Each line has *extra* as extra fields, besides its own.
    """

    def __init__(self, replay: Replay, extra: dict[str, Any]) -> None:
        super().__init__(logging.getLogger("django_durable.runs"), extra)
        self._replay = replay

    def isEnabledFor(self, level: int) -> bool:
        """Tell whether a line of that level is written now."""
        return super().isEnabledFor(level) and not self._replay.is_replaying

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Add the run's fields to the line's own."""
        return msg, {**kwargs, "extra": {**(self.extra or {}), **kwargs.get("extra", {})}}
