"""The changes, by operators of Cosmic Ray and of the project: where each can be made, and the changed source."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import parso
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.number_replacer import NumberReplacer
from cosmic_ray.operators.operator import Example, Operator

Place = tuple[tuple[int, int], tuple[int, int]]


class ConditionNegator(Operator):
    """Negates the condition of an ``if``, a ``while`` or a conditional expression, as a whole."""

    def mutation_positions(self, node: Any) -> Iterator[Place]:
        """Yield the condition of the node, if it has one."""
        index = _condition(node)
        if index is not None:
            yield node.children[index].start_pos, node.children[index].end_pos

    def mutate(self, node: Any, index: int) -> Any:
        """Return the node with its condition negated."""
        place = _condition(node)
        assert place is not None
        negated = parso.parse(f"not ({node.children[place].get_code().strip()})").children[0]
        negated.get_first_leaf().prefix = " "
        node.children[place] = negated
        return node

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """Return the change of one line."""
        return (Example("if a or b: pass", "if not (a or b): pass"),)


def _condition(node: Any) -> int | None:
    if node.type in ("if_stmt", "while_stmt"):
        return 1
    return 2 if node.type == "ternary" or (node.type == "test" and len(node.children) == 5) else None


class CallDropper(Operator):
    """Replaces a call whose result nobody uses with ``None``."""

    def mutation_positions(self, node: Any) -> Iterator[Place]:
        """Yield the node if it is a statement that is a call."""
        if node.type in ("atom_expr", "power") and node.parent.type in ("simple_stmt", "suite"):
            last = node.children[-1]
            if last.type == "trailer" and last.children[0].value == "(":
                yield node.start_pos, node.end_pos

    def mutate(self, node: Any, index: int) -> Any:
        """Return None as a statement."""
        return parso.python.tree.Keyword("None", node.start_pos, prefix=node.get_first_leaf().prefix)

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """Return the change of one line."""
        return (Example("lease.keep()\n", "None\n"),)


class ResultDropper(Operator):
    """Lets a function return None in place of its result."""

    def mutation_positions(self, node: Any) -> Iterator[Place]:
        """Yield the result of a ``return`` that has one."""
        if node.type == "return_stmt" and node.children[1].get_code().strip() != "None":
            yield node.children[1].start_pos, node.children[1].end_pos

    def mutate(self, node: Any, index: int) -> Any:
        """Return the statement without its result."""
        node.children[1] = parso.python.tree.Keyword("None", node.children[1].start_pos, prefix=" ")
        return node

    @classmethod
    def examples(cls) -> Sequence[Example]:
        """Return the change of one line."""
        return (Example("def f(): return 1", "def f(): return None"),)


OPERATORS: dict[str, Operator] = {
    "negated condition": ConditionNegator(),
    "shifted number": NumberReplacer(),
    "dropped call": CallDropper(),
    "result of None": ResultDropper(),
}


@dataclass(frozen=True, slots=True)
class Change:
    """One change of one file; *occurrence* counts the places of its kind in the file."""

    file: Path  #: from the repository's root
    kind: str
    occurrence: int
    line: int

    def applied(self) -> str:
        """Return the changed source."""
        changed = mutate_code(self.file.read_text(), OPERATORS[self.kind], self.occurrence)
        assert isinstance(changed, str)
        return changed

    def __str__(self) -> str:
        line = self.file.read_text().splitlines()[self.line - 1].strip()
        return f"{self.file}:{self.line}: {self.kind}: {line}"


def sample(folders: Iterable[Path], count: int, seed: int) -> list[Change]:
    """Return *count* changes of each folder's files, which a seed chooses."""
    chosen = random.Random(seed)
    return [change for folder in folders for change in chosen.sample(list(_changes(folder)), count)]


def _changes(folder: Path) -> Iterator[Change]:
    for file in sorted(folder.rglob("*.py")):
        tree = get_ast(file.read_text())
        for kind, operator in OPERATORS.items():
            places = (place for node in ast_nodes(tree) for place in operator.mutation_positions(node))
            for occurrence, ((line, _), _) in enumerate(places):
                yield Change(file, kind, occurrence, line)
