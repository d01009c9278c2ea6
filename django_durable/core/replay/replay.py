"""Replay: run a handler from the top, with what is recorded of its steps. The heart: read this first.

A handler is plain code that calls steps. In each pass it runs from the top; a step whose memo exists returns it at
once, and the first one without a memo is *performed* by the engine. Where that cannot be done now (it is a sleep, say),
the pass suspends: the handler unwinds, and only then does the engine commit what the run waits for.

Every decision here is a plain call (identify, look up, refuse, read the memo); only "perform" and "call the handler"
touch the outside, so that a handler of another kind needs another caller, not other decisions.
"""

from __future__ import annotations

import os
import reprlib
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, Protocol, TypeVar

from ...exceptions import (
    DurableError,
    EncodingError,
    InvalidEvent,
    InvalidStep,
    NestedStep,
    StepKindMismatch,
    SuspensionSwallowed,
)
from ..events.events import is_storable
from ..values.errors import PACKAGE
from .groups import Branch, Group, Op, branch_prefix, is_within
from .interrupts import Abort, EngineFailed, Interrupt, LeaseLost, Suspend
from .operations import LONGEST_ID, CallSite, Invoke, Memo, RunStep, StepRef, step_key
from .swallowed import swallowing_place

T = TypeVar("T")

History = MutableMapping[bytes, Memo]
_NOT_THE_USERS = (PACKAGE, str(Path(os.__file__).parent / "asyncio") + os.sep)


@dataclass(frozen=True, slots=True)
class Completed:
    """The handler returned *value*."""

    value: Any


@dataclass(frozen=True, slots=True)
class Raised:
    """The handler raised *error*."""

    error: Exception


@dataclass(frozen=True, slots=True)
class Suspended:
    """The handler unwound; *suspend* says what to commit now."""

    suspend: Suspend


@dataclass(frozen=True, slots=True)
class Aborted:
    """The pass can never go on."""

    error: DurableError


@dataclass(frozen=True, slots=True)
class LeaseLostOutcome:
    """Somebody else owns the branch by now, or the run."""


Outcome = Completed | Raised | Suspended | Aborted | LeaseLostOutcome

_body: ContextVar[StepRef | None] = ContextVar("step_body", default=None)  #: whose body is running


class BranchRunner(Protocol):
    """What a pass needs that is for the branches of a group, see :meth:`Replay.result_of`."""

    path: str  #: of the first branch to run

    def call_leaf(self, op: Group, branch: Branch) -> object:
        """Call the body that is a whole branch."""

    def leave(self, op: Group, branch: Branch, outcome: Outcome) -> str | None:
        """Commit what came of a branch; return the path of the group's branch to run next, if there is one."""

    def miss(self) -> None:
        """Commit that the handler did not come to the branch."""


