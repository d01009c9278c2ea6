"""How a run goes on after the last pass of a turn: it ends, or waits for the next attempt of its handler."""

from __future__ import annotations

import datetime
import logging
from typing import Any

from ...core import clock
from ...core.replay.operations import NO_OPTIONS, StepKind
from ...core.replay.replay import Aborted, Completed, Outcome, Raised, Replay
from ...core.values import encoding
from ...core.values.errors import encode_error
from ...exceptions import EncodingError, is_final
from ...models import RunStatus, StepAttempt
from ..runs.end_events import RunEnd
from ..steps.run import retry_text
from ..steps.turn_context import TurnContext
from ..store.rows import AttemptRow, Parking

logger = logging.getLogger("django_durable")


def end_of(turn: TurnContext, replay: Replay, outcome: Outcome, started_at: datetime.datetime) -> RunEnd | Parking:
    """Return how the run ends by this outcome of its handler, or how it waits for the handler's next attempt."""
    if isinstance(outcome, Completed):
        return _completed(turn, replay, outcome.value, started_at)
    if isinstance(outcome, Raised):
        return _failed_or_retried(turn, outcome.error, started_at)
    assert isinstance(outcome, Aborted)  # the others do not end a run
    return _failed(turn, outcome.error)


def _completed(turn: TurnContext, replay: Replay, value: object, started_at: datetime.datetime) -> RunEnd | Parking:
    try:
        recorded = turn.hooks.encode(value) if turn.hooks.change_values else value
        output = encoding.encode(recorded, root="result", limit=turn.settings.max_payload)
    except EncodingError as error:
        return _failed(turn, error)
    except Exception as error:  # of a hook
        return _failed_or_retried(turn, error, started_at)
    unused = replay.unused()
    if unused:
        names = ", ".join(dict.fromkeys(memo.name for memo in unused))
        logger.warning("Run %s did not ask for steps it has recorded: %s", turn.lease.claim.run_id, names)
    return _end(turn, RunStatus.COMPLETED, output=output, unused=tuple(memo.key for memo in unused))


def _failed(turn: TurnContext, error: Exception) -> RunEnd:
    return _end(turn, RunStatus.FAILED, error=encode_error(error))


def _end(turn: TurnContext, status: RunStatus, **values: Any) -> RunEnd:
    opened = any(memo.kind is StepKind.GROUP and not memo.settled for memo in turn.history.values())
    return RunEnd(turn.lease.claim.run_id, status, has_branches=opened, **values)


def _failed_or_retried(turn: TurnContext, error: Exception, started_at: datetime.datetime) -> RunEnd | Parking:
    """Try the handler's own code again after its back-off; a step's final error is final for the run, too."""
    now, attempt, policy = clock.now(), turn.lease.attempt + 1, turn.policy_of(NO_OPTIONS)
    next_at = None if is_final(error) else policy.next_attempt(attempt, error, now)
    if next_at is None:
        return _failed(turn, error)
    failed = AttemptRow(
        key=None,
        name="",
        number=attempt,
        status=StepAttempt.Status.FAILED,
        started_at=started_at,
        finished_at=now,
        error=encode_error(error),
    )
    text = retry_text(attempt, policy, "the handler", error)
    return Parking(next_at=next_at, kind="retry", text=text, attempt=attempt, failed=failed)
