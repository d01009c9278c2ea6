"""The source of a handler as a syntax tree: which calls are steps, and which code runs in every pass.

Only the handler's own source is read. A function defined in it is a *body* where it is given to a step, and part of the
pass where the handler calls it; any other use says nothing about it, and it is left alone.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import io
import re
import tokenize
import types
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

Definition = ast.FunctionDef | ast.AsyncFunctionDef
Function = Definition | ast.Lambda
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
FUNCTIONS = (*DEFINITIONS, ast.Lambda)

CALLING_BODIES = frozenset({"run", "atomic", "map"})  #: steps that call the functions they are given
BRANCHING = frozenset({"parallel", "race"})  #: their functions are branches, which run in every pass
STEPS = CALLING_BODIES | {"sleep", "sleep_until", "wait_for_event", "wait_for_signal", "invoke", "send_event"}

_SILENCED = re.compile(r"#.*\bdurable: *ok\b")


@dataclass(frozen=True, slots=True, eq=False)
class StepCall:
    """A call of a step: ``step.<method>(…)``, or that method of the steps that ``step.options(…)`` returned."""

    node: ast.Call
    method: str

    @property
    def id(self) -> str:
        """The step's id as people know it: the text without its quotes, or the expression."""
        if not self.node.args:
            return "?"
        first = self.node.args[0]
        return str(first.value) if isinstance(first, ast.Constant) else ast.unparse(first)

    @property
    def arguments(self) -> list[ast.expr]:
        """The arguments of the step after its id."""
        return [*self.node.args[1:], *(keyword.value for keyword in self.node.keywords)]


class HandlerTree:
    """The syntax tree of one handler; made by :func:`read`."""

    def __init__(self, handler: Callable[..., Any], node: Definition, silenced: frozenset[int] = frozenset()) -> None:
        self.node = node
        self.file = handler.__code__.co_filename
        self.silenced = silenced  #: lines whose comment says ``# durable: ok``
        self._handler = handler
        self._parents = {child: parent for parent in ast.walk(node) for child in ast.iter_child_nodes(parent)}
        self._imported = dict(_imports(node))
        self.bound = {name for each in ast.walk(node) if isinstance(each, FUNCTIONS) for name in bound_names(each)}
        self._step_names = self._find_step_names()
        self._definitions = [each for each in ast.walk(node) if isinstance(each, DEFINITIONS) and each != node]
        self.helpers = {each.name: each for each in self._definitions}
        self.step_calls = [call for each in ast.walk(node) if (call := self.step_call(each))]
        self.bodies = list(self._find_bodies())
        self.passing = self._find_passing()

    def _find_step_names(self) -> set[str]:
        names = {[*self.node.args.posonlyargs, *self.node.args.args][1].arg}
        for node in ast.walk(self.node):
            # options = step.options(retries=9)
            if isinstance(node, ast.Assign) and _is_step(node.value, names):
                names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        return names

    def step_call(self, node: ast.AST) -> StepCall | None:
        """Return the call of a step that *node* is, if it is one."""
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            return None
        if node.func.attr not in STEPS | BRANCHING or not _is_step(node.func.value, self._step_names):
            return None
        return StepCall(node, node.func.attr)

    def parents(self, node: ast.AST) -> Iterator[ast.AST]:
        """Yield the nodes around *node*, from the innermost to the function that it stands in."""
        while node in self._parents:
            node = self._parents[node]
            yield node
            if isinstance(node, FUNCTIONS):
                return

    def _find_bodies(self) -> Iterator[tuple[StepCall, Function]]:
        """Yield the functions of this source that are given to steps."""
        for call in self.step_calls:
            if call.method in CALLING_BODIES:
                parts = [part for argument in call.arguments for part in own_nodes(argument)]
                yield from ((call, part) for part in parts if isinstance(part, ast.Lambda))
                yield from ((call, each) for part in parts if (each := self._named(part)))
        for helper in self._definitions:
            for decorator in helper.decorator_list:
                if (decorating := self.step_call(decorator)) and decorating.method in CALLING_BODIES:
                    yield decorating, helper

    def _named(self, node: ast.AST) -> Function | None:
        """Return the function of this source that *node* names without calling it."""
        if not isinstance(node, ast.Name) or not isinstance(node.ctx, ast.Load):
            return None
        parent = self._parents.get(node)
        return None if isinstance(parent, ast.Call) and parent.func is node else self.helpers.get(node.id)

    def _find_passing(self) -> list[Function]:
        """Return the handler and its inner functions that run in every pass."""
        bodies = {body for _, body in self.bodies}
        passing: list[Function] = [self.node]
        for function in passing:
            found = (each for node in own_nodes(function) if (each := self._passed_to(node)))
            passing.extend(dict.fromkeys(each for each in found if each not in bodies and each not in passing))
        return passing

    def _passed_to(self, node: ast.AST) -> Function | None:
        if isinstance(node, ast.Lambda):
            return node
        call = self.step_call(self._parents.get(node, node))
        return self._named(node) if call and call.method in BRANCHING else self.called_helper(node)

    def called_helper(self, node: ast.AST) -> Definition | None:
        """Return the inner function that *node* calls, if it does."""
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            return self.helpers.get(node.func.id)
        return None

    def pass_nodes(self) -> Iterator[ast.AST]:
        """Yield every node that is evaluated in each pass."""
        for function in self.passing:
            yield from own_nodes(function)

    def reached_from(self, function: Function) -> Iterator[ast.AST]:
        """Yield the nodes of *function*, and of the inner functions that it calls."""
        reached = [function]
        for each in reached:
            for node in ast.walk(each):
                yield node
                called = self.called_helper(node)
                reached += [called] if called and called not in reached else []

    def origin(self, node: ast.AST) -> str | None:
        """Return where a global name comes from, as a dotted path: ``django.utils.timezone.now``; None if unknown."""
        names: list[str] = []
        while isinstance(node, ast.Attribute):
            names.insert(0, node.attr)
            node = node.value
        if not isinstance(node, ast.Name):
            return None
        if node.id in self._imported:
            return ".".join([self._imported[node.id], *names])
        value = None if node.id in self.bound else _outer_value(self._handler, node.id)
        while names and isinstance(value, types.ModuleType) and hasattr(value, names[0]):
            value = getattr(value, names.pop(0))
        path = _path(value)
        return path and ".".join([path, *names])


