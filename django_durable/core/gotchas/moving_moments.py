"""Find moments to sleep until that are computed from the clock: each pass computes another one, and the first stays."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from . import side_effects
from .handler_source import HandlerTree, StepCall

_Assignment = ast.Assign | ast.AnnAssign | ast.AugAssign | ast.NamedExpr


@dataclass(frozen=True, slots=True)
class MovingMoment:
    """A ``sleep_until`` whose moment is computed from *clock*, a call that reads the clock outside a step."""

    step: StepCall
    clock: ast.Call

    @property
    def message(self) -> str:
        """Tell the consequence."""
        return (
            f"The moment of sleep_until {self.step.id!r} moves: {ast.unparse(self.clock.func)}() at line "
            f"{self.clock.lineno} gives another value in every pass, and the first one stays"
        )

    @property
    def remedy(self) -> str:
        """Tell the code to write instead."""
        return (
            f'Use step.sleep("{self.step.id}", duration) to wait from now, or compute the moment in a step: '
            'when = step.run("an-id", function).'
        )


def find(tree: HandlerTree) -> Iterator[MovingMoment]:
    """Yield each ``sleep_until`` whose moment moves, following names in the order of the source."""
    names: dict[str, ast.Call] = {}  #: names that hold a value computed from this call
    for node in tree.pass_nodes():
        if isinstance(node, _Assignment) and node.value:
            _assign(tree, names, node, node.value)
        call = tree.step_call(node)
        if call and call.method == "sleep_until":
            clocks = (_clock_in(tree, names, argument) for argument in call.arguments)
            yield from (MovingMoment(call, clock) for clock in clocks if clock)


def _assign(tree: HandlerTree, names: dict[str, ast.Call], node: _Assignment, value: ast.expr) -> None:
    clock = _clock_in(tree, names, value)
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    for name in (part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)):
        if clock is not None:
            names[name] = clock
        elif not isinstance(node, ast.AugAssign):
            names.pop(name, None)


def _clock_in(tree: HandlerTree, names: dict[str, ast.Call], value: ast.expr) -> ast.Call | None:
    """Return the reading of the clock that *value* is computed from; the result of a step is recorded."""
    if tree.step_call(value):
        return None
    if isinstance(value, ast.Call) and side_effects.clock(value, tree.origin):
        return value
    if isinstance(value, ast.Name):
        return names.get(value.id)
    parts = (each for each in ast.iter_child_nodes(value) if isinstance(each, (ast.expr, ast.keyword)))
    values = (part.value if isinstance(part, ast.keyword) else part for part in parts)
    return next((clock for each in values if (clock := _clock_in(tree, names, each))), None)
