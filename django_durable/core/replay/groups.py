"""Groups of branches: several lines of steps that go on at the same time, and the paths that name them.

A branch's path is that of the code around it, ``>``, and ``group#ordinal/label``: ``notify#0/mail>render#0/2``.
"""

from __future__ import annotations

import enum
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, Generic, TypeVar

from ...exceptions import DurableError
from ..events.events import is_storable
from ..values import encoding
from .operations import (
    LONGEST_ID,
    NO_OPTIONS,
    ContinueAsNew,
    Invoke,
    Memo,
    RunStep,
    SendEvents,
    Sleep,
    StepKind,
    StepOptions,
    StepRef,
    StepStatus,
    Summarize,
    WaitForEvent,
    WaitForSignal,
    annotations_around,
    recorded_error,
    step_key,
)

R = TypeVar("R")

LONGEST_LABEL = 100
LONGEST_PATH = 500
_NOT_IN_LABELS = ("/", ">")


def branch_prefix(group: StepRef) -> str:
    """Return what the paths of a group's branches begin with; the labels after it hold neither ``/`` nor ``>``."""
    outer = f"{group.branch}>" if group.branch else ""
    return f"{outer}{group.name}#{group.ordinal}/"


def is_within(path: str, branch: str) -> bool:
    """Tell whether *path* is that of *branch* or of a branch of a group inside it."""
    return path == branch or path.startswith(f"{branch}>")


def branch_key(path: str) -> bytes:
    """Return the key of a branch's own record."""
    return step_key(path, "", 0)


def scopes_of(path: str) -> list[str]:
    """Return the paths of the code around a branch, from the handler itself to the branch."""
    parts = path.split(">") if path else []
    return ["", *(">".join(parts[: count + 1]) for count in range(len(parts)))]


def groups_around(path: str) -> list[bytes]:
    """Return the keys of the groups that a branch is in."""
    return [_key_of_group(scope, inner) for scope, inner in pairwise(scopes_of(path))]


def _key_of_group(scope: str, path: str) -> bytes:
    group = path.removeprefix(f"{scope}>" if scope else "").rpartition("/")[0]
    name, _, ordinal = group.rpartition("#")
    return step_key(scope, name, int(ordinal))


class GroupMode(enum.StrEnum):
    """When a group of branches is done."""

    PARALLEL = "parallel"
    RACE = "race"
    MAP = "map"


@dataclass(frozen=True, slots=True)
class Branch:
    """One line of work of a group: *fn* may call several steps; a *leaf* is the body of one step."""

    label: str
    ref: StepRef  #: of the branch's own record; its steps have ``path`` as their branch
    path: str
    fn: Callable[[], Any]
    leaf: bool = False
    annotated: Callable[..., Any] | None = None  #: whose annotations name the classes of its value

    def annotations(self) -> Any:
        """Return the annotations that name the classes of its value."""
        return annotations_around(self.annotated or self.fn)


@dataclass(frozen=True, slots=True)
class RaceResult(Generic[R]):
    """Which branch of a race was first, counted from 0, and what it returned."""

    index: int
    value: R


@dataclass(frozen=True, slots=True)
class Group:
    """Run *branches* at the same time, at most *limit* of them, until all are done or, in a race, the first is."""

    ref: StepRef
    mode: GroupMode
    branches: Sequence[Branch]
    limit: int | None = None
    options: StepOptions = NO_OPTIONS
    kind = StepKind.GROUP

    def missing(self, history: Mapping[bytes, Memo]) -> list[Branch]:
        """Return the branches that nothing is recorded of."""
        return [branch for branch in self.branches if branch.ref.key not in history]

    def is_decided(self, history: Mapping[bytes, Memo]) -> bool:
        """Tell whether its result can be told: by all branches, or by the first of a race."""
        settled = (_is_settled(history.get(branch.ref.key)) for branch in self.branches)
        return any(settled) if self.mode is GroupMode.RACE else all(settled)

    def result_from(self, history: Mapping[bytes, Memo], decode: Callable[[Any], Any] = lambda value: value) -> Any:
        """Return the branches' values in order, or the winner's; raise the error of the first one that failed.

        *decode* turns each recorded value into the one that the handler gets.
        """
        done = [(index, each, memo) for index, each, memo in self._memos(history) if _is_settled(memo)]
        for _, branch, memo in done:
            if memo.status is StepStatus.FAILED:
                raise recorded_error(branch.ref.name, memo)
        values = [(index, decode(_branch_value(branch, memo))) for index, branch, memo in done]
        if self.mode is GroupMode.RACE:
            return RaceResult(*values[0])
        return [value for _, value in values] if self.mode is GroupMode.MAP else tuple(value for _, value in values)

    def _memos(self, history: Mapping[bytes, Memo]) -> Iterator[tuple[int, Branch, Memo]]:
        for index, branch in enumerate(self.branches):
            if branch.ref.key in history:
                yield index, branch, history[branch.ref.key]


def _is_settled(memo: Memo | None) -> bool:
    return memo is not None and memo.settled


def _branch_value(branch: Branch, memo: Memo) -> Any:
    return encoding.decode(memo.output or "null", branch.annotations)


def branches_of(group: StepRef, functions: Mapping[str, Any]) -> tuple[Branch, ...]:
    """Return the branches that call these functions, by label; DurableError for what cannot be a branch."""
    return tuple(_branch(group, label, fn) for label, fn in functions.items())


def leaves_of(group: StepRef, fn: Callable[[Any], Any], items: Iterable[Any]) -> tuple[Branch, ...]:
    """Return the branches that call *fn* with each item, known by its index."""
    return tuple(_leaf(group, index, fn, item) for index, item in enumerate(items))


def _branch(group: StepRef, label: str, fn: Any) -> Branch:
    if not is_storable(label, LONGEST_LABEL) or any(each in label for each in _NOT_IN_LABELS):
        raise DurableError(f"a branch's label has up to {LONGEST_LABEL} characters, without / and >, not {label!r}")
    if not callable(fn) or inspect.iscoroutinefunction(fn):
        raise DurableError(f"a branch is a plain callable without arguments, not {fn!r}. Write lambda: step.run(…)")
    path = _path(group, label)
    ref = StepRef(f"{group.name} {label}"[:LONGEST_ID], 0, branch_key(path), group.where, group.branch)
    return Branch(label, ref, path, fn)


def _leaf(group: StepRef, index: int, fn: Callable[[Any], Any], item: Any) -> Branch:
    path = _path(group, str(index))
    ref = StepRef(group.name, index, branch_key(path), group.where, group.branch)
    return Branch(str(index), ref, path, partial(fn, item), leaf=True, annotated=fn)


def _path(group: StepRef, label: str) -> str:
    if ">" in group.name:
        raise DurableError("the id of a group cannot contain '>', which separates groups in one another")
    path = f"{branch_prefix(group)}{label}"
    if len(path) > LONGEST_PATH:
        raise DurableError(f"its branches are nested too deeply, or its ids are too long: {path[:60]}…")
    return path


Op = RunStep | Sleep | WaitForEvent | WaitForSignal | Invoke | SendEvents | Summarize | ContinueAsNew | Group
"""What a handler can ask for."""
