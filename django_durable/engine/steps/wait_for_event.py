"""Waits for events: registered under a lock that closes every gap, found by index, settled by whoever comes first."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID

from ...codecs import match_secrets, reason
from ...core import clock
from ...core.events.conditions import MatchRule, match_rule
from ...core.events.events import pattern_matches
from ...core.events.match_keys import UNINDEXED, UNMATCHABLE
from ...core.replay.operations import Memo, StepStatus, WaitForEvent
from ...exceptions import CodecError, DurableError, EncodingError, EvaluationFailed, InvalidExpression, InvalidStep
from ...managers import DatabaseNow
from ...models import MatchFailure, Wait
from ..events import index
from ..events.index import IndexedEvent
from ..store import stored_events
from ..store.page_sizes import first_page
from ..store.portable.lookups import later_than
from ..store.rows import Claim, EventRow, OpenWait, PendingStep, Resolution, StepRow, WaitRow
from ..store.stores import get_store

if TYPE_CHECKING:
    from ..turns.turns import Turn

PAGE = 500  #: events or waits read at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookback:
    """Which stored events resolve a wait at once."""

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
    """Yield stored events in the order of ingest, page by page: those of the key, or all of the names."""
    after = lookback.after
    while True:
        page, more = _stored_page(lookback, after)
        yield from page
        if not more:
            return
        after = (page[-1].ingested_at or after[0], page[-1].id)


def _stored_page(lookback: Lookback, after: tuple[datetime.datetime, UUID]) -> tuple[Sequence[EventRow], bool]:
    if UNINDEXED in lookback.keys:
        rows = index.named(lookback.patterns).filter(later_than(after)).order_by("ingested_at", "id")
        found, more = first_page(rows, "data", "user", page=PAGE)
        return [stored_events.event_row(event) for event in found], more
    path, keys = lookback.rule.index_path, lookback.keys
    return get_store().stored_under(lookback.patterns, path, keys, after=after, limit=PAGE)


def plan(claim: Claim, op: WaitForEvent, history: Iterable[Memo], planned_at: datetime.datetime) -> Lookback:
    """Return what *op* looks back for; InvalidPath if the run's trigger lacks the path to match."""
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


def opening(turn: Turn, op: WaitForEvent, now: datetime.datetime) -> PendingStep:
    """Return the opening of a wait; InvalidPath if the run's trigger lacks the path to match."""
    lookback = plan(turn.claim, op, turn.history.values(), now)
    row = StepRow.of(op, StepStatus.WAITING, now, input=_asked(op), next_at=now + op.timeout)
    waits = [_wait(op, pattern, lookback, now) for pattern in op.patterns]
    return PendingStep(row=row, kind="event", text=f"event {_asked(op)}", waits=waits, op=op, lookback=lookback)


def look_back(turn: Turn, op: WaitForEvent, lookback: Lookback, row: StepRow) -> Memo | None:
    """Record a stored event that resolves the wait, and return the memo. Call it with the names locked."""
    found = find_stored(lookback)
    if found is None:
        return None
    settled = dataclasses.replace(row, status=StepStatus.COMPLETED, event_id=found.id, finished_at=clock.now())
    return turn.record(settled, event=stored_events.event_of(found))


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


@dataclass(slots=True)
class Matches:
    """What a batch of arriving events does to open waits: to each step by the first event that fits."""

    found: dict[tuple[UUID, bytes], tuple[int, UUID]] = field(default_factory=dict)
    failures: list[MatchFailure] = field(default_factory=list)

    def add(self, wait: OpenWait, position: int, event_id: UUID) -> None:
        """Note that an event, the *position*-th of the batch, resolves the wait."""
        step = (wait.run_id, wait.key or b"")
        # A step that waits for several names has a wait for each.
        self.found[step] = min(self.found.get(step, (position, event_id)), (position, event_id))

    @property
    def resolutions(self) -> list[Resolution]:
        """What the batch settles, in its order."""
        in_order = sorted(self.found.items(), key=lambda item: item[1][0])
        return [Resolution(run_id=run_id, key=key, event_id=event_id) for (run_id, key), (_, event_id) in in_order]


def match(arrived: Sequence[IndexedEvent]) -> Matches:
    """Return which open waits these events resolve: each wait by the first of them that fits it."""
    by_key: dict[tuple[str, bytes], list[tuple[int, IndexedEvent]]] = {}
    for numbered in enumerate(arrived):
        for key in numbered[1].wanted:
            by_key.setdefault(key, []).append(numbered)
    matches = Matches()
    for wait in _candidates(by_key):
        _match_wait(wait, by_key.get((wait.name, wait.match_key), ()), matches)
    return matches


def _candidates(keys: Collection[tuple[str, bytes]]) -> Iterator[OpenWait]:
    """Yield open waits under these keys, page by page."""
    after = 0
    while True:
        page, more = get_store().open_waits(keys, after=after, limit=PAGE)
        yield from page
        if not more:
            return
        after = page[-1].id


def _match_wait(wait: OpenWait, arrived: Iterable[tuple[int, IndexedEvent]], matches: Matches) -> None:
    in_time = [(position, arrival) for position, arrival in arrived if _came_in_time(wait, arrival.row)]
    try:
        trigger = stored_events.document(stored_events.trigger_of_wait(wait))
    except (CodecError, EncodingError) as error:
        matches.failures.extend(_failure(wait, arrival.row, error) for _, arrival in in_time)
        return
    for position, arrival in in_time:
        try:
            if match_rule(wait.match or None, wait.expression or None).matches(trigger, arrival.document):
                return matches.add(wait, position, arrival.row.id)
        except (EvaluationFailed, InvalidExpression) as error:
            matches.failures.append(_failure(wait, arrival.row, error))


def _came_in_time(wait: OpenWait, row: EventRow) -> bool:
    too_early = wait.since is not None and row.received_at < wait.since
    too_late = wait.expires_at is not None and row.received_at > wait.expires_at
    return not too_early and not too_late


def _failure(wait: OpenWait, row: EventRow, error: DurableError) -> MatchFailure:
    return MatchFailure(
        event_id=row.id,
        run_id=wait.run_id,
        expression=wait.expression or wait.match,
        reason=reason(error),
        created_at=DatabaseNow(),
    )
