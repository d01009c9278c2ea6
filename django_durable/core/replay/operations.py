"""What a handler can ask for, and what is recorded of it."""

from __future__ import annotations

import copy
import datetime
import enum
import functools
import hashlib
import inspect
import logging
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ...exceptions import InvokeError, InvokeTimeout, StepError
from ..events import event_types
from ..values import encoding, errors

if TYPE_CHECKING:
    from ..events.conditions import MatchRule
    from ..events.event_types import EventType
    from ..events.events import Event
    from ..retries import Backoff


logger = logging.getLogger("django_durable")

LONGEST_ID = 255  #: characters of a step's id
_SAME_MOMENT = datetime.timedelta(milliseconds=1)  #: databases keep microseconds at most


class StepKind(enum.StrEnum):
    """What a step does."""

    RUN = "run"
    ATOMIC = "atomic"
    SLEEP = "sleep"
    WAIT = "wait"
    INVOKE = "invoke"
    SEND = "send"
    SIGNAL = "signal"
    GROUP = "group"
    BRANCH = "branch"


class StepStatus(enum.StrEnum):
    """Where a step stands; a memo is a step that completed or failed. What loses a race is cancelled."""

    PLANNED = "planned"
    RUNNING = "running"
    WAITING = "waiting"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


SETTLED = (StepStatus.COMPLETED, StepStatus.FAILED)


def step_key(branch: str, name: str, ordinal: int) -> bytes:
    """Return the key of a step in its run: a hash of its branch's path, its name and its ordinal."""
    return hashlib.blake2b(f"{branch}\0{name}\0{ordinal}".encode("utf-8", "surrogatepass"), digest_size=16).digest()


@dataclass(frozen=True, slots=True)
class CallSite:
    """The line of the user's code that called a step."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class StepRef:
    """Which step of the run is meant: the *ordinal*-th use (from 0) of *name* in *branch*, called at *where*."""

    name: str
    ordinal: int
    key: bytes
    where: CallSite
    branch: str = ""  #: path of the branch that it belongs to; none for the handler itself


@dataclass(frozen=True, slots=True)
class Memo:
    """What is recorded of a step: its result or error, or, while it is open, until when it waits.

    ``output`` and ``error`` are JSON text; ``next_at`` is the wake-up, time-out or end of the back-off; ``attempt``
    counts failed attempts; ``event`` resolved a wait; ``finished_at`` is when it was settled, and ``seq`` as which one
    of its run.
    """

    key: bytes
    name: str
    kind: StepKind
    status: StepStatus
    output: str | None = None
    error: str | None = None
    attempt: int = 0
    next_at: datetime.datetime | None = None
    finished_at: datetime.datetime | None = None
    event: Event | None = None
    seq: int | None = None

    @property
    def settled(self) -> bool:
        """Whether the step has its result or its final error."""
        return self.status in SETTLED

    @property
    def size(self) -> int:
        """How many bytes of JSON are recorded of it; the text is ASCII."""
        return len(self.output or "") + len(self.error or "")


@dataclass(frozen=True, slots=True, kw_only=True)
class StepOptions:
    """How one step differs from its function's settings; None leaves a setting to the function.

    *timeout* bounds one attempt. *thread* runs a plain function of an async handler in a thread beside the others.
    *key_argument* is the parameter of the step's function that receives the step's idempotency key.
    """

    retries: int | None = None
    backoff: Backoff | None = None
    timeout: datetime.timedelta | None = None
    thread: bool = False
    key_argument: str | None = None


NO_OPTIONS = StepOptions()


@dataclass(frozen=True, slots=True)
class RunStep:
    """Run *fn* and record its value."""

    ref: StepRef
    fn: Callable[..., Any]
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    options: StepOptions = NO_OPTIONS
    kind = StepKind.RUN

    def result(self, memo: Memo) -> Any:
        """Return the recorded value, or raise the recorded error."""
        if memo.status is StepStatus.FAILED:
            raise recorded_error(self.ref.name, memo)
        return encoding.decode(memo.output or "null", lambda: return_annotation(self.fn))


@dataclass(frozen=True, slots=True)
class AtomicStep(RunStep):
    """Run *fn* in one transaction with the record of its value."""

    kind = StepKind.ATOMIC


@dataclass(frozen=True, slots=True)
class Sleep:
    """Go on at *until*, or after *duration* from when the step is first reached."""

    ref: StepRef
    duration: datetime.timedelta | None = None
    until: datetime.datetime | None = None
    kind = StepKind.SLEEP

    def until_from(self, now: datetime.datetime) -> datetime.datetime:
        """Return when the sleep ends if it is first reached *now*."""
        return self.until if self.until is not None else now + (self.duration or datetime.timedelta())

    def result(self, memo: Memo) -> None:
        """Return None; a moment that differs from the recorded one is logged, because the recorded one stays."""
        if self.until is not None and memo.next_at is not None and abs(self.until - memo.next_at) > _SAME_MOMENT:
            logger.warning(
                "sleep_until %r (%s) was asked to wait until %s and now until %s: the first value stays. "
                "Record a moment that moves in a step of its own, or use sleep()",
                self.ref.name,
                self.ref.where,
                memo.next_at,
                self.until,
            )


@dataclass(frozen=True, slots=True)
class WaitForEvent:
    """Go on with the first event of *patterns* that fits *rule*, or with None after *timeout*.

    *lookback* says which events received earlier count: all since the run's trigger (True), none (False), those of a
    duration, or those since the step it names finished (text). *types* are the classes of the events' data.
    """

    ref: StepRef
    patterns: Sequence[str]
    rule: MatchRule
    timeout: datetime.timedelta
    lookback: bool | datetime.timedelta | str = True
    types: Sequence[EventType[Any]] = ()
    kind = StepKind.WAIT

    def result(self, memo: Memo) -> Event | None:
        """Return the event that came, or None after the time-out; InvalidEvent if its data does not fit its type."""
        return event_types.typed(copy.deepcopy(memo.event), self.types) if memo.event else None


@dataclass(frozen=True, slots=True)
class Invoke:
    """Start *function_id* with *data* as a child run and wait for its result, at most *timeout*.

    Cancelling the run cancels the child that it waits for, unless it is not to *cancel_children*.
    """

    ref: StepRef
    function_id: str
    data: str
    timeout: datetime.timedelta | None = None
    hint: Callable[[], Any] | None = None
    cancel_children: bool = True
    kind = StepKind.INVOKE

    def result(self, memo: Memo) -> Any:
        """Return the child's result, or raise the InvokeError recorded."""
        if memo.status is StepStatus.FAILED:
            raise recorded_error(self.ref.name, memo)
        return encoding.decode(memo.output or "null", self.hint)


