"""What is stored? Fields, constraints and indexes. Rows are written by :mod:`django_durable.engine` only."""

from __future__ import annotations

from ..core.functions.run_statuses import ENDED, LIVE, RunStatus
from ..core.replay.operations import StepKind, StepStatus
from .events import Event, EventId, EventKey, MatchPath
from .functions import Function
from .locks import Lock
from .runs import BatchedEvent, Run
from .steps import Step, StepAttempt
from .waits import MatchFailure, Wait

__all__ = [
    "ENDED",
    "LIVE",
    "BatchedEvent",
    "Event",
    "EventId",
    "EventKey",
    "Function",
    "Lock",
    "MatchFailure",
    "MatchPath",
    "Run",
    "RunStatus",
    "Step",
    "StepAttempt",
    "StepKind",
    "StepStatus",
    "Wait",
]