def read(handler: Callable[..., Any]) -> HandlerTree | None:
    """Return the tree of a handler of two parameters; None where its source cannot be read."""
    code = getattr(handler, "__code__", None)
    # Python 3.13 takes the text of "python -c" for the source of any code compiled from a string.
    if code is None or code.co_filename.startswith("<"):
        return None
    try:
        lines, first = inspect.getsourcelines(handler)
        # An indented function is put below a line of its own: dedenting would change texts of several lines.
        indented = lines[0][:1].isspace()
        tree = ast.parse("".join(["if True:\n", *lines] if indented else lines))
    except (OSError, TypeError, SyntaxError, IndentationError):
        return None
    ast.increment_lineno(tree, first - 1 - indented)
    found = (each for each in ast.walk(tree) if isinstance(each, DEFINITIONS) and each.name == handler.__name__)
    node = next(found, None)
    if node is None or len([*node.args.posonlyargs, *node.args.args]) != 2:
        return None
    return HandlerTree(handler, node, _silenced(lines, first))


def _silenced(lines: list[str], first: int) -> frozenset[int]:
    if not any(_SILENCED.search(line) for line in lines):
        return frozenset()
    tokens = tokenize.generate_tokens(io.StringIO("".join(lines)).readline)
    comments: set[int] = set()
    with suppress(tokenize.TokenError, IndentationError):  # at the end of an indented function
        comments.update(each.start[0] for each in tokens if _is_silencing(each))
    return frozenset(first + line - 1 for line in comments)


def _is_silencing(token: tokenize.TokenInfo) -> bool:
    return token.type == tokenize.COMMENT and _SILENCED.search(token.string) is not None


def own_nodes(root: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes evaluated in *root* itself, in the order of the source: inner functions, but not their bodies."""
    yield root
    for child in _body_of(root) if isinstance(root, FUNCTIONS) else ast.iter_child_nodes(root):
        if isinstance(child, FUNCTIONS):
            yield child
            yield from (part for each in _evaluated_at_definition(child) for part in own_nodes(each))
        else:
            yield from own_nodes(child)


def _body_of(function: Function) -> list[ast.AST]:
    return [function.body] if isinstance(function, ast.Lambda) else [*function.body]


def _evaluated_at_definition(function: Function) -> list[ast.expr]:
    defaults = [*function.args.defaults, *filter(None, function.args.kw_defaults)]
    return defaults if isinstance(function, ast.Lambda) else [*function.decorator_list, *defaults]


def bound_names(function: Function) -> set[str]:
    """Return the parameters of a function and the names that it binds itself."""
    arguments = function.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    names = {each.arg for each in every if each}
    outer: set[str] = set()
    for node in own_nodes(function):
        if isinstance(node, (ast.Nonlocal, ast.Global)):
            outer |= set(node.names)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, DEFINITIONS) and node is not function:
            names.add(node.name)
    return names - outer


def _is_step(node: ast.AST, names: set[str]) -> bool:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "options":
        node = node.func.value
    return isinstance(node, ast.Name) and node.id in names


def _imports(root: ast.AST) -> Iterator[tuple[str, str]]:
    for node in ast.walk(root):
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.partition(".")[0]
                yield (alias.asname, alias.name) if alias.asname else (top, top)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from ((alias.asname or alias.name, f"{node.module}.{alias.name}") for alias in node.names)


def _outer_value(handler: Callable[..., Any], name: str) -> Any:
    """Return the value of a name that the handler does not bind."""
    code = handler.__code__
    if name in code.co_freevars and handler.__closure__:
        try:
            return handler.__closure__[code.co_freevars.index(name)].cell_contents
        except ValueError:
            return None  # bound later
    return handler.__globals__.get(name, getattr(builtins, name, None))


def _path(value: Any) -> str | None:
    """Return the dotted path of a module, a class, a function or a method."""
    if isinstance(value, types.ModuleType):
        return value.__name__
    name = getattr(value, "__qualname__", None)
    if not isinstance(name, str):
        return None
    owner = getattr(value, "__self__", None)
    module = value.__module__ or type(owner).__module__
    return f"{module}.{name}"