@dataclass(frozen=True, slots=True)
class SendEvents:
    """Send *events* in the same commit as the record of having sent them."""

    ref: StepRef
    events: Sequence[Event]
    kind = StepKind.SEND

    def result(self, memo: Memo) -> list[str]:
        """Return the ids of the events."""
        ids: list[str] = encoding.decode(memo.output or "[]")
        return ids


@dataclass(frozen=True, slots=True)
class WaitForSignal:
    """Go on with the data of the first signal of that name, or with None after *timeout*."""

    ref: StepRef
    signal: str
    timeout: datetime.timedelta
    replace: bool = False  #: whether to take the name from a run that waits for it already
    kind = StepKind.SIGNAL

    def result(self, memo: Memo) -> Any:
        """Return the data that was sent, or None after the time-out; raise the StepError of a name that is taken."""
        if memo.status is StepStatus.FAILED:
            raise recorded_error(self.ref.name, memo)
        return encoding.decode(memo.output or "null")


@dataclass(frozen=True, slots=True)
class Summarize:
    """Show *text* with the run in lists."""

    ref: StepRef
    text: str
    kind = StepKind.RUN

    def result(self, memo: Memo) -> None:
        """Return None."""


@dataclass(frozen=True, slots=True)
class ContinueAsNew:
    """End the run, and start another one of its function with *data* in the same commit."""

    ref: StepRef
    data: str
    kind = StepKind.RUN

    def result(self, memo: Memo) -> None:
        """Return None; it is never recorded."""


def annotations_around(fn: Callable[..., Any]) -> Any:
    """Return what *fn* says it returns and, as a branch is often a lambda, what the functions it names say."""
    code = getattr(fn, "__code__", None)
    if code is None:
        return return_annotation(fn)
    scope = {**getattr(fn, "__globals__", {}), **inspect.getclosurevars(fn).nonlocals}
    named = [scope.get(name) for name in code.co_names + code.co_freevars]
    return [return_annotation(each) for each in [fn, *named] if callable(each)]


def return_annotation(fn: Callable[..., Any]) -> Any:
    """Return what *fn* says it returns; its classes are the ones that a recorded value may become again."""
    if isinstance(fn, functools.partial):
        fn = fn.func
    if isinstance(fn, type):
        return fn
    try:
        return typing.get_type_hints(inspect.unwrap(fn)).get("return")
    except (NameError, TypeError, AttributeError):
        # A hint that names something imported for type checkers only cannot be read here.
        return None


def recorded_error(step_name: str, memo: Memo) -> StepError:
    """Return the error that a failed step raises at its call; of a branch that a step's error ended, that error."""
    info = errors.decode_error(memo.error or "{}")
    beside = encoding.decode(memo.output or "{}") if memo.kind in (StepKind.INVOKE, StepKind.BRANCH) else {}
    if "step" in beside and info.cause is not None:
        step_name, info = beside["step"], info.cause
    error = _details(step_name, info) | {"attempts": max(memo.attempt, 1)}
    if memo.kind is not StepKind.INVOKE and "timeout" not in beside:
        return StepError(step_name, **error)
    cls = InvokeTimeout if beside.get("timeout") else InvokeError
    return cls(step_name, run_id=beside.get("run_id"), status=beside.get("status"), **error)


def whose_error(error: StepError) -> str:
    """Return, as JSON text, what a branch that this error ended records beside it, for :func:`recorded_error`."""
    beside: dict[str, Any] = {"step": error.step_id}
    if isinstance(error, InvokeError):
        beside |= {"run_id": error.run_id, "status": error.status, "timeout": isinstance(error, InvokeTimeout)}
    return encoding.encode(beside)


def _details(step_name: str, info: errors.ErrorInfo) -> dict[str, Any]:
    return {
        "type": info.type,
        "message": info.message,
        "traceback": info.traceback,
        "cause": StepError(step_name, **_details(step_name, info.cause)) if info.cause else None,
        "bases": info.bases,
    }
