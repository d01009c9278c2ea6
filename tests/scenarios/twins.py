"""A handler is written once, as ``async def``; its plain twin is the same code without ``async`` and ``await``."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable
from types import CellType, CodeType, FunctionType
from typing import Any


class _WithoutAwait(ast.NodeTransformer):
    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        plain = ast.FunctionDef(**{name: getattr(node, name) for name in node._fields})
        return self.generic_visit(ast.copy_location(plain, node))

    def visit_AsyncFor(self, node: ast.AsyncFor) -> ast.AST:
        plain = ast.For(**{name: getattr(node, name) for name in node._fields})
        return self.generic_visit(ast.copy_location(plain, node))

    def visit_AsyncWith(self, node: ast.AsyncWith) -> ast.AST:
        plain = ast.With(**{name: getattr(node, name) for name in node._fields})
        return self.generic_visit(ast.copy_location(plain, node))

    def visit_comprehension(self, node: ast.comprehension) -> ast.AST:
        node.is_async = 0
        return self.generic_visit(node)

    def visit_Await(self, node: ast.Await) -> ast.AST:
        return self.visit(node.value)


def plain_twin(handler: Callable[..., Any]) -> Callable[..., Any]:
    """Return a plain function of the same file, lines and closure as the ``async def`` function *handler*."""
    assert isinstance(handler, FunctionType)
    code, closure = _plain_code(handler), _cells(handler)
    twin = FunctionType(code, handler.__globals__, handler.__name__, handler.__defaults__, _closure_of(code, closure))
    twin.__kwdefaults__, twin.__annotations__ = handler.__kwdefaults__, handler.__annotations__
    twin.__module__, twin.__qualname__ = handler.__module__, handler.__qualname__
    return twin


def _plain_code(handler: FunctionType) -> CodeType:
    tree = ast.parse(textwrap.dedent(inspect.getsource(handler)))
    function = _WithoutAwait().visit(tree).body[0]
    function.decorator_list = []
    ast.increment_lineno(function, handler.__code__.co_firstlineno - 1)
    # Inside a function whose parameters they are, the names of the closure stay free.
    around = ast.parse(f"def around({', '.join(_cells(handler))}): pass").body[0]
    assert isinstance(around, ast.FunctionDef)
    around.body = [function]
    module = compile(ast.fix_missing_locations(ast.Module([around], [])), handler.__code__.co_filename, "exec")
    return _code_in(_code_in(module))


def _code_in(code: CodeType) -> CodeType:
    return next(each for each in code.co_consts if isinstance(each, CodeType))


def _cells(handler: FunctionType) -> dict[str, CellType]:
    return dict(zip(handler.__code__.co_freevars, handler.__closure__ or (), strict=True))


def _closure_of(code: CodeType, cells: dict[str, CellType]) -> tuple[CellType, ...]:
    return tuple(cells[name] for name in code.co_freevars)
