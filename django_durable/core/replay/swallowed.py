"""Find the clause of a handler that swallowed an exception."""

from __future__ import annotations

import ast
import linecache
from collections.abc import Iterator, Sequence
from types import TracebackType

LEAVING = (ast.Return, ast.Break, ast.Continue, ast.Raise)


def swallowing_place(traceback: TracebackType | None) -> str:
    """Return file and line of the clause where an exception with that traceback ended.

    The outermost frame of the traceback is the one that caught it, at a line inside a ``try`` or ``with``: the source
    tells which clause that was. Without source, the line inside the ``try`` is the best answer.
    """
    if traceback is None:
        return "an unknown line"
    file, line = traceback.tb_frame.f_code.co_filename, traceback.tb_lineno
    try:
        tree = ast.parse("".join(linecache.getlines(file)))
    except SyntaxError:
        return f"{file}:{line}"
    *_, place = max(_clauses_around(tree, line), default=(line,))
    return f"{file}:{place}"


def _clauses_around(tree: ast.AST, line: int) -> Iterator[tuple[bool, int, int]]:
    """Yield, for each clause that could swallow at *line*, how sure that is, where its statement starts, and its line.

    Most ``with`` statements swallow nothing, so any clause of a ``try`` is the better guess.
    """
    for node in ast.walk(tree):
        if isinstance(node, (ast.Try, ast.TryStar)):
            for clause in _clauses(node, line):
                yield True, node.lineno, clause
        elif isinstance(node, (ast.With, ast.AsyncWith)) and _spans(node.body, line):
            yield False, node.lineno, node.lineno


def _clauses(node: ast.Try | ast.TryStar, line: int) -> Iterator[int]:
    handled: list[ast.stmt | ast.ExceptHandler] = [*node.body, *node.handlers, *node.orelse]
    if _spans(handled, line):
        leaving = (inner for each in node.finalbody for inner in ast.walk(each) if isinstance(inner, LEAVING))
        yield from (inner.lineno for inner in leaving)
    if _spans(node.body, line):
        yield from (each.lineno for each in node.handlers if catches_everything(each) and not raises_again(each))


def catches_everything(handler: ast.ExceptHandler) -> bool:
    """Tell whether a clause catches suspensions, which are no Exception."""
    return handler.type is None or any(
        isinstance(name, ast.Name) and name.id == "BaseException" for name in ast.walk(handler.type)
    )


def raises_again(handler: ast.ExceptHandler) -> bool:
    """Tell whether a clause ends by raising again what it caught."""
    last = handler.body[-1]
    return isinstance(last, ast.Raise) and last.exc is None


def _spans(nodes: Sequence[ast.stmt | ast.ExceptHandler], line: int) -> bool:
    return bool(nodes) and any(node.lineno <= line <= (node.end_lineno or node.lineno) for node in nodes)