class Replay:
    """One pass of a handler over a run's history.

    *perform* does what an op asks for and returns its memo, or raises an Interrupt. A pass with *branches* is for some
    branches of a group: the handler is run up to that group, then the branches, and nothing after them. *decode* turns
    a recorded result into the value that the handler gets.
    """

    def __init__(
        self,
        history: History,
        perform: Callable[[Op, Memo | None], Memo],
        branches: BranchRunner | None = None,
        *,
        decode: Callable[[Any], Any] | None = None,
    ) -> None:
        self.history = history
        self.used: set[bytes] = set()
        self._decode = decode
        self._perform = perform
        self._branches = branches
        self._reached = False  #: the branch that the pass is for
        self._path = ""
        self._uses: defaultdict[str, Counter[str]] = defaultdict(Counter)  #: of names, by the path of their branch
        self._interrupt: Interrupt | None = None
        self._interrupted: StepRef | None = None

    def identify(self, name: str) -> StepRef:
        """Return which step this call is; refuse it inside another step's body and after an interruption."""
        if self._interrupt is not None:
            raise self._interrupted_again(self._interrupt)
        name = name if isinstance(name, str) else repr(name)
        ordinal = self._uses[self._path][name]
        ref = StepRef(name, ordinal, step_key(self._path, name, ordinal), call_site(), self._path)
        body = _body.get()
        if body is not None:
            raise self._stop(ref, Abort(NestedStep(name, str(ref.where), body.name)))
        self._uses[self._path][name] += 1
        return ref

    def call(self, name: str, build: Callable[[StepRef], Op]) -> Any:
        """Do what a step call asks for, as *build* says it, and return its result."""
        return self.result_of(self.ask(name, build))

    def ask(self, name: str, build: Callable[[StepRef], Op]) -> Op:
        """Return what a step call asks for; refuse one that can never work."""
        ref = self.identify(name)
        try:
            check_id(name)
            return build(ref)
        except DurableError as error:
            raise self.refuse(ref, error) from None

    def checked(self, name: str, build: Callable[[], T]) -> T:
        """Return what *build* makes; where it raises, the run can never go on."""
        try:
            return build()
        except DurableError as error:
            raise self.refuse(StepRef(name, 0, b"", call_site(), self._path), error) from None

    @property
    def is_replaying(self) -> bool:
        """Whether something is recorded that the pass has not come to yet."""
        return any(key not in self.used for key in self.history)

    def refuse(self, ref: StepRef, error: DurableError) -> Interrupt:
        """Return the interruption of a step call that can never work."""
        if not isinstance(error, InvalidStep):
            error = InvalidStep(ref.name, str(ref.where), str(error))
        return self._stop(ref, Abort(error))

    def result_of(self, op: Op) -> Any:
        """Return what is recorded for *op*, performing it first if nothing is."""
        memo = self.recorded(op)
        if isinstance(op, Group) and self._branches and self._branches.path.startswith(branch_prefix(op.ref)):
            self._enter(op, self._branches)
        if memo is None:
            memo = self._performed(op, self.history.get(op.ref.key))
        return self.value(op, memo)

    def recorded(self, op: Op) -> Memo | None:
        """Return the memo of *op* if it is settled; refuse one of another kind."""
        self.used.add(op.ref.key)
        memo = self.history.get(op.ref.key)
        if memo is not None and memo.kind is not op.kind:
            raise self.refuse(op.ref, StepKindMismatch(op.ref.name, str(op.ref.where), memo.kind, op.kind))
        if isinstance(op, Group):
            self.used.update(branch.ref.key for branch in op.branches)
            return memo if op.is_decided(self.history) else None
        return memo if memo is not None and memo.settled else None

    def value(self, op: Op, memo: Memo) -> Any:
        """Return the recorded value, or raise the recorded error."""
        try:
            if isinstance(op, Group):
                return op.result_from(self.history, partial(self._decoded, op.ref))
            value = op.result(memo)
        except (EncodingError, InvalidEvent) as error:
            raise self.refuse(op.ref, error) from None
        return self._decoded(op.ref, value) if self._decode and isinstance(op, RunStep | Invoke) else value

    def _decoded(self, ref: StepRef, value: Any) -> Any:
        try:
            return self._decode(value) if self._decode else value
        except Exception as error:  # of a project's hook, for which the handler is not to blame
            raise self._stop(ref, EngineFailed(error)) from error

    def _performed(self, op: Op, memo: Memo | None) -> Memo:
        try:
            memo = self.history[op.ref.key] = self._perform(op, memo)
        except Interrupt as interrupt:
            # A step called in the body stopped the pass already; its interruption is the one that counts.
            raise self._stop(op.ref, self._interrupt or interrupt) from None
        except DurableError as error:
            raise self.refuse(op.ref, error) from None
        except Exception as error:
            # Errors of a step's function are part of its memo; this one is the engine's own.
            raise self._stop(op.ref, EngineFailed(error)) from error
        return memo

    def unused(self) -> list[Memo]:
        """Return what is recorded of the handler's own steps, not those of branches, and this pass did not ask for."""
        left = [memo for key, memo in self.history.items() if key not in self.used and memo.settled]
        named = Counter(memo.name for memo in self.history.values()) if left else {}
        return [memo for memo in left if _is_first_level(memo, named[memo.name])]

    def call_body(self, ref: StepRef, fn: Callable[[], Any], /) -> Any:
        """Call the function of a step; steps called meanwhile are refused."""
        token = _body.set(ref)
        try:
            return fn()
        finally:
            _body.reset(token)
            if self._interrupt is not None:
                raise self._interrupt

    # Branches

    def _enter(self, op: Group, branches: BranchRunner) -> NoReturn:
        """Run the branches of this group that the pass is for, one after the other; then unwind the handler."""
        path: str | None = branches.path
        while path is not None:
            branch = next((each for each in op.branches if is_within(path, each.path)), None)
            if branch is None:
                break
            self._reached = self._reached or path == branch.path
            outcome = self._run_branch(op, branch, branches)
            if path != branch.path or isinstance(outcome, Aborted):
                break  # The branches of a group inside this one were run; or the whole run is over.
            path = self._leave(op, branch, outcome, branches)
        raise self._stop(op.ref, self._interrupt or Suspend(_nothing))

    def _run_branch(self, op: Group, branch: Branch, branches: BranchRunner) -> Outcome:
        outer, self._path = self._path, branch.path
        self._uses.pop(branch.path, None)  # It may run once more in this pass.
        try:
            return self._outcome(partial(branches.call_leaf, op, branch) if branch.leaf else branch.fn)
        finally:
            self._path = outer
            if isinstance(self._interrupt, (Suspend, LeaseLost)):
                self._interrupt = None

    def _leave(self, op: Group, branch: Branch, outcome: Outcome, branches: BranchRunner) -> str | None:
        try:
            return branches.leave(op, branch, outcome)
        except Exception as error:
            raise self._stop(op.ref, EngineFailed(error)) from error

    def _stop(self, ref: StepRef, interrupt: Interrupt) -> Interrupt:
        if self._interrupt is None:
            self._interrupt, self._interrupted = interrupt, ref
        return self._interrupt

    def run(self, handler: Callable[[], Any]) -> Outcome:
        """Run the handler, its event and its steps given already, once from the top to its end or its suspension."""
        outcome = self._outcome(handler)
        if isinstance(outcome, LeaseLostOutcome):
            raise LeaseLost
        if self._branches and not self._reached and not isinstance(outcome, Aborted):
            return Suspended(Suspend(self._branches.miss))
        return outcome

    def _outcome(self, code: Callable[[], Any]) -> Outcome:
        outcome: Outcome
        try:
            outcome = Completed(code())
        except Interrupt as interrupt:
            return self._outcome_of(interrupt)
        except Exception as error:
            outcome = Raised(error)
        return outcome if self._interrupt is None else self._swallowed(self._interrupt)

    def _interrupted_again(self, interrupt: Interrupt) -> Interrupt:
        """Return what a step call raises after the interruption; in a ``finally`` or ``__exit__`` that is no fault."""
        if isinstance(interrupt, Suspend) and not _is_handled(interrupt):
            interrupt = self._interrupt = Abort(self._swallow_error(interrupt))
        return interrupt

    def _outcome_of(self, interrupt: Interrupt) -> Outcome:
        if isinstance(interrupt, Abort):
            return Aborted(interrupt.error)
        if isinstance(interrupt, Suspend):
            return Suspended(interrupt)
        if isinstance(interrupt, LeaseLost):
            return LeaseLostOutcome()
        raise interrupt.error if isinstance(interrupt, EngineFailed) else interrupt

    def _swallowed(self, interrupt: Interrupt) -> Outcome:
        if not isinstance(interrupt, Suspend):
            return self._outcome_of(interrupt)
        return Aborted(self._swallow_error(interrupt))

    def _swallow_error(self, interrupt: Suspend) -> SuspensionSwallowed:
        ref = self._interrupted
        assert ref is not None  # it is set together with the interruption
        return SuspensionSwallowed(ref.name, str(ref.where), swallowing_place(interrupt.__traceback__))


