"""The hot statements on PostgreSQL: one statement, one round trip, one commit each.

Every write of a turn is a common table expression whose first part updates the run's row under its fence: the lock and
the check are the same, so that a stale owner writes nothing, also while a takeover is being committed.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from django.db import connections

from ....codecs import open_text, seal_text
from ....core import clock
from ....core.replay.operations import Memo, StepKind, StepStatus
from ....models import Event, Run
from .. import page_sizes, stored_events
from ..portable import lookups
from ..portable.runs import DEPUTY, LEADER, MOST_REHINTS, Store
from ..rows import (
    LONGEST_TEXT,
    STOPPING,
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
from ..transactions import retried
from . import branch_sql, insert_sql
from .prepared import hot_cursor

_NOW = lookups.NOW

_RUN = "id, function_id, owner, fence, wakes, attempt, steps, crashes, depth, queue, input, parent_id, parent_key"
_RUN += ", created_at, looks_back_to, code_version, last_code_version"
_EVENT = "id, name, data, user, ts, v, received_at, ingested_at"


def _columns(names: str, table: str) -> str:
    return ", ".join(f'{table}."{name}"' for name in names.split(", "))


_CLAIMED = f"""
    SELECT id, status FROM django_durable_run WHERE {{where}} LIMIT 1 FOR UPDATE SKIP LOCKED
), claimed AS (
    UPDATE django_durable_run run SET
        status = 'running', fence = run.fence + 1, owner = %(owner)s, ready_at = NULL,
        next_at = {_NOW} + %(lease)s, started_at = coalesce(run.started_at, {_NOW}),
        crashes = run.crashes + (candidate.status = 'running' AND run.owner NOT LIKE '%%{STOPPING}')::int,
        waiting_kind = '', waiting_for = ''
    FROM candidate WHERE run.id = candidate.id
    RETURNING {_columns(_RUN + ", event_id", "run")}
)"""
_CLAIM_COLUMNS = f"{_columns(_RUN, 'claimed')}, {_NOW}, {_columns(_EVENT, 'event')}"
_CLAIM = f"""
WITH candidate AS ({_CLAIMED}
SELECT {_CLAIM_COLUMNS} FROM claimed LEFT JOIN django_durable_event event ON event.id = claimed.event_id
"""
_QUEUED = f"status = 'queued' AND held_by IS NULL AND ready_at <= {_NOW}"
_CLAIM_ONE = _CLAIM.format(where=f"id = %(id)s AND ({_QUEUED} OR status = 'running' AND next_at <= {_NOW})")

_MEMOS = f"""
SELECT step.key, step.name, step.kind, step.status, step.output, step.error, step.attempt, step.next_at,
    step.finished_at, step.seq, {_columns(_EVENT, "event")}
FROM django_durable_step step LEFT JOIN django_durable_event event ON event.id = step.event_id
WHERE step.run_id = %(run_id)s AND step.branch = '' AND (%(after)s::int IS NULL OR step.seq > %(after)s)
"""

_HELD = "id = %(run_id)s AND fence = %(fence)s AND status = 'running'"

_RECORDING = f"""
WITH run AS (
    UPDATE django_durable_run SET steps = steps + 1, attempt = 0, crashes = 0,
        next_at = CASE WHEN next_at < {_NOW} + %(lease)s / 2 THEN {_NOW} + %(lease)s ELSE next_at END
    WHERE {_HELD} RETURNING id, steps AS seq
)"""
_PARKING = f"""
WITH run AS (
    UPDATE django_durable_run SET
        status = CASE WHEN wakes = %(wakes)s THEN 'waiting' ELSE 'queued' END,
        next_at = CASE WHEN wakes = %(wakes)s THEN %(next_at)s::timestamptz ELSE {_NOW} + %(rehint)s END,
        ready_at = CASE WHEN wakes = %(wakes)s THEN NULL ELSE {_NOW} END,
        waiting_kind = %(kind)s, waiting_for = %(text)s, attempt = %(attempt)s, crashes = 0, owner = ''
    WHERE {_HELD} RETURNING id, status, NULL::int AS seq
)"""

_FIXED = ("key", "name", "ordinal", "kind", "planned_at", "branch", "parent_key")
_CHANGING = ("status", "input", "output", "error", "attempt", "event_id", "started_at", "finished_at", "next_at")
_STEP = f"""
INSERT INTO django_durable_step (run_id, seq, path, fence, owner, crashes, {{columns}})
SELECT run.id, run.seq, '', 0, '', 0, {{values}} FROM run
ON CONFLICT (run_id, key) DO UPDATE SET
    seq = excluded.seq, {", ".join(f"{name} = excluded.{name}" for name in _CHANGING)}
WHERE django_durable_step.status NOT IN ('completed', 'failed')
RETURNING seq
"""
_ATTEMPT_COLUMNS = tuple(AttemptRow.__slots__)
_ATTEMPT = f"""
INSERT INTO django_durable_stepattempt (run_id, owner, {", ".join(_ATTEMPT_COLUMNS)})
SELECT run.id, %(owner)s, {", ".join(f"%(attempt_{name})s" for name in _ATTEMPT_COLUMNS)} FROM run
"""
_SEALED = {"step": ("step_input", "step_output", "step_error"), "attempt": ("attempt_output", "attempt_error")}
_CHOICES = {"step": ("step_kind", "step_status"), "attempt": ("attempt_status",), "wait": ("wait_kind",)}
_WAIT_COLUMNS = tuple(WaitRow.__slots__)
_WAIT = f"""
INSERT INTO django_durable_wait (run_id, {", ".join(_WAIT_COLUMNS)})
SELECT run.id, {", ".join(f"%(wait_{name})s" for name in _WAIT_COLUMNS)} FROM run
"""

_RELEASE = f"""
UPDATE django_durable_run SET
    status = 'queued', ready_at = {_NOW} + %(after)s, next_at = {_NOW} + %(after)s + %(rehint)s, owner = ''
WHERE {_HELD} RETURNING id
"""
_ENDING = f"""
WITH run AS (
    UPDATE django_durable_run SET
        status = %(status)s, output = %(output)s, error = %(error)s, fence = fence + 1, next_at = NULL,
        ready_at = NULL, held_by = NULL, finished_at = {_NOW}, waiting_kind = '', waiting_for = '', owner = ''
    WHERE {_HELD} RETURNING id
), waits AS (
    DELETE FROM django_durable_wait wait USING run WHERE wait.run_id = run.id
)"""
_END = f"{_ENDING} SELECT id FROM run"
# Of two workers that end runs at the same time, each goes on with another one.
_NEXT = f"{_QUEUED} AND EXISTS (SELECT FROM run)"
_END_AND_CLAIM = f"""{_ENDING}, candidate AS ({_CLAIMED}
SELECT {_CLAIM_COLUMNS}
FROM run LEFT JOIN claimed ON true LEFT JOIN django_durable_event event ON event.id = claimed.event_id
"""
_RENEW = f"""
UPDATE django_durable_run run SET next_at = {_NOW} + %(lease)s
FROM (
    SELECT id, fence, status FROM django_durable_run WHERE id = ANY(%(run_ids)s) FOR UPDATE SKIP LOCKED
) held JOIN unnest(%(run_ids)s::uuid[], %(fences)s::bigint[]) AS mine (id, fence)
    ON held.id = mine.id AND held.fence = mine.fence
WHERE run.id = held.id AND held.status = 'running' RETURNING run.id
"""
# Who is being claimed at this moment needs no hint.
_HINT_LATER = f"""
UPDATE django_durable_run run
SET next_at = {_NOW} + least(greatest(%(rehint)s, {_NOW} - coalesce(ready_at, {_NOW})), %(most)s * %(rehint)s)
FROM (
    SELECT id, status FROM django_durable_run WHERE id = ANY(%(run_ids)s) FOR UPDATE SKIP LOCKED
) hinted
WHERE run.id = hinted.id AND hinted.status = 'queued' RETURNING run.id
"""
# A run that several resolutions concern counts each; the order of the arrays is the order of completion. Runs and waits
# are looked up one by one: of statistics that are old, a plan may scan all that wait. Arrays stand in queries of their
# own: else the server makes a plan for the length of each, which takes longer than to execute it.
_RESOLVE = f"""
WITH given AS (
    SELECT * FROM unnest(
        (SELECT %(run_id)s::uuid[]), (SELECT %(key)s::bytea[]), (SELECT %(status)s::text[]),
        (SELECT %(output)s::text[]), (SELECT %(error)s::text[]), (SELECT %(event_id)s::uuid[])
    ) WITH ORDINALITY AS given (run_id, key, status, output, error, event_id, position)
), locked AS (
    SELECT id, steps, status FROM django_durable_run WHERE id = ANY(ARRAY(SELECT run_id FROM given))
    ORDER BY id FOR UPDATE
), numbered AS (
    SELECT given.*, locked.steps + row_number() OVER (PARTITION BY run_id ORDER BY position) AS seq
    FROM given JOIN locked ON locked.id = given.run_id AND locked.status IN ('queued', 'running', 'waiting')
), settled AS (
    UPDATE django_durable_step step SET
        status = numbered.status, output = numbered.output, error = numbered.error, event_id = numbered.event_id,
        seq = numbered.seq, finished_at = {_NOW}
    FROM numbered
    WHERE step.run_id = numbered.run_id AND step.key = numbered.key AND step.status NOT IN ('completed', 'failed')
    RETURNING step.run_id, numbered.seq, step.parent_key
), waits AS (
    DELETE FROM django_durable_wait WHERE ctid = ANY(ARRAY(
        SELECT wait.ctid FROM given, LATERAL (
            SELECT ctid FROM django_durable_wait WHERE run_id = given.run_id AND key = given.key OFFSET 0
        ) wait
    ))
), branches AS (
    UPDATE django_durable_step branch SET status = 'planned', next_at = {_NOW} + %(rehint)s
    FROM settled
    WHERE branch.run_id = settled.run_id AND branch.key = settled.parent_key AND branch.status = 'waiting'
    RETURNING branch.run_id
), woken AS (
    SELECT locked.id, locked.status, max(seq) AS steps, bool_or(settled.parent_key IS NULL) AS itself,
        bool_or(settled.parent_key IS NULL) AND locked.status = 'waiting' AS from_waiting
    FROM settled JOIN locked ON locked.id = settled.run_id GROUP BY locked.id, locked.status
)
UPDATE django_durable_run run SET
    steps = woken.steps,
    attempt = CASE WHEN woken.itself THEN 0 ELSE attempt END,
    wakes = CASE WHEN woken.itself THEN wakes + 1 ELSE wakes END,
    ready_at = CASE WHEN woken.from_waiting THEN {_NOW} ELSE ready_at END,
    next_at = CASE WHEN woken.from_waiting THEN {_NOW} + %(rehint)s ELSE next_at END,
    status = CASE WHEN woken.from_waiting THEN 'queued' ELSE run.status END
FROM woken
WHERE run.id = woken.id
RETURNING run.id, run.queue, EXISTS (SELECT FROM branches WHERE branches.run_id = run.id), woken.from_waiting
"""
# A lock's row as it was before this statement, which changes it only for whoever leads, or is the deputy.
_LOOK = f"""
WITH leader AS (
    UPDATE django_durable_lock SET owner = %(name)s, expires_at = {_NOW} + %(leadership)s
    WHERE name = '{LEADER}' AND (owner = %(name)s OR expires_at <= {_NOW}) RETURNING name
), deputy AS (
    UPDATE django_durable_lock SET owner = %(name)s, expires_at = {_NOW} + %(deputyship)s
    WHERE name = '{DEPUTY}' AND (owner = %(name)s OR expires_at <= {_NOW}) AND NOT EXISTS (SELECT FROM leader)
    RETURNING name
)
SELECT EXISTS (SELECT FROM leader), EXISTS (SELECT FROM deputy),
    (SELECT expires_at FROM django_durable_lock WHERE name = '{LEADER}'),
    (SELECT expires_at FROM django_durable_lock WHERE name = '{DEPUTY}'),
    {_NOW}, due.run_at, due.branch_at, due.event_at, due.event_id
FROM (SELECT) nothing LEFT JOIN (
    SELECT
        (SELECT next_at FROM django_durable_run WHERE next_at IS NOT NULL ORDER BY next_at LIMIT 1) AS run_at,
        (
            SELECT next_at FROM django_durable_step WHERE kind = 'branch' AND next_at IS NOT NULL
            ORDER BY next_at LIMIT 1
        ) AS branch_at,
        event.ingest_at AS event_at, event.id AS event_id
    FROM leader LEFT JOIN (
        SELECT ingest_at, id FROM django_durable_event WHERE ingested_at IS NULL ORDER BY ingest_at, id LIMIT 1
    ) event ON true
) due ON true
"""

_HAS_EVENTS = f"EXISTS (SELECT FROM django_durable_event WHERE ingested_at IS NULL AND ingest_at <= {_NOW})"
_NEW_RUNS = f"SELECT id, {_NOW} FROM django_durable_run WHERE id = ANY(%(run_ids)s)"
_NEW = f"SELECT id, {_NOW} FROM new"
_INGESTED = """
UPDATE django_durable_event event SET ingested_at = given.moment
FROM unnest((SELECT %(ids)s::uuid[]), (SELECT %(moments)s::timestamptz[])) AS given (id, moment)
WHERE event.id = given.id RETURNING event.id
"""


class PostgreSQLStore(Store):
    """The contract in single statements."""

    @retried
    def claim(self, run_id: UUID, *, owner: str, lease: datetime.timedelta) -> Claim | None:
        """Claim that run, if it is ready or its owner's lease is dead."""
        return self._claim_by(_CLAIM_ONE, id=run_id, owner=owner, lease=lease)

    @retried
    def claim_ready(
        self, queue: str | None, *, owner: str, lease: datetime.timedelta, functions: Sequence[str] | None = None
    ) -> Claim | None:
        """Claim the first ready run of *queue* (None: of any), and of *functions* if given; None if there is none."""
        where = _QUEUED if queue is None else f"{_QUEUED} AND queue = %(queue)s"
        where = where if functions is None else f"{where} AND function_id = ANY(%(functions)s)"
        sql = _CLAIM.format(where=f"{where} ORDER BY ready_at, id")
        return self._claim_by(sql, queue=queue, functions=functions, owner=owner, lease=lease)

    def has_ready(self, queue: str | None) -> bool:
        """Tell whether a run of *queue* (None: of any) could be claimed now."""
        return bool(self._rows(f"SELECT {_has_ready(queue)}", queue=queue)[0][0])

    def has_events(self) -> bool:
        """Tell whether an event is due to be ingested."""
        return bool(self._rows(f"SELECT {_HAS_EVENTS}")[0][0])

    def has_events_or_ready(self, queue: str | None) -> tuple[bool, bool]:
        """Tell both, see :meth:`has_events` and :meth:`has_ready`."""
        ((events, ready),) = self._rows(f"SELECT {_HAS_EVENTS}, {_has_ready(queue)}", queue=queue)
        return events, ready

    def _claim_by(self, sql: str, **values: Any) -> Claim | None:
        rows = self._rows(sql, **values)
        return _claim_of(rows[0]) if rows else None

    def memos(self, claim: Claim, *, after: int | None = None) -> list[Memo]:
        """Return what is recorded for this turn, in one query: settled and open, or what was settled *after* a seq."""
        if claim.path:
            return super().memos(claim, after=after)
        return [_memo_of(row) for row in self._rows(_MEMOS, run_id=claim.run_id, after=after)]

    @retried
    def record(
        self, claim: Claim, step: StepRow, *, lease: datetime.timedelta, failed: AttemptRow | None = None
    ) -> int | None:
        """Write a memo, and let the turn go on; return its number in the run, None if the claim is lost."""
        recording = branch_sql.RECORDING if claim.key else _RECORDING
        kept = f", attempt AS ({_ATTEMPT})" if failed else ""
        rows = {"step": step, "attempt": failed} if failed else {"step": step}
        written = self._write(f"{recording}{kept}{_step(step)}", claim, rows, lease=lease)
        return int(written[0][0]) if written else None

    @retried
    def park(self, claim: Claim, parking: Parking, *, rehint: datetime.timedelta) -> str | None:
        """Let the run wait; return its status: queued if it was woken since the claim. None if the claim is lost."""
        if len(parking.steps) > 1 or len(parking.waits) > 1:
            return super().park(claim, parking, rehint=rehint)
        rows: dict[str, Any] = {
            "step": next(iter(parking.steps), None),
            "wait": next(iter(parking.waits), None),
            "attempt": parking.failed,
        }
        parts = {"step": rows["step"] and _step(rows["step"]), "wait": _WAIT, "attempt": _ATTEMPT}
        written = "".join(f", {name} AS ({parts[name]})" for name, row in rows.items() if row is not None)
        values = {
            "kind": parking.kind,
            "text": parking.text[:LONGEST_TEXT],
            "attempt": parking.attempt,
            "next_at": parking.next_at,
        }
        parked = branch_sql.PARKING if claim.key else _PARKING
        sql = f"{parked}{written} SELECT status FROM run"
        done = self._write(sql, claim, rows, wakes=claim.wakes, rehint=rehint, **values)
        return str(done[0][0]) if done else None

    @retried
    def release(self, claim: Claim, *, after: datetime.timedelta, rehint: datetime.timedelta) -> bool:
        """Give the run or branch back, to start no earlier than *after*; False if the claim is lost."""
        if claim.key:
            return super().release(claim, after=after, rehint=rehint)
        return bool(self._write(_RELEASE, claim, {}, after=after, rehint=rehint))

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
        """End the run, and claim a ready one for *next_claim*; None if the claim on it, or on a branch, is lost."""
        if claim.key:
            return super().end(claim, status, output=output, error=error)
        values: dict[str, Any] = {"status": str(status), "output": seal_text(output), "error": seal_text(error)}
        if next_claim is None:
            return EndResult() if self._write(_END, claim, {}, **values) else None
        sql = _END_AND_CLAIM.format(where=_next(next_claim))
        values |= {"owner": next_claim.owner, "lease": next_claim.lease}
        values |= {"queue": next_claim.queue, "next_id": next_claim.run_id}
        done = self._write(sql, claim, {}, **values)
        return EndResult(claim=_claim_of(done[0]) if done[0][0] else None) if done else None

    @retried
    def finish_branch(
        self, claim: Claim, end: BranchEnd, *, rehint: datetime.timedelta, next_claim: NextClaim | None = None
    ) -> EndResult | None:
        """End a branch, and its group if that is decided now, and claim another one for *next_claim*, in one commit."""
        if end.race:
            return super().finish_branch(claim, end, rehint=rehint)
        kept = f"), kept AS ({_ATTEMPT}), around AS (" if end.failed else "), around AS ("
        values: dict[str, Any] = {name: seal_text(getattr(end, name)) for name in ("input", "output", "error")}
        values |= {"status": str(end.status), "attempt": end.attempt, "limited": end.limited}
        sql = branch_sql.FINISH.replace("), around AS (", kept)
        following_values = {
            "follows": next_claim is not None,
            "owner": next_claim.owner if next_claim else claim.owner,
            "lease": next_claim.lease if next_claim else None,
        }
        done = self._write(sql, claim, {"attempt": end.failed}, rehint=rehint, **values, **following_values)
        return _finished_of(claim, done[0], next_claim) if done else None

    def renew(self, claims: Sequence[Claim], *, lease: datetime.timedelta) -> list[Claim]:
        """Renew the leases of these claims, where they still hold; return which."""
        kept = super().renew([claim for claim in claims if claim.key], lease=lease)
        runs = {claim.run_id: claim for claim in claims if not claim.key}
        fences = [claim.fence for claim in runs.values()]
        renewed = self._rows(_RENEW, run_ids=list(runs), fences=fences, lease=lease) if runs else []
        return kept + [runs[row[0]] for row in renewed]

    @retried
    def resolve(self, resolutions: Sequence[Resolution], *, rehint: datetime.timedelta) -> list[ReadyRun]:
        """Settle open steps and wake their runs; return the runs that became ready. What is settled already is left."""
        columns = {name: [getattr(each, name) for each in resolutions] for name in Resolution.__slots__}
        columns |= {name: [seal_text(text) for text in columns[name]] for name in ("output", "error")}
        columns["status"] = [str(status) for status in columns["status"]]
        rows = self._rows(_RESOLVE, rehint=rehint, **columns)
        return [
            ReadyRun(run_id, queue, in_branch) for run_id, queue, in_branch, is_queued in rows if in_branch or is_queued
        ]

    def hint_later(self, run_ids: Sequence[UUID], *, rehint: datetime.timedelta) -> None:
        """Put off the next hint of these queued runs: after *rehint* at first, then as long as they waited already."""
        if run_ids:
            self._rows(_HINT_LATER, run_ids=list(run_ids), rehint=rehint, most=MOST_REHINTS)

    def due_events(self, *, limit: int) -> list[EventRow]:
        """Return the first events that are due and fit into memory; they are ingested now, by the database's time."""
        rows = self._rows(lookups.DUE_EVENTS, limit=limit, most=page_sizes.MOST)
        due = [(_event_row(event), now) for *event, now, _, _, _, _ in rows]
        return [dataclasses.replace(row, ingested_at=now) for row, now in due if row is not None]

    def match_paths(self, names: Collection[str]) -> list[tuple[str, str, int]]:
        """Return the name, the path and the id of each match path of these names and wildcards."""
        return [(name, path, id) for name, path, id in self._rows(lookups.MATCH_PATHS, names=list(names))]

    def foreign_functions(self, own: Collection[str]) -> list[tuple[str, str, Mapping[str, Any]]]:
        """Return the id, the version and the configuration of each function that only others' code has."""
        rows = self._rows(lookups.FOREIGN_FUNCTIONS, own=list(own))
        return [(id, version, json.loads(config)) for id, version, config in rows]

    def insert(self, row: Event | Run, *, ignore_conflicts: bool = False) -> None:
        """Insert a new row; with *ignore_conflicts*, if there is none with its key."""
        sql, values = insert_sql.statement(row, connections[self.alias], ignore_conflicts=ignore_conflicts)
        self._rows(sql, **values)

    def store_keys(self, keys: Sequence[tuple[int, bytes, datetime.datetime, UUID]]) -> None:
        """Store keys of events: match path, key, moment of the ingest and event; those that exist are left."""
        if keys:
            path_ids, hashes, moments, event_ids = zip(*keys, strict=True)
            given = {"hashes": list(hashes), "moments": list(moments), "event_ids": list(event_ids)}
            self._rows(lookups.STORE_KEYS, path_ids=list(path_ids), **given)

    def open_waits(
        self, wanted: Collection[tuple[str, bytes]], *, after: int, limit: int
    ) -> tuple[Sequence[OpenWait], bool]:
        """Return a page of open waits for events under these names and keys, by id; and whether more come."""
        names, keys = [name for name, _ in wanted], [key for _, key in wanted]
        rows = self._rows(lookups.OPEN_WAITS, names=names, keys=keys, after=after, limit=limit, most=page_sizes.MOST)
        return [_open_wait_of(row[: -lookups.MEASURES]) for row in rows], _is_more(rows, limit)

    def stored_under(
        self,
        patterns: Sequence[str],
        path: str,
        keys: Sequence[bytes],
        *,
        after: tuple[datetime.datetime, UUID],
        limit: int,
    ) -> tuple[Sequence[EventRow], bool]:
        """Return a page of ingested events by keys for a match path, in the order of ingest; and whether more come."""
        values = {"patterns": list(patterns), "path": path, "keys": list(keys), "limit": limit, "most": page_sizes.MOST}
        rows = self._rows(lookups.STORED_UNDER, moment=after[0], event_id=after[1], **values)
        page = [row for each in rows if (row := _event_row(each[: -lookups.MEASURES])) is not None]
        return page, _is_more(rows, limit)

    def store_ingested(self, batch: Sequence[EventRow], runs: Sequence[Run]) -> Mapping[UUID, datetime.datetime]:
        """Store when these events were ingested, and insert the runs that they start, where nothing started them yet.

        Return which runs are new, with the database's time.
        """
        marked = {"ids": [row.id for row in batch], "moments": [row.ingested_at for row in batch]}
        if len(runs) != 1:
            self._rows(_INGESTED, **marked)
            Run.objects.using(self.alias).bulk_create(runs, batch_size=500, ignore_conflicts=True)
            return dict(self._rows(_NEW_RUNS, run_ids=[run.id for run in runs])) if runs else {}
        sql, values = insert_sql.statement(runs[0], connections[self.alias], ignore_conflicts=True)
        return dict(self._rows(f"WITH marked AS ({_INGESTED}), new AS ({sql}) {_NEW}", **marked, **values))

    @retried
    def look(self, name: str, *, leadership: datetime.timedelta, deputyship: datetime.timedelta) -> SchedulerView:
        """Lead, for so long, if nobody else does; else be the deputy if nobody else is. Return what is due first."""
        ((leads, is_deputy, leader_at, deputy_at, now, run_at, branch_at, event_at, event_id),) = self._rows(
            _LOOK, name=name, leadership=leadership, deputyship=deputyship
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

    def lock_names(self, names: Iterable[str], *, shared: bool) -> None:
        """Lock event names until the transaction ends: registrars of waits share them, ingest excludes everybody."""
        keys = sorted(_lock_key("name", name) for name in set(names))
        function = "pg_advisory_xact_lock_shared" if shared else "pg_advisory_xact_lock"
        self._rows(f"SELECT {function}(key) FROM unnest(%(keys)s::bigint[]) key", keys=keys)

    def lock_ingest(self) -> bool:
        """Become the one who ingests until the transaction ends; False if somebody else does."""
        return bool(self._rows("SELECT pg_try_advisory_xact_lock(%(key)s)", key=_lock_key("ingest"))[0][0])

    def _write(self, sql: str, claim: Claim, rows: dict[str, Any], **values: Any) -> list[tuple[Any, ...]]:
        """Execute a write of a turn: fenced, with the columns of *rows* as parameters named after them."""
        for prefix, row in rows.items():
            if row is not None:
                values |= _parameters(prefix, row)
        held = {"run_id": claim.run_id, "key": claim.key, "fence": claim.fence, "owner": claim.owner}
        return self._rows(sql, **{**held, **values})

    def _rows(self, sql: str, **values: Any) -> list[tuple[Any, ...]]:
        """Execute a statement; return the rows that it gives."""
        cursor = hot_cursor(connections[self.alias])
        parameters: dict[str, Any] = {"shift": clock.shift(), **values}
        cursor.execute(sql, parameters)
        rows: list[tuple[Any, ...]] = cursor.fetchall()
        return rows


def _step(row: StepRow) -> str:
    """Return the part that writes the step: a column without a value needs no parameter, which each step would bind."""
    return _step_with(tuple(name for name in _FIXED + _CHANGING if getattr(row, name) is not None))


@functools.lru_cache
def _step_with(columns: tuple[str, ...]) -> str:
    return _STEP.format(columns=", ".join(columns), values=", ".join(f"%(step_{name})s" for name in columns))


def _has_ready(queue: str | None) -> str:
    where = _QUEUED if queue is None else f"{_QUEUED} AND queue = %(queue)s"
    return f"EXISTS (SELECT FROM django_durable_run WHERE {where})"


def _is_more(rows: Sequence[Sequence[Any]], limit: int) -> bool:
    """Tell whether there may be more rows than those that fit into a page of *limit*."""
    found = rows[0][-lookups.MEASURES] if rows else 0
    return bool(len(rows) < found or found == limit)


def _next(next_claim: NextClaim) -> str:
    """Return the condition, and the order, of the run that is claimed when another one ends."""
    if next_claim.run_id is not None:
        return f"{_NEXT} AND id = %(next_id)s"
    queue = "" if next_claim.queue is None else " AND queue = %(queue)s"
    return f"{_NEXT}{queue} ORDER BY ready_at, id"


def _parameters(prefix: str, row: StepRow | WaitRow | AttemptRow) -> dict[str, Any]:
    """Return the columns of a row as parameters: payloads as they are stored, choices as text, not as enums."""
    values = {f"{prefix}_{name}": getattr(row, name) for name in row.__slots__}
    for name in _SEALED.get(prefix, ()):
        values[name] = seal_text(values[name])
    for name in _CHOICES[prefix]:
        values[name] = str(values[name])
    return values


def _lock_key(*parts: str) -> int:
    return int.from_bytes(stored_events.digest("lock", *parts)[:8], "big", signed=True)


def _claim_of(row: Sequence[Any]) -> Claim:
    names = _RUN.replace("id,", "run_id,", 1).split(", ")
    values = dict(zip(names, row, strict=False))
    return Claim(**values, now=row[len(names)], event=_event_row(row[len(names) + 1 :]))


def _finished_of(claim: Claim, row: Sequence[Any], next_claim: NextClaim | None) -> EndResult:
    queue, is_ready, in_branch, key, path, fence, attempt, crashes = row
    ready = [ReadyRun(claim.run_id, queue, in_branch)] if is_ready or in_branch else []
    if key is None or next_claim is None:
        return EndResult(ready)
    values = {"key": key, "path": path, "fence": fence, "attempt": attempt, "crashes": crashes}
    return EndResult(ready, dataclasses.replace(claim, owner=next_claim.owner, **values))


def _memo_of(row: Sequence[Any]) -> Memo:
    key, name, kind, status, output, error, attempt, next_at, finished_at, seq, *event = row
    resolved_by = _event_row(event)
    return Memo(
        key=key,
        name=name,
        kind=StepKind(kind),
        status=StepStatus(status),
        output=open_text(output),
        error=open_text(error),
        attempt=attempt,
        next_at=next_at,
        finished_at=finished_at,
        event=stored_events.event_of(resolved_by) if resolved_by else None,
        seq=seq,
    )


def _open_wait_of(row: Sequence[Any]) -> OpenWait:
    names = [name for name in OpenWait.__slots__ if name != "event"]
    return OpenWait(**dict(zip(names, row, strict=False)), event=_event_row(row[len(names) :]))


def _event_row(row: Sequence[Any]) -> EventRow | None:
    if row[0] is None:
        return None
    values = dict(zip(_EVENT.split(", "), row, strict=True))
    user = values["user"]
    return EventRow(**values | {"data": json.loads(values["data"]), "user": None if user is None else json.loads(user)})
