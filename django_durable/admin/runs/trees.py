"""The steps of a run as a tree: groups, their branches, and the steps of each branch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.db.models import Count, Q
from django.utils.translation import gettext as _

from ...core.replay.groups import GroupMode
from ...core.replay.operations import SETTLED
from ...models import Run, Step, StepKind, StepStatus
from ...models.steps import STATUS_LABELS
from ..shared.payloads import printable

DEEPEST = 8  #: levels that are indented

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Group:
    """The facts of a group for its line and for the lines of its branches."""

    mode: str
    is_decided: bool
    winner: int | None
    done: int
    branches: int

    @property
    def text(self) -> str:
        """How far it is, in words."""
        numbers = {"mode": self.mode, "winner": self.winner, "done": self.done, "branches": self.branches}
        if self.winner is not None:
            return _("%(mode)s of %(branches)d branches, #%(winner)d won") % numbers
        return _("%(mode)s, %(done)d of %(branches)d branches done") % numbers


Groups = Mapping[bytes, Group]


def groups_of(run: Run, rows: Sequence[Row]) -> dict[bytes, Group]:
    """Return the groups that are among these steps or have a branch there, by their keys, in two queries at most."""
    keys = {row["key"] for row in rows if row["kind"] == StepKind.GROUP}
    keys |= {row["parent_key"] for row in rows if row["kind"] == StepKind.BRANCH}
    if not keys:
        return {}
    steps = Step.objects.using(run._state.db).filter(run_id=run.id)
    is_done = Q(status__in=SETTLED)
    counts = steps.filter(kind=StepKind.BRANCH, parent_key__in=keys).order_by().values_list("parent_key")
    counted = {key: numbers for key, *numbers in counts.annotate(Count("key"), done=Count("key", filter=is_done))}
    groups: Any = steps.filter(key__in=keys).values_list("key", "input", "status", "winner")
    return {bytes(key): _group(*group, *counted.get(bytes(key), (0, 0))) for key, *group in groups}


def _group(mode: str, status: str, winner: int | None, branches: int, done: int) -> Group:
    return Group(mode, status == StepStatus.COMPLETED, winner, done, branches)


def as_tree(rows: Sequence[Row]) -> list[Row]:
    """Return the rows in the order of the tree: each group, its branches below it, and their steps below them."""
    known = {row["key"] for row in rows}
    below: dict[bytes | None, list[Row]] = {}
    for row in rows:
        below.setdefault(row["parent_key"] if row["parent_key"] in known else None, []).append(row)
    return list(_walk(below, None))


def _walk(below: Mapping[bytes | None, Sequence[Row]], parent: bytes | None) -> Iterator[Row]:
    for row in below.get(parent, ()):
        yield row
        yield from _walk(below, row["key"])


def depth(row: Row) -> int:
    """Return how many groups and branches are around a step."""
    around = 2 * (row["branch"].count(">") + 1) if row["branch"] else 0
    return min(int(around + (row["kind"] == StepKind.BRANCH)), DEEPEST)


def title(row: Row, groups: Groups) -> str:
    """Return a step's name, with its ordinal where the name is used again and for the items of a map.

    A step that the run's code did not ask for in the end is marked as unused.
    """
    group = groups.get(row["parent_key"]) if row["kind"] == StepKind.BRANCH else None
    is_item = group is not None and group.mode == GroupMode.MAP
    name = printable(f"{row['name']}#{row['ordinal']}" if row["ordinal"] or is_item else row["name"])
    return _("%(step)s (unused)") % {"step": name} if row["unused"] else name


def status_label(row: Row, groups: Groups) -> str:
    """Return where a step stands, in words."""
    if row["status"] != StepStatus.CANCELLED:
        return str(STATUS_LABELS[row["status"]])
    if row["kind"] != StepKind.BRANCH:
        return _("Closed")
    group = groups.get(row["parent_key"])
    return _("Lost the race") if group and group.is_decided else _("Cancelled")
