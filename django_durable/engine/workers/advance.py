"""Advance one run, or branches of it, that this worker has claimed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ...core.functions import registry
from ...core.functions.definitions import FunctionDefinition
from ...core.replay.interrupts import LeaseLost
from ..leases.crash_isolation import bulkhead
from ..leases.leases import Lease, never
from ..store.rows import MOST_CRASHES
from ..turns import poison, versions
from ..turns.async_turns import AsyncTurn
from ..turns.turns import Turn
from .side_by_side import run_side_by_side


def no_more() -> None:
    """Give no further run."""


def advance(lease: Lease, should_stop: Callable[[], bool] = never) -> None:
    """Take a claimed run as far as it goes now; *should_stop* is asked before each step.

    The caller goes on with the runs that this leaves ready in the run's own queue.

    Raises the error that broke the engine itself, with the run given back to its queue where that is still possible.
    """
    with bulkhead().of(lease, should_stop) as may_go_on:
        if not may_go_on:
            return lease.give_back()
        function = _function_to_run(lease)
        if function is not None:
            kind = poison.DiagnosingTurn if _is_poisoned(lease) else Turn
            with kind(lease, function, should_stop) as turn:
                turn.run()
    return None


def advance_async(
    lease: Lease, claim: Callable[[], Lease | None] = no_more, should_stop: Callable[[], bool] = never
) -> None:
    """Take a claimed run of an async function as far as it goes now, and beside it the others that *claim* gives."""

    def prepare(lease: Lease) -> AsyncTurn | None:
        function = _function_to_run(lease)
        if function is None:
            return None
        kind = poison.AsyncDiagnosingTurn if _is_poisoned(lease) else AsyncTurn
        return kind(lease, function, should_stop)

    run_side_by_side(lease, prepare, claim, should_stop)


def _is_poisoned(lease: Lease) -> bool:
    return lease.claim.crashes >= MOST_CRASHES


def _function_to_run(lease: Lease) -> FunctionDefinition[Any, Any] | None:
    """Return the run's function; None if the code lacks it or differs, the run failed, or the claim is lost."""
    claim = lease.claim
    function = registry.get(claim.function_id)
    with suppress(LeaseLost):  # The worker that took the run goes on with it.
        if function is None:
            versions.leave_to_others(lease)
        elif claim.crashes > MOST_CRASHES or (claim.key and _is_poisoned(lease)):
            poison.fail(lease)
        elif versions.may_go_on(lease, function):
            return function
    return None
