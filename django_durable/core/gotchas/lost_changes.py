"""Find variables of a handler that the body of a step changes: later passes do not call the body."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from .handler_source import DEFINITIONS, FUNCTIONS, Function, HandlerTree, StepCall, bound_names

_CHANGES = frozenset({"append", "appendleft", "extend", "extendleft", "insert", "popitem", "setdefault"})
# Managers and query sets have these too: they count where the variable is known to be a container.
_CHANGES_OF_CONTAINERS = frozenset({"add", "clear", "discard", "pop", "popleft", "remove", "reverse", "sort", "update"})
_CONTAINERS = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
_CONTAINER_CLASSES = frozenset({"list", "dict", "set", "bytearray", "deque", "defaultdict", "Counter", "OrderedDict"})


@dataclass(frozen=True, slots=True)
class LostChange:
    """A change in a step's body that the handler builds on."""

    node: ast.AST
    name: str
    step: StepCall

    @property
    def message(self) -> str:
        """Tell the consequence."""
        return (
            f"The body of step {self.step.id!r} changes {self.name!r}, which is read outside it: "
            "later passes do not call the body, so the change is lost"
        )

    @property
    def remedy(self) -> str:
        """Tell the code to write instead."""
        return f'Return the value from the body: {self.name} = step.{self.step.method}("{self.step.id}", …).'


def find(tree: HandlerTree) -> Iterator[LostChange]:
    """Yield each change of a handler's variable in a step's body, where the variable is read outside the body."""
    for step, body in tree.bodies:
        inside = list(tree.reached_from(body))
        own = {name for node in inside if isinstance(node, FUNCTIONS) for name in bound_names(node)}
        outside = set(ast.walk(tree.node)) - set(inside)
        for name, attribute, node in _changes(tree, inside):
            lasts = name in own or name not in tree.bound or _is_result_of(tree, name, step, body)
            if not lasts and any(_reads(part, name, attribute) for part in outside):
                yield LostChange(node, name, step)


_Change = tuple[str, str | None, ast.AST]  #: the variable, its attribute if the change sets one, and the place


def _changes(tree: HandlerTree, nodes: list[ast.AST]) -> Iterator[_Change]:
    outer = {name for node in nodes if isinstance(node, ast.Nonlocal) for name in node.names}
    for node in nodes:
        if isinstance(node, ast.Name) and isinstance(node.ctx, (ast.Store, ast.Del)) and node.id in outer:
            yield node.id, None, node
        elif isinstance(node, ast.Subscript) and isinstance(node.ctx, (ast.Store, ast.Del)):
            yield from ((name, None, node) for name in _container(node))
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, (ast.Store, ast.Del)):
            yield from ((name, node.attr, node) for name in _container(node.value))
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            yield from ((name, None, node) for name in _changed_by(tree, node.func))


def _changed_by(tree: HandlerTree, method: ast.Attribute) -> list[str]:
    names = _container(method.value)
    if method.attr in _CHANGES:
        return names
    return [name for name in names if method.attr in _CHANGES_OF_CONTAINERS and _is_container(tree, name)]


def _container(node: ast.AST) -> list[str]:
    """Return the variable that ``variable`` or ``variable[…][…]`` is a part of, if it is one."""
    while isinstance(node, ast.Subscript):
        node = node.value
    return [node.id] if isinstance(node, ast.Name) else []


def _reads(node: ast.AST, name: str, attribute: str | None) -> bool:
    if attribute is not None:
        if not isinstance(node, ast.Attribute) or node.attr != attribute:
            return False
        return isinstance(node.ctx, ast.Load) and _reads(node.value, name, None)
    return isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Load)


def _is_container(tree: HandlerTree, name: str) -> bool:
    """Tell whether the handler binds *name* to a list, a dictionary, a set or the like."""
    for node in ast.walk(tree.node):
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            named = any(isinstance(target, ast.Name) and target.id == name for target in targets)
            if named and _makes_container(node.value):
                return True
    return False


def _makes_container(value: ast.expr) -> bool:
    if isinstance(value, ast.Call):
        return ast.unparse(value.func).rpartition(".")[2] in _CONTAINER_CLASSES
    return isinstance(value, _CONTAINERS)


def _is_result_of(tree: HandlerTree, name: str, step: StepCall, body: Function) -> bool:
    """Tell whether the step's result is assigned to the variable: ``name = step.run("id", body)``."""
    if isinstance(body, DEFINITIONS) and step.node in body.decorator_list:
        return body.name == name
    parent = next(tree.parents(step.node))
    parent = next(tree.parents(parent)) if isinstance(parent, ast.Await) else parent
    targets = parent.targets if isinstance(parent, ast.Assign) else []
    return any(isinstance(part, ast.Name) and part.id == name for each in targets for part in ast.walk(each))
