"""What the store takes and gives: claims, and the rows of a turn's writes."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from ...core.replay.groups import Op, branch_key
from ...core.replay.operations import Memo, StepKind, StepStatus

if TYPE_CHECKING:
    from ...core.events.events import Event
    from ...models import Run


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRow:
    """An event as stored: ``data`` and ``user`` are JSON structures with our tags."""

    id: UUID
    name: str
    data: Any
    user: Any
    ts: datetime.datetime
    v: str
    received_at: datetime.datetime
    ingested_at: datetime.datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A run that a worker holds: every write of its turn names ``fence``."""

    run_id: UUID
    function_id: str
    owner: str
    fence: int
    wakes: int
    attempt: int
    steps: int
    crashes: int
    depth: int
    queue: str
    input: str | None
    parent_id: UUID | None
    parent_key: bytes | None
    created_at: datetime.datetime
    looks_back_to: datetime.datetime | None  #: from when on waits see events, if not from the creation
    code_version: str
    last_code_version: str
    now: datetime.datetime  #: the database's time of the claim
    event: EventRow | None
    key: bytes | None = None  #: of the branch that is held in place of the run: fence, attempt and crashes are its own
    path: str = ""  #: of that branch

    @classmethod
    def of(cls, run: Run, now: datetime.datetime, event: EventRow | None) -> Claim:
        """Return the claim whose columns the row of *run* has; *now* is the database's time."""
        return cls(run_id=run.id, now=now, event=event, **{name: getattr(run, name) for name in CLAIM_COLUMNS})


#: What a claim has of the run's row, beside its id.
CLAIM_COLUMNS = tuple(name for name in Claim.__slots__ if name not in ("run_id", "now", "event", "key", "path"))


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRow:
    """A step to write: a memo, or an open step that the run waits for."""

    key: bytes
    name: str
    ordinal: int
    kind: StepKind
    status: StepStatus
    planned_at: datetime.datetime
    input: str = ""
    output: str | None = None
    error: str | None = None
    attempt: int = 0
    event_id: UUID | None = None
    started_at: datetime.datetime | None = None
    finished_at: datetime.datetime | None = None
    next_at: datetime.datetime | None = None
    branch: str = ""
    parent_key: bytes | None = None  #: of the branch that it belongs to or, of a branch, of its group
    path: str = ""  #: of a branch: what its steps have as ``branch``
    open: int | None = None  #: of a group: branches that are not done

    @classmethod
    def of(cls, op: Op, status: StepStatus, planned_at: datetime.datetime, **values: Any) -> StepRow:
        """Return the row of the step that *op* asks for."""
        ref = op.ref
        return cls(
            key=ref.key,
            name=ref.name,
            ordinal=ref.ordinal,
            kind=op.kind,
            status=status,
            planned_at=planned_at,
            branch=ref.branch,
            parent_key=branch_key(ref.branch) if ref.branch else None,
            **values,
        )

    def memo(self, seq: int | None = None, event: Event | None = None) -> Memo:
        """Return the memo that the row is, once it is written: the *seq*-th of its run, settled by *event*."""
        return Memo(
            key=self.key,
            name=self.name,
            kind=self.kind,
            status=self.status,
            output=self.output,
            error=self.error,
            attempt=self.attempt,
            next_at=self.next_at,
            finished_at=self.finished_at,
            event=event,
            seq=seq,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptRow:
    """An attempt that did not become the memo; without a key, one of the handler's own code."""

    key: bytes | None
    name: str
    number: int
    status: str
    started_at: datetime.datetime
    finished_at: datetime.datetime
    output: str | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitRow:
    """An open wait to register."""

    key: bytes
    kind: str
    name: str
    match_key: bytes
    created_at: datetime.datetime
    match: str = ""
    expression: str = ""
    since: datetime.datetime | None = None
    expires_at: datetime.datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenWait:
    """An open wait as ingest finds it, with what makes its run's trigger."""

    id: int
    run_id: UUID
    key: bytes | None
    name: str
    match_key: bytes
    match: str
    expression: str
    since: datetime.datetime | None
    expires_at: datetime.datetime | None
    input: str | None
    created_at: datetime.datetime
    event: EventRow | None


LONGEST_TEXT = 500  #: characters of what a run waits for
MOST_CRASHES = 5  #: deaths of its workers without progress before a run fails as poisoned
STOPPING = " (stopping)"  #: ends the name of an owner that was told to stop: its death is not a crash of the run


@dataclass(frozen=True, slots=True, kw_only=True)
class Parking:
    """What a run waits for: until when (None: without end), and in words for people, which the store shortens."""

    next_at: datetime.datetime | None
    kind: str
    text: str
    attempt: int = 0  #: failures of the handler's own code, or of the branch's
    steps: Sequence[StepRow] = ()
    waits: Sequence[WaitRow] = ()
    failed: AttemptRow | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BranchEnd:
    """How a branch ended, and what that means for its group."""

    status: StepStatus
    output: str | None = None
    error: str | None = None
    input: str = ""
    attempt: int = 0
    failed: AttemptRow | None = None
    race: bool = False  #: whether the first branch that is done decides
    index: int | None = None  #: of a race: which branch it is
    limited: bool = False  #: whether branches of the group are held back
    prefix: str = ""  #: what the paths of the group's branches begin with


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """How an open step of a run that does not run now was settled."""

    run_id: UUID
    key: bytes
    status: StepStatus = StepStatus.COMPLETED
    output: str | None = None
    error: str | None = None
    event_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class NextClaim:
    """The worker that goes on, and its lease: with a branch of the group, or with a ready run of *queue*."""

    owner: str
    lease: datetime.timedelta
    queue: str | None = None  #: None: any
    run_id: UUID | None = None  #: the run to go on with, if it is ready, in place of the first one


@dataclass(frozen=True, slots=True)
class EndResult:
    """What came of an end: what is ready then, and what the worker has claimed in its place."""

    ready: Sequence[ReadyRun] = ()
    claim: Claim | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerView:
    """What a scheduler sees at a glance: whether it leads or is the deputy, and what is due first."""

    leads: bool
    is_deputy: bool
    patience: float  #: seconds until the watched one is late: the deputy watches the leader, others watch the deputy
    now: datetime.datetime  #: the database's time
    run_at: datetime.datetime | None = None  #: when the first alarm of a run rings
    branch_at: datetime.datetime | None = None
    event_at: datetime.datetime | None = None  #: when the first event that is not ingested is due
    event_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class ReadyRun:
    """A run that may be claimed, or has a branch that may be: what a hint names."""

    run_id: UUID
    queue: str
    in_branch: bool = False

    def needs_message(self, queue: str | None) -> bool:
        """Tell whether a worker that goes on with the runs of *queue*, or of any, would not find it by itself."""
        return self.in_branch or (queue is not None and self.queue != queue)
