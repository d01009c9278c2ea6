"""Which open waits do arriving events resolve? Each wait by the first event that fits it, found by its key."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from ...codecs import reason
from ...core.events.conditions import match_rule
from ...exceptions import CodecError, DurableError, EncodingError, EvaluationFailed, InvalidExpression
from ...managers import DatabaseNow
from ...models import MatchFailure
from ..events.index import IndexedEvent
from ..store import stored_events
from ..store.rows import EventRow, OpenWait, Resolution
from ..store.stores import get_store

PAGE = 500  #: waits read at once


@dataclass(slots=True)
class Matches:
    """The open waits that a batch of arriving events resolves, each step by the first event that fits."""

    found: dict[tuple[UUID, bytes], tuple[int, UUID]] = field(default_factory=dict)
    failures: list[MatchFailure] = field(default_factory=list)

    def add(self, wait: OpenWait, position: int, event_id: UUID) -> None:
        """Note that an event, the *position*-th of the batch, resolves the wait."""
        step = (wait.run_id, wait.key or b"")
        # A step that waits for several names has a wait for each.
        self.found[step] = min(self.found.get(step, (position, event_id)), (position, event_id))

    @property
    def resolutions(self) -> list[Resolution]:
        """The resolutions, in the order of the batch."""
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
