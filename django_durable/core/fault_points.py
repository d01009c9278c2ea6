"""Named points at which a test lets a fault happen; in production they are passed and do nothing.

Nothing in the package arms them: no setting, no variable of the environment, no row and no message. Only code that
calls :func:`inject` in this very process does, and the fault (a kill, an error, a pause) is that code's own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

POINTS: Mapping[str, str] = MappingProxyType(
    {
        "start.before_commit": "events are stored, their transaction is still open",
        "start.after_commit": "events are committed, no hint of them is out yet",
        "publish.before": "a hint is about to leave for the broker",
        "publish.after": "the broker has the hint",
        "match.mid": "ingest has started runs, and resolved no wait and marked no event yet",
        "match.after_commit": "events are ingested, no hint of the runs that became ready is out yet",
        "claim.after": "the claim of a run or a branch is committed, its handler has not run",
        "step.body": "the body of a step is about to run",
        "step.before_commit": "a memo is about to be written: the body, if the step has one, has returned",
        "step.after_commit": "the memo of a body is committed",
        "park.before": "the waits of a run are about to be written",
        "park.after": "the waits of a run are written, and committed unless more belongs to that transaction",
        "release.before": "a run or a branch is about to be given back to its queue",
        "run.before_end": "the handler has returned or failed for good, the end is not written",
        "run.after_end": "the end is committed, its signal has not been sent",
        "sweep.after_update": "the scheduler has put due rows off, and not announced them",
        "lease.before_renewal": "the heartbeat is about to renew leases",
    }
)

_injected: Callable[[str], None] | None = None


def point(name: str) -> None:
    """Pass the point of this name: one look at a global that is None unless a test runs."""
    if _injected is not None:
        _injected(name)


def inject(action: Callable[[str], None] | None) -> None:
    """Have *action* called with the name of each point that this process, or a fork of it, passes; None ends that."""
    global _injected
    _injected = action
