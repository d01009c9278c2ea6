"""The store for PostgreSQL: what is hot takes one statement, one round trip and one commit; the rest is portable."""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Any
from uuid import UUID

from django.db import connections

from ....codecs import seal_text
from ....core.replay.operations import Memo
from ....models import Event, Run
from .. import page_sizes
from ..portable.scheduling import MOST_REHINTS
from ..portable.store import PortableStore
from ..rows import (
    LONGEST_TEXT,
    AttemptRow,
    BranchEnd,
    Claim,
    EndResult,
    EventRow,
    NextClaim,
    OpenWait,
    Parking,
    ReadyRun,
    Resolution,
    SchedulerView,
    StepRow,
    WaitRow,
)
from ..stored_events import Place, digest
from ..transactions import retried
from . import branch_sql, insert_sql, lookup_sql, prepared, results, run_sql, scheduler_sql


class PostgreSQLStore(PortableStore):
    """The contract, in single statements."""

    def __init__(self, alias: str) -> None:
        super().__init__(alias)
        self._rows = partial(prepared.rows, alias)

    # Claims

    @retried
    def claim(self, run_id: UUID, *, owner: str, lease: datetime.timedelta) -> Claim | None:
        rows = self._rows(run_sql.CLAIM, id=run_id, owner=owner, lease=lease)
        return results.claim(rows[0]) if rows else None

    @retried
    def claim_ready(
        self, queue: str | None, *, owner: str, lease: datetime.timedelta, functions: Sequence[str] | None = None
    ) -> Claim | None:
        sql = run_sql.claim_ready(in_queue=queue is not None, of_functions=functions is not None)
        rows = self._rows(sql, queue=queue, functions=functions, owner=owner, lease=lease)
        return results.claim(rows[0]) if rows else None

    def has_ready(self, queue: str | None) -> bool:
        ((ready,),) = self._rows(f"SELECT {run_sql.has_ready(in_queue=queue is not None)}", queue=queue)
        return bool(ready)

    def has_events(self) -> bool:
        ((events,),) = self._rows(f"SELECT {run_sql.HAS_EVENTS}")
        return bool(events)

    def has_events_or_ready(self, queue: str | None) -> tuple[bool, bool]:
        sql = f"SELECT {run_sql.HAS_EVENTS}, {run_sql.has_ready(in_queue=queue is not None)}"
        ((events, ready),) = self._rows(sql, queue=queue)
        return events, ready

    def renew(self, claims: Sequence[Claim], *, lease: datetime.timedelta) -> list[Claim]:
        kept = super().renew([claim for claim in claims if claim.key], lease=lease)
        runs = {claim.run_id: claim for claim in claims if not claim.key}
        fences = [claim.fence for claim in runs.values()]
        renewed = self._rows(run_sql.RENEW, run_ids=list(runs), fences=fences, lease=lease) if runs else []
        return kept + [runs[row[0]] for row in renewed]

    # Memos

    def memos(self, claim: Claim, *, after: int | None = None) -> list[Memo]:
        if claim.path:
            return super().memos(claim, after=after)
        return [results.memo(row) for row in self._rows(run_sql.MEMOS, run_id=claim.run_id, after=after)]

    # Writes of a turn

    @retried
    def record(
        self, claim: Claim, step: StepRow, *, lease: datetime.timedelta, failed: AttemptRow | None = None
    ) -> int | None:
        sql = run_sql.record(_filled(step), in_branch=claim.key is not None, failed=failed is not None)
        written = self._write(sql, claim, step, failed, lease=lease)
        return int(written[0][0]) if written else None

    @retried
    def park(self, claim: Claim, parking: Parking, *, rehint: datetime.timedelta) -> str | None:
        if len(parking.steps) > 1 or len(parking.waits) > 1:
            return super().park(claim, parking, rehint=rehint)
        step, wait = next(iter(parking.steps), None), next(iter(parking.waits), None)
        sql = run_sql.park(
            _filled(step) if step else (),
            in_branch=claim.key is not None,
            waits=wait is not None,
            failed=parking.failed is not None,
        )
        values: dict[str, Any] = {"kind": parking.kind, "text": parking.text[:LONGEST_TEXT], "next_at": parking.next_at}
        values |= {"attempt": parking.attempt, "wakes": claim.wakes, "rehint": rehint}
        parked = self._write(sql, claim, step, wait, parking.failed, **values)
        return str(parked[0][0]) if parked else None

    @retried
    def release(self, claim: Claim, *, after: datetime.timedelta, rehint: datetime.timedelta) -> bool:
        if claim.key:
            return super().release(claim, after=after, rehint=rehint)
        return bool(self._write(run_sql.RELEASE, claim, after=after, rehint=rehint))

    @retried
    def end(
        self,
        claim: Claim,
        status: str,
        *,
        output: str | None = None,
        error: str | None = None,
        next_claim: NextClaim | None = None,
    ) -> EndResult | None:
        if claim.key:
            return super().end(claim, status, output=output, error=error)
        values: dict[str, Any] = {
            "status": str(status),
            "output": output and seal_text(output),
            "error": error and seal_text(error),
        }
        if next_claim is None:
            return EndResult() if self._write(run_sql.END, claim, **values) else None
        sql = run_sql.end_and_claim(this_run=next_claim.run_id is not None, in_queue=next_claim.queue is not None)
        values |= {"queue": next_claim.queue, "next_id": next_claim.run_id}
        ended = self._write(sql, claim, **values, owner=next_claim.owner, lease=next_claim.lease)
        if not ended:
            return None
        return EndResult(claim=results.claim(ended[0]) if ended[0][0] else None)

    # Changes from outside

    def insert(self, row: Event | Run, *, ignore_conflicts: bool = False) -> None:
        sql, values = insert_sql.statement(row, connections[self.alias], ignore_conflicts=ignore_conflicts)
        self._rows(sql, **values)

    def store_ingested(self, batch: Sequence[EventRow], runs: Sequence[Run]) -> Mapping[UUID, datetime.datetime]:
        marked = {"ids": [row.id for row in batch], "moments": [row.ingested_at for row in batch]}
        if len(runs) != 1:
            self._rows(insert_sql.INGESTED, **marked)
            Run.objects.using(self.alias).bulk_create(runs, batch_size=500, ignore_conflicts=True)
            return dict(self._rows(insert_sql.NEW_RUNS, run_ids=[run.id for run in runs])) if runs else {}
        new_run, values = insert_sql.statement(runs[0], connections[self.alias], ignore_conflicts=True)
        return dict(self._rows(insert_sql.ingested_and(new_run), **marked, **values))

    @retried
    def resolve(self, resolutions: Sequence[Resolution], *, rehint: datetime.timedelta) -> list[ReadyRun]:
        columns = {name: [getattr(each, name) for each in resolutions] for name in Resolution.__slots__}
        columns |= {name: [seal_text(text) for text in columns[name]] for name in ("output", "error")}
        columns["status"] = [str(status) for status in columns["status"]]
        rows = self._rows(run_sql.RESOLVE, rehint=rehint, **columns)
        return [
            ReadyRun(run_id, queue, in_branch) for run_id, queue, in_branch, is_queued in rows if in_branch or is_queued
        ]

    # Scheduler

    @retried
    def look(self, name: str, *, leadership: datetime.timedelta, deputyship: datetime.timedelta) -> SchedulerView:
        ((leads, is_deputy, leader_at, deputy_at, now, run_at, branch_at, event_at, event_id),) = self._rows(
            scheduler_sql.LOOK, name=name, leadership=leadership, deputyship=deputyship
        )
        watched = leader_at if leads or is_deputy else deputy_at
        if watched is None:  # The lock has never been taken.
            return super().look(name, leadership=leadership, deputyship=deputyship)
        return SchedulerView(
            leads=leads,
            is_deputy=is_deputy,
            patience=(watched - now).total_seconds(),
            now=now,
            run_at=run_at,
            branch_at=branch_at,
            event_at=event_at,
            event_id=event_id,
        )

    def hint_later(self, run_ids: Sequence[UUID], *, rehint: datetime.timedelta) -> None:
        if run_ids:
            self._rows(scheduler_sql.HINT_LATER, run_ids=list(run_ids), rehint=rehint, most=MOST_REHINTS)

    # Locks

    def lock_names(self, names: Iterable[str], *, shared: bool) -> None:
        keys = sorted(_lock_key("name", name) for name in set(names))
        function = "pg_advisory_xact_lock_shared" if shared else "pg_advisory_xact_lock"
        self._rows(f"SELECT {function}(key) FROM unnest(%(keys)s::bigint[]) key", keys=keys)

    def lock_ingest(self) -> bool:
        ((is_locked,),) = self._rows("SELECT pg_try_advisory_xact_lock(%(key)s)", key=_lock_key("ingest"))
        return bool(is_locked)

    # Look-ups

    def due_events(self, *, limit: int) -> list[EventRow]:
        rows = self._rows(lookup_sql.DUE_EVENTS, limit=limit, most=page_sizes.MOST)
        due = [(results.event_row(event), now) for *event, now, _, _, _, _ in rows]
        return [dataclasses.replace(row, ingested_at=now) for row, now in due if row is not None]

    def match_paths(self, names: Collection[str]) -> list[tuple[str, str, int]]:
        return [(name, path, id) for name, path, id in self._rows(lookup_sql.MATCH_PATHS, names=list(names))]

    def store_keys(self, keys: Sequence[tuple[int, bytes, datetime.datetime, UUID]]) -> None:
        if keys:
            path_ids, hashes, moments, event_ids = zip(*keys, strict=True)
            given = {"hashes": list(hashes), "moments": list(moments), "event_ids": list(event_ids)}
            self._rows(lookup_sql.STORE_KEYS, path_ids=list(path_ids), **given)

    def open_waits(
        self, wanted: Collection[tuple[str, bytes]], *, after: int, limit: int
    ) -> tuple[Sequence[OpenWait], bool]:
        given = {"names": [name for name, _ in wanted], "keys": [key for _, key in wanted]}
        rows = self._rows(lookup_sql.OPEN_WAITS, **given, after=after, limit=limit, most=page_sizes.MOST)
        return [results.open_wait(row[: -lookup_sql.MEASURES]) for row in rows], _is_more(rows, limit)

    def stored_under(
        self, patterns: Sequence[str], path: str, keys: Sequence[bytes], *, after: Place, limit: int
    ) -> tuple[Sequence[EventRow], bool]:
        given = {"patterns": list(patterns), "path": path, "keys": list(keys), "moment": after[0], "event_id": after[1]}
        rows = self._rows(lookup_sql.STORED_UNDER, **given, limit=limit, most=page_sizes.MOST)
        page = [row for each in rows if (row := results.event_row(each[: -lookup_sql.MEASURES])) is not None]
        return page, _is_more(rows, limit)

    def foreign_functions(self, own: Collection[str]) -> list[tuple[str, str, Mapping[str, Any]]]:
        rows = self._rows(lookup_sql.FOREIGN_FUNCTIONS, own=list(own))
        return [(id, version, json.loads(config)) for id, version, config in rows]

    # Branches

    @retried
    def end_branch(
        self, claim: Claim, end: BranchEnd, *, rehint: datetime.timedelta, next_claim: NextClaim | None = None
    ) -> EndResult | None:
        if end.race:
            return super().end_branch(claim, end, rehint=rehint)
        values: dict[str, Any] = {"status": str(end.status), "attempt": end.attempt, "limited": end.limited}
        values |= {name: seal_text(getattr(end, name)) for name in ("input", "output", "error")}
        owner, lease = (next_claim.owner, next_claim.lease) if next_claim else (claim.owner, None)
        values |= {"follows": next_claim is not None, "owner": owner, "lease": lease}
        sql = branch_sql.end(failed=end.failed is not None)
        ended = self._write(sql, claim, end.failed, **values, rehint=rehint)
        return results.end_result(claim, ended[0], next_claim) if ended else None

    def _write(self, sql: str, claim: Claim, *rows: StepRow | WaitRow | AttemptRow | None, **values: Any) -> list[Any]:
        """Execute a write of a turn: fenced by the claim, with these rows."""
        held: dict[str, Any] = {"run_id": claim.run_id, "key": claim.key, "fence": claim.fence, "owner": claim.owner}
        return self._rows(sql, **(held | insert_sql.parameters(*rows) | values))


def _filled(step: StepRow) -> tuple[str, ...]:
    """Return the columns of the step that have a value."""
    return tuple(name for name in insert_sql.STEP if getattr(step, name) is not None)


def _is_more(rows: Sequence[Sequence[Any]], limit: int) -> bool:
    """Tell whether there may be more rows than those that fit into a page of *limit*."""
    found = rows[0][-lookup_sql.MEASURES] if rows else 0
    return bool(len(rows) < found or found == limit)


def _lock_key(*parts: str) -> int:
    return int.from_bytes(digest("lock", *parts)[:8], "big", signed=True)
