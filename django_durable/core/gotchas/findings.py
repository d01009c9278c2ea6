"""Find mistakes in a handler's source that replay punishes: calls repeated in every pass, changes lost between passes.

Every finding is a guess from the source. A comment ``# durable: ok`` on its line says that it is meant.
"""

from __future__ import annotations

import ast
import enum
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ..replay.swallowed import LEAVING, catches_everything, raises_again
from . import lost_changes, missing_awaits, moving_moments, side_effects
from .handler_source import HandlerTree, StepCall, own_nodes, read

_LOGGING = frozenset({"debug", "info", "warning", "error", "exception", "critical", "log"})


class Kind(enum.StrEnum):
    """The subject of a finding; its value is the number of the system check that reports it."""

    SIDE_EFFECT = "W022"
    CHANGING_VALUE = "W023"
    BLOCKING_SLEEP = "W024"
    LOST_CHANGE = "W025"
    MOVING_SLEEP_UNTIL = "W026"
    NOT_AWAITED = "W027"
    SWALLOWED_SUSPENSION = "W028"


@dataclass(frozen=True, slots=True)
class Finding:
    """A likely mistake: ``message`` tells its consequence, ``remedy`` the code to write instead."""

    kind: Kind
    message: str
    remedy: str
    file: str
    line: int


def find(handler: Callable[..., Any]) -> list[Finding]:
    """Return the likely mistakes in a handler's source, by line; none where the source cannot be read.

    Example::

        for finding in find(activation_email.handler):
            print(f"{finding.file}:{finding.line}: {finding.message}")
    """
    tree = read(inspect.unwrap(handler))
    if tree is None:
        return []
    found = {(kind, node.lineno, message): (node, remedy) for kind, node, message, remedy in _guesses(tree)}
    findings = [
        Finding(kind, message, remedy, tree.file, line)
        for (kind, line, message), (node, remedy) in found.items()
        if tree.silenced.isdisjoint(range(line, _last_line(node) + 1))
    ]
    return sorted(findings, key=lambda finding: finding.line)


def _last_line(node: Any) -> int:
    last: int = node.lineno if isinstance(node, ast.ExceptHandler) else node.end_lineno
    return last


_Guess = tuple[Kind, Any, str, str]


def _guesses(tree: HandlerTree) -> Iterator[_Guess]:
    moving = list(moving_moments.find(tree))
    for moment in moving:
        yield Kind.MOVING_SLEEP_UNTIL, moment.step.node, moment.message, moment.remedy
    told = {moment.clock for moment in moving}
    for node in tree.pass_nodes():
        if isinstance(node, ast.Call) and node not in told:
            yield from _of_call(tree, node)
        elif isinstance(node, (ast.Try, ast.TryStar)):
            yield from _of_try(tree, node)
        elif isinstance(node, (ast.With, ast.AsyncWith)):
            yield from _of_with(tree, node)
    for change in lost_changes.find(tree):
        yield Kind.LOST_CHANGE, change.node, change.message, change.remedy
    for call in missing_awaits.missing(tree):
        problem = f"step.{call.method}({call.id!r}) is not awaited, so nothing waits for it"
        remedy = f"Write await step.{call.method}(…), or give it to asyncio.gather() or a TaskGroup."
        yield Kind.NOT_AWAITED, call.node, problem, remedy


def _of_call(tree: HandlerTree, call: ast.Call) -> Iterator[_Guess]:
    text = f"{ast.unparse(call.func)}()"
    if remedy := side_effects.side_effect(call, tree.origin):
        loop = ", and in each round of its loop" if _in_loop(tree, call) else ""
        yield Kind.SIDE_EFFECT, call, f"{text} stands outside a step: it happens in every pass{loop}", remedy
    if remedy := side_effects.sleep(call, tree.origin):
        yield Kind.BLOCKING_SLEEP, call, f"{text} stands outside a step: it holds up a worker, in every pass", remedy
    remedy = side_effects.clock(call, tree.origin) or side_effects.randomness(call, tree.origin)
    if remedy and not _is_harmless(tree, call):
        yield Kind.CHANGING_VALUE, call, f"{text} stands outside a step: it gives another value in every pass", remedy


def _in_loop(tree: HandlerTree, node: ast.AST) -> bool:
    return any(isinstance(each, (ast.For, ast.AsyncFor, ast.While)) for each in tree.parents(node))


def _is_harmless(tree: HandlerTree, node: ast.AST) -> bool:
    """Tell whether a value is only logged, or is an argument of a step: the pass that performs the step decides."""
    for parent in tree.parents(node):
        if isinstance(parent, ast.Call) and isinstance(parent.func, ast.Attribute) and parent.func.attr in _LOGGING:
            return True
        call = tree.step_call(parent)
        if call is not None:
            return call.method != "sleep_until" and any(node in ast.walk(each) for each in call.arguments)
    return False


def _of_try(tree: HandlerTree, node: ast.Try | ast.TryStar) -> Iterator[_Guess]:
    step = _first_step(tree, [*node.body])
    for clause in node.handlers if step else ():
        if step and catches_everything(clause) and not raises_again(clause):
            problem = f"{_clause(clause)} also catches the suspension of step {step.id!r}"
            yield Kind.SWALLOWED_SUSPENSION, clause, problem, "Write except Exception: in its place."
    step = _first_step(tree, [*node.body, *node.handlers, *node.orelse])
    for leaving in (part for each in node.finalbody for part in own_nodes(each) if isinstance(part, LEAVING)):
        if step and not _stays_inside(tree, leaving, node):
            word = type(leaving).__name__.lower()
            problem = f"{word} in a finally block replaces the suspension of step {step.id!r}"
            yield Kind.SWALLOWED_SUSPENSION, leaving, problem, f"Move the {word} behind the try statement."


def _of_with(tree: HandlerTree, node: ast.With | ast.AsyncWith) -> Iterator[_Guess]:
    step = _first_step(tree, [*node.body])
    for call in (item.context_expr for item in node.items if isinstance(item.context_expr, ast.Call)):
        names = [part.id for each in call.args for part in ast.walk(each) if isinstance(part, ast.Name)]
        if step and tree.origin(call.func) == "contextlib.suppress" and "BaseException" in names:
            problem = f"suppress(BaseException) also catches the suspension of step {step.id!r}"
            yield Kind.SWALLOWED_SUSPENSION, call, problem, "Write suppress(Exception) in its place."


def _clause(clause: ast.ExceptHandler) -> str:
    return "except:" if clause.type is None else f"except {ast.unparse(clause.type)}:"


def _first_step(tree: HandlerTree, statements: list[Any]) -> StepCall | None:
    """Return a step that these statements call, or that an inner function they call does."""
    todo = [*statements]
    for statement in todo:
        for node in own_nodes(statement):
            if call := tree.step_call(node):
                return call
            helper = tree.called_helper(node)
            todo += [each for each in helper.body if each not in todo] if helper else []
    return None


def _stays_inside(tree: HandlerTree, leaving: ast.AST, node: ast.AST) -> bool:
    """Tell whether a break or continue only leaves a loop of the finally block itself."""
    if not isinstance(leaving, (ast.Break, ast.Continue)):
        return False
    loops = (ast.For, ast.AsyncFor, ast.While)
    return isinstance(next(each for each in tree.parents(leaving) if each is node or isinstance(each, loops)), loops)
