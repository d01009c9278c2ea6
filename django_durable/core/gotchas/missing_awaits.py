"""Find steps in async code whose result nobody waits for."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from .handler_source import BRANCHING, STEPS, HandlerTree, StepCall, own_nodes

# Expressions that take a coroutine as a part: gather(a, b), [a, b], {"x": a}, *steps, (a for …), lambda: a, yield a.
_PASSES_IT_ON = (
    *(ast.Call, ast.keyword, ast.Starred, ast.List, ast.Tuple, ast.Set, ast.Dict),
    *(ast.ListComp, ast.SetComp, ast.GeneratorExp, ast.DictComp, ast.Lambda, ast.Yield),
)


def missing(tree: HandlerTree) -> Iterator[StepCall]:
    """Yield the calls of steps in async functions that are neither awaited nor handed on."""
    for function in tree.passing:
        if isinstance(function, ast.AsyncFunctionDef):
            for node in own_nodes(function):
                call = tree.step_call(node)
                if call and call.method in STEPS | BRANCHING and not _is_used(tree, call.node, function):
                    yield call


def _is_used(tree: HandlerTree, node: ast.expr, function: ast.AsyncFunctionDef) -> bool:
    parent = next(tree.parents(node))
    if isinstance(parent, ast.Return):
        return function is not tree.node  # The code that awaits a helper may await its result, too.
    if isinstance(parent, (ast.Assign, ast.AnnAssign)):
        targets = parent.targets if isinstance(parent, ast.Assign) else [parent.target]
        return any(_name_is_used(tree, target, function) for target in targets)
    if isinstance(parent, ast.NamedExpr):
        return _name_is_used(tree, parent.target, function) or _is_used(tree, parent, function)
    if isinstance(parent, ast.IfExp) and node is not parent.test:
        return _is_used(tree, parent, function)
    return _hands_on(parent, node)


def _hands_on(parent: ast.AST, node: ast.AST) -> bool:
    if isinstance(parent, ast.Call):
        return parent.func is not node
    if isinstance(parent, ast.FunctionDef | ast.AsyncFunctionDef):
        return True  # a decorator: what it makes is awaited by name
    return isinstance(parent, (ast.Await, *_PASSES_IT_ON))


def _name_is_used(tree: HandlerTree, target: ast.expr, function: ast.AsyncFunctionDef) -> bool:
    if not isinstance(target, ast.Name):
        return True  # kept in an attribute or a container
    loads = (node for node in ast.walk(function) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load))
    return any(load.id == target.id and _hands_on(next(tree.parents(load)), load) for load in loads)
