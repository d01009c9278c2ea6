"""``step.wait_for_event``: a wait is registered under a lock that closes every gap, or settled by a stored event."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from ...codecs import match_secrets
from ...core import clock
from ...core.events.conditions import MatchRule
from ...core.events.events import pattern_matches
from ...core.events.match_keys import UNINDEXED, UNMATCHABLE
from ...core.replay.operations import Memo, StepStatus, WaitForEvent
from ...exceptions import CodecError, EncodingError, EvaluationFailed, InvalidStep
from ...models import Wait
from ..events import index
from ..store import stored_events
from ..store.page_sizes import first_page
from ..store.rows import Claim, EventRow, StepRow, WaitRow
from ..store.stores import get_store
from .opening import PendingStep
from .turn_context import TurnContext

PAGE = 500  #: events read at once


def begin(turn: TurnContext, op: WaitForEvent, memo: Memo | None) -> PendingStep:
    """Return how the event is waited for; InvalidPath if the run's trigger lacks the path to match."""
    now = clock.now()
    lookback = plan(turn.lease.claim, op, turn.history.values(), now)
    asked = _asked(op)
    return PendingWait(
        row=StepRow.of(op, StepStatus.WAITING, now, input=asked, next_at=now + op.timeout),
        kind="event",
        text=f"event {asked}",
        waits=[_wait(op, pattern, lookback, now) for pattern in op.patterns],
        reads=frozenset(op.patterns),
        lookback=lookback,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingWait(PendingStep):
    """A wait for an event, which an event that is stored already may settle at once."""

    lookback: Lookback

    def prepare(self) -> None:
        """Give every stored event of the names its key for the path to match."""
        index.prepare_paths(self.lookback.patterns, self.lookback.rule.index_path)

    def settled_now(self, turn: TurnContext) -> Memo | None:
        """Record a stored event that resolves the wait, and return the memo."""
        found = find_stored(self.lookback)
        if found is None:
            return None
        settled = dataclasses.replace(self.row, status=StepStatus.COMPLETED, event_id=found.id, finished_at=clock.now())
        return turn.lease.record(settled, event=stored_events.event_of(found))


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookback:
    """The condition on stored events that resolve a wait at once."""

    patterns: Sequence[str]
    rule: MatchRule
    keys: Sequence[bytes]  #: by every secret of the hashes; the first one is for new waits
    trigger: dict[str, Any]  #: the run's trigger, as expressions see it
    after: tuple[datetime.datetime, UUID]  #: in the order of ingest
    received_since: datetime.datetime | None
    used: frozenset[str]  #: ids of events that resolved a wait of this step's id already


def find_stored(lookback: Lookback) -> EventRow | None:
    """Return the earliest stored event that resolves the wait. Call it with the names locked."""
    if UNMATCHABLE in lookback.keys:
        return None
    for row in _stored_candidates(lookback):
        if str(row.id) not in lookback.used and _resolves(lookback, row):
            return row
    return None


def _resolves(lookback: Lookback, row: EventRow) -> bool:
    # Databases compare names as their collations do: SQLite finds "Shop/paid" under "shop/*".
    if not any(pattern_matches(pattern, row.name) for pattern in lookback.patterns):
        return False
    if lookback.received_since is not None and row.received_at < lookback.received_since:
        return False
    try:
        return lookback.rule.matches(lookback.trigger, stored_events.document(row))
    except (EvaluationFailed, CodecError, EncodingError):
        return False


def _stored_candidates(lookback: Lookback) -> Iterator[EventRow]:
    """Yield stored events in the order of ingest, page by page: those under the key, or all events of the names."""
    after = lookback.after
    while True:
        page, more = _stored_page(lookback, after)
        yield from page
        if not more:
            return
        after = (page[-1].ingested_at or after[0], page[-1].id)


def _stored_page(lookback: Lookback, after: tuple[datetime.datetime, UUID]) -> tuple[Sequence[EventRow], bool]:
    if UNINDEXED in lookback.keys:
        rows = index.named(lookback.patterns).filter(stored_events.later_than(after)).order_by("ingested_at", "id")
        found, more = first_page(rows, "data", "user", page=PAGE)
        return [stored_events.event_row(event) for event in found], more
    path, keys = lookback.rule.index_path, lookback.keys
    return get_store().stored_under(lookback.patterns, path, keys, after=after, limit=PAGE)


def plan(claim: Claim, op: WaitForEvent, history: Iterable[Memo], planned_at: datetime.datetime) -> Lookback:
    """Return the look-back of *op*; InvalidPath if the run's trigger lacks the path to match."""
    trigger = stored_events.trigger_of(claim)
    document = stored_events.document(trigger)
    return Lookback(
        patterns=op.patterns,
        rule=op.rule,
        keys=[op.rule.key_for(document, secret) for secret in match_secrets()],
        trigger=document,
        after=(claim.looks_back_to or claim.created_at, trigger.id),
        received_since=_received_since(op, history, planned_at),
        used=frozenset(memo.event.id for memo in history if memo.name == op.ref.name and memo.event and memo.event.id),
    )


def _received_since(
    op: WaitForEvent, history: Iterable[Memo], planned_at: datetime.datetime
) -> datetime.datetime | None:
    if op.lookback is True:
        return None
    if op.lookback is False:
        return planned_at
    if isinstance(op.lookback, datetime.timedelta):
        return planned_at - op.lookback
    name = op.lookback.removeprefix("since:")
    finished = [memo.finished_at for memo in history if memo.name == name and memo.settled and memo.finished_at]
    if not finished:
        raise InvalidStep(op.ref.name, str(op.ref.where), f"lookback={op.lookback!r} names no step that has finished")
    return max(finished)


def _asked(op: WaitForEvent) -> str:
    condition = op.rule.condition.source if op.rule.condition else ""
    return " ".join(filter(None, [", ".join(op.patterns), op.rule.match and f"match {op.rule.match}", condition]))


def _wait(op: WaitForEvent, pattern: str, lookback: Lookback, planned_at: datetime.datetime) -> WaitRow:
    return WaitRow(
        key=op.ref.key,
        kind=Wait.Kind.EVENT,
        name=pattern,
        match_key=lookback.keys[0],
        created_at=planned_at,
        match=op.rule.match or "",
        expression=op.rule.condition.source if op.rule.condition else "",
        since=lookback.received_since,
        expires_at=planned_at + op.timeout,
    )