def _is_first_level(memo: Memo, uses: int) -> bool:
    return any(memo.key == step_key("", memo.name, ordinal) for ordinal in range(uses))


def in_a_body() -> bool:
    """Tell whether the code that runs now is the body of a step."""
    return _body.get() is not None


@contextmanager
def in_body(ref: StepRef) -> Iterator[None]:
    """Refuse steps that are called in this context, because it is the body of the step *ref*."""
    token = _body.set(ref)
    try:
        yield
    finally:
        _body.reset(token)


def check_id(id: object) -> None:
    """Raise DurableError unless *id* can be a step's."""
    if not is_storable(id, LONGEST_ID):
        raise DurableError(f"a step's id is text of 1 to {LONGEST_ID} characters, not {reprlib.repr(id)}")


def _nothing() -> None:
    """Commit nothing: all is committed."""


def _is_handled(interrupt: Interrupt) -> bool:
    """Tell whether the code that runs now handles *interrupt*, or an error that came of it."""
    error = sys.exc_info()[1]
    while error is not None and error is not interrupt:
        error = error.__context__
    return error is interrupt


def call_site() -> CallSite:
    """Return the nearest line of the user's on the stack."""
    frame = sys._getframe(2)
    while frame.f_code.co_filename.startswith(_NOT_THE_USERS) and frame.f_back is not None:
        frame = frame.f_back
    return CallSite(frame.f_code.co_filename, frame.f_lineno)
