"""The few things that a step may ask of its turn."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from ...conf import Settings
    from ...core.functions.definitions import FunctionDefinition
    from ...core.functions.middleware import Hooks, RunContext
    from ...core.replay.operations import Memo, StepOptions
    from ...core.replay.replay import History, Replay
    from ...core.retries import RetryPolicy
    from ..leases.leases import Lease


class TurnContext(Protocol):
    """A turn, as steps see it; :class:`..turns.turns.Turn` is one."""

    lease: Lease  #: through which everything is written
    function: FunctionDefinition[Any, Any]
    history: History  #: what is recorded, by key
    settings: Settings
    hooks: Hooks

    @property
    def replay(self) -> Replay:
        """The pass that runs now."""

    @property
    def context(self) -> RunContext:
        """The run as hooks see it."""

    def policy_of(self, options: StepOptions) -> RetryPolicy:
        """Return how often and when attempts of a step with these options are made."""

    def must_give_way(self) -> bool:
        """Tell whether the turn is over at the next step."""

    def open_moments(self) -> Sequence[datetime.datetime]:
        """Return the moments at which the handler's other open steps end; a plain handler has none."""

    def switch(self, lease: Lease) -> None:
        """Go on with another branch."""

    def remember(self, memos: Iterable[Memo]) -> None:
        """Go on with what was recorded before."""
