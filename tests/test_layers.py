"""The laws of the package's layers, read from its syntax trees; each law is also shown to catch a bad sample."""

from __future__ import annotations

import ast
import re
import sys
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import django_durable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = "django_durable"
HELPERS_OF_CORE = {"cel_expr_python", "cronsim"}
# The first entry that names a module, or a package above it, gives its storey; whatever is not listed is a surface.
STOREYS = {
    "core": 0,
    "exceptions": 0,
    "conf": 1,
    "signals": 1,
    "middleware": 1,
    "codecs": 1,
    "encryption": 1,
    "fields": 1,
    "model_references": 1,
    "models": 1,
    "managers": 1,
    "migrations": 1,
    "drivers.base": 1,
    "engine": 2,
    "drivers": 3,
    "tasks": 3,
}
SURFACE = 4
# Inside core/ and engine/, from the ground up: a room imports from the floors below its own, and not from the rooms
# beside it; the single files on the ground of core import one another. Rooms of the future have their floor already.
STAIRCASES = {
    "core": (
        {
            *("clock", "durations", "fault_points", "ids", "option_values"),
            *("processes", "retries", "suggestions", "type_variables"),
        },
        {"values"},
        {"events"},
        {"flow"},
        {"replay"},
        {"functions"},
        {"gotchas"},
    ),
    "engine": (
        {"store"},
        {"events", "flow"},
        {"runs"},
        {"leases"},
        {"scheduler", "steps"},
        {"turns"},
        {"workers"},
    ),
}
SEPARATE_SURFACES = ("admin", "api", "management")
CLOCK = f"{ROOT}.core.clock"
OTHER_CLOCKS = {
    *(f"datetime.{name}" for name in ("datetime.now", "datetime.utcnow", "datetime.today", "date.today")),
    *(f"django.utils.timezone.{name}" for name in ("now", "localdate")),
    *("time.time", "time.time_ns"),
}
WRITES = re.compile(r"^a?(save|delete|bulk_create|bulk_update|get_or_create|update_or_create)$")
QUERYSET_WRITES = re.compile(r"^a?(create|update)$")
QUERYSET = re.compile(r"\b(objects|_default_manager|_base_manager|queryset|qs|filter|exclude|all|using|\w+_set)\b")
WRITING_SQL = re.compile(r"^\s*(insert\s+into|update\s+\S+\s+set|delete\s+from)\b", re.IGNORECASE)

PICKLES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "marshal", "shelve", "jsonpickle", "yaml", "copyreg"}
EVALUATORS = {"eval", "exec", "compile", "__import__", "marshal.loads", "marshal.load"}
IMPORTERS = {"importlib", "importlib.import_module", "pydoc.locate", "django.utils.module_loading.import_string"}
WRITERS_ONLY = {
    (f"{ROOT}.core.functions.handlers", "marshal")
}  # hashes the code of a handler whose source cannot be read
READERS_OF_SETTINGS = {f"{ROOT}.{name}" for name in ("codecs", "middleware", "drivers.base", "drivers.celery.driver")}

Modules = dict[str, ast.Module]


@cache
def _package() -> Modules:
    folder = Path(django_durable.__file__).parent
    return {
        _dotted(path := file.relative_to(folder.parent)): _parse(file.read_text(), path)
        for file in folder.rglob("*.py")
    }


def _dotted(file: Path) -> str:
    return ".".join(file.with_suffix("").parts).removesuffix(".__init__")


def _parse(source: str, path: Path) -> ast.Module:
    """Return the syntax tree of a file of the package; relative imports name the whole module, and keep their level."""
    tree = ast.parse(source)
    above = path.parent.parts
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            node.module = ".".join([*above[: len(above) - node.level + 1], *filter(None, [node.module])])
    return tree


def _storey(module: str) -> int:
    name = module.removeprefix(f"{ROOT}.")
    return next((storey for prefix, storey in STOREYS.items() if f"{name}.".startswith(f"{prefix}.")), SURFACE)


def _imports(tree: ast.AST, modules: Modules) -> Iterator[str]:
    """Yield the dotted name of every module that the tree imports, wherever it stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            members = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (member if member in modules else node.module for member in members)


def _at_import_time(tree: ast.Module) -> ast.Module:
    """Return the tree without function bodies and without what only type checkers read."""

    class Runtime(ast.NodeTransformer):
        def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
            return None

        def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
            return None

        def visit_If(self, node: ast.If) -> ast.AST | None:
            return None if "TYPE_CHECKING" in ast.unparse(node.test) else self.generic_visit(node)

    return Runtime().visit(ast.parse(ast.unparse(tree)))


def imports_point_down(modules: Modules) -> Iterator[str]:
    """A module imports from its own storey and those below."""
    for name, tree in modules.items():
        for imported in _imports(tree, modules):
            if name != ROOT and _is_ours(imported) and _storey(imported) > _storey(name):
                yield f"{name} (storey {_storey(name)}) imports {imported} (storey {_storey(imported)})"


def the_root_imports_core_only(modules: Modules) -> Iterator[str]:
    """The root is imported before Django's apps are ready, so at import time it reaches for core alone."""
    for imported in _imports(_at_import_time(modules[ROOT]), modules):
        if _is_ours(imported) and _storey(imported) > 0:
            yield f"{ROOT} imports {imported} at import time"


def rooms_stand_on_a_staircase(modules: Modules) -> Iterator[str]:
    """Inside core and engine no room imports from one above it, or beside it, not even a type."""
    for name, tree in modules.items():
        for imported in _imports(tree, modules):
            (own, floor), (other, below) = _floor(name), _floor(imported)
            if own and other and own[0] == other[0] and own != other and (below > floor or below == floor > 0):
                yield f"{name} imports {imported}"


def _floor(module: str) -> tuple[tuple[str, str] | None, int]:
    """Return the storey and the room of a module inside core or engine, and the room's floor; None outside of them."""
    storey, _, inside = module.removeprefix(f"{ROOT}.").partition(".")
    room = inside.partition(".")[0]
    if storey not in STAIRCASES or not room:
        return None, 0
    floors = [floor for floor, rooms in enumerate(STAIRCASES[storey]) if room in rooms]
    return (storey, room), floors[0] if floors else -1


def every_room_has_a_floor(modules: Modules) -> Iterator[str]:
    """A new room of core or engine takes its place on the staircase."""
    for name in modules:
        room, floor = _floor(name)
        if room and floor < 0:
            yield f"{name} stands on no floor of STAIRCASES"


def core_has_no_framework(modules: Modules) -> Iterator[str]:
    """Core and the errors import the standard library, two small helpers, and what type checkers bring themselves."""
    for name, tree in modules.items():
        runs = {*_imports(_at_import_time(tree), modules)}
        for imported in _imports(tree, modules) if _storey(name) == 0 else ():
            if imported == "typing_extensions" and imported not in runs:
                continue
            if imported.partition(".")[0] not in sys.stdlib_module_names | HELPERS_OF_CORE | {ROOT}:
                yield f"{name} imports {imported}"


def one_driver_imports_celery(modules: Modules) -> Iterator[str]:
    """Celery is imported by its driver and by nobody else."""
    for name, tree in modules.items():
        for imported in _imports(tree, modules):
            if imported.partition(".")[0] in {"celery", "kombu"} and not f"{name}.".startswith(
                f"{ROOT}.drivers.celery."
            ):
                yield f"{name} imports {imported}"


def surfaces_stand_apart(modules: Modules) -> Iterator[str]:
    """The admin, the REST API and the commands never import one another."""
    for name, tree in modules.items():
        for imported in _imports(tree, modules):
            pair = {_room(name), _room(imported)}
            if len(pair) == 2 and pair <= set(SEPARATE_SURFACES):
                yield f"{name} imports {imported}"


def _room(module: str) -> str:
    return module.removeprefix(f"{ROOT}.").partition(".")[0] if module.startswith(f"{ROOT}.") else ""


def imports_have_no_cycle(modules: Modules) -> Iterator[str]:
    """No module needs itself, not even for a type or inside a function; only managers name the models they are of."""
    graph = {name: {*_imports(tree, modules)} & {*modules} - {name} for name, tree in modules.items()}
    graph[f"{ROOT}.managers"] = set()
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        yield " -> ".join(error.args[1])


def imports_of_the_package_are_relative(modules: Modules) -> Iterator[str]:
    """A module names others of the package from where it stands; Django writes the imports of migrations."""
    for name, tree in modules.items():
        for node in ast.walk(tree) if _room(name) != "migrations" else ():
            absolute = isinstance(node, ast.Import) or (isinstance(node, ast.ImportFrom) and not node.level)
            if absolute and any(_is_ours(imported) for imported in _imports(ast.Module([node], []), modules)):
                yield f"{name}: {ast.unparse(node)}"


def _is_ours(module: str) -> bool:
    return f"{module}.".startswith(f"{ROOT}.")


def one_clock(modules: Modules) -> Iterator[str]:
    """Nobody but core.clock asks another clock for the time, so that time can be moved."""
    for name, tree in modules.items():
        known = _imported_names(tree)
        for node in ast.walk(tree) if name != CLOCK else ():
            if isinstance(node, ast.Attribute | ast.Name):
                first, dot, rest = ast.unparse(node).partition(".")
                if known.get(first, first) + dot + rest in OTHER_CLOCKS:
                    yield f"{name}:{node.lineno} uses {ast.unparse(node)}"


def _imported_names(tree: ast.Module) -> dict[str, str]:
    """Return what the names that a module imports stand for: ``{"dt": "datetime"}``."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            prefix = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
            names |= {alias.asname or alias.name: f"{prefix}{alias.name}" for alias in node.names}
    return names


def only_the_engine_writes(modules: Modules) -> Iterator[str]:
    """Rows are written in engine/ and in migrations; ``dict.update`` and its like are no writes."""
    for name, tree in modules.items():
        if _room(name) in {"engine", "migrations"}:
            continue
        for node in ast.walk(tree):
            if _writes(node):
                yield f"{name}:{node.lineno} writes: {ast.unparse(node)}"


def _writes(node: ast.AST) -> bool:
    if isinstance(node, ast.Constant):
        return isinstance(node.value, str) and bool(WRITING_SQL.match(node.value))
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
        return False
    method, receiver = node.func.attr, ast.unparse(node.func.value)
    return bool(WRITES.match(method) or (QUERYSET_WRITES.match(method) and QUERYSET.search(receiver)))


def nothing_turns_data_into_code(modules: Modules) -> Iterator[str]:
    """No pickle and its kin, no evaluation of text; modules are imported by name for settings only."""
    for name, tree in modules.items():
        known = _imported_names(tree)
        for imported in known.values():
            if (imported.partition(".")[0] in PICKLES and (name, imported) not in WRITERS_ONLY) or (
                imported in IMPORTERS and name not in READERS_OF_SETTINGS
            ):
                yield f"{name} imports {imported}"
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in EVALUATORS:
                yield f"{name}:{node.lineno} calls {ast.unparse(node.func)}"


BAD_SAMPLES: dict[Callable[[Modules], Iterator[str]], tuple[dict[str, str], ...]] = {
    imports_point_down: (
        {"core.steps": "from django_durable.engine import runs", "engine.runs": ""},
        {"engine.runs": "def f():\n    from django_durable.drivers import celery", "drivers.celery": ""},
        {"drivers.base": "import django_durable.drivers.inline", "drivers.inline": ""},
        {"core.steps": "import django_durable", "": ""},
    ),
    rooms_stand_on_a_staircase: (
        {"core.values.tags": "from django_durable.core.events import events", "core.events.events": ""},
        {"core.clock": "def f():\n    from django_durable.core.values import tags", "core.values.tags": ""},
        {
            "engine.leases.leases": "if TYPE_CHECKING:\n    from django_durable.engine.turns.turns import Turn",
            "engine.turns.turns": "",
        },
        {"engine.steps.run": "from django_durable.engine.scheduler import scheduler", "engine.scheduler.scheduler": ""},
    ),
    every_room_has_a_floor: ({"engine.helpers.misc": ""}, {"core.new_room": ""}),
    the_root_imports_core_only: ({"": "from django_durable.models import Run", "models": ""},),
    core_has_no_framework: (
        {"core.steps": "from django.db import models"},
        {"exceptions": "def f():\n    import psycopg"},
        {"core.steps": "import typing_extensions"},
    ),
    one_driver_imports_celery: ({"drivers.inline": "from celery import shared_task"}, {"checks": "import kombu.utils"}),
    surfaces_stand_apart: ({"admin.runs": "from django_durable.api import views", "api.views": ""},),
    imports_have_no_cycle: (
        {"core.a": "from django_durable.core import b", "core.b": "from django_durable.core.a import Op"},
        {
            "core.a": "from django_durable.core import b",
            "core.b": "if TYPE_CHECKING:\n    import django_durable.core.a",
        },
        {"core.a": "from django_durable.core import b", "core.b": "def f():\n    import django_durable.core.a"},
    ),
    imports_of_the_package_are_relative: (
        {"core.a": "from django_durable.core import b", "core.b": ""},
        {"core.a": "import django_durable.exceptions"},
        {"core.a": "def f():\n    from django_durable import Step"},
    ),
    one_clock: (
        {"engine.runs": "from django.utils import timezone\ntimezone.now()"},
        {"engine.runs": "import datetime as dt\ndt.datetime.now(dt.UTC)"},
        {"models": "from django.utils.timezone import now as moment\nfield = Field(default=moment)"},
        {"core.steps": "import time\ntime.time()"},
    ),
    only_the_engine_writes: (
        {"admin.runs": "Run.objects.filter(id=1).update(status='done')"},
        {"admin.runs": "def cancel(request, queryset):\n    queryset.update(status='done')"},
        {"api.views": "Event.objects.create(name='x')"},
        {"model_events": "run.save(update_fields=['status'])"},
        {"drivers.celery": "async def f():\n    await Run.objects.acreate()"},
        {"management.commands.durable": "cursor.execute('DELETE FROM run')"},
    ),
    nothing_turns_data_into_code: (
        {"core.encoding": "import pickle"},
        {"core.functions.handlers": "import marshal\nmarshal.loads(code)"},
        {"engine.rows": "def f(text):\n    from marshal import loads"},
        {"core.expressions": "eval(source)"},
        {"core.classes": "from importlib import import_module"},
        {"core.failures": "import importlib"},
        {"engine.functions": "from django.utils.module_loading import import_string"},
        {"core.registry": "__import__(name)"},
    ),
}
HARMLESS = {
    "": "from .core.replay import replay\ndef send():\n    from .engine.runs import ending",
    "core.values.tags": "if TYPE_CHECKING:\n    import typing_extensions\nimport time\ntime.monotonic()",
    "core.replay.replay": "from ..values import tags\nimport cel_expr_python",
    "engine.runs.ending": "from ...core.values import tags\nfrom . import timers\n"
    "Run.objects.create()\n'UPDATE run SET status = 1'",
    "engine.runs.timers": "from ..store import rows",
    "engine.store.rows": "",
    "codecs": "from django.utils.module_loading import import_string\nre.compile(text)",
    "drivers.celery.task": "import celery\nfrom ...engine.runs import ending",
    "admin.runs": "from ..engine.runs import ending\nending.create(function)",
    "migrations.0002": "import django_durable.fields",
    "fields": "",
    "checks": "context.update(title='x')\ndigest.update(b'')",
}


def _sample(sources: dict[str, str]) -> Modules:
    paths = {name: Path(ROOT, *name.split(".")) if name else Path(ROOT, "__init__") for name in sources}
    return {_dotted(path): _parse(sources[name], path) for name, path in paths.items()}


@pytest.mark.parametrize("law", BAD_SAMPLES, ids=lambda law: law.__name__)
def test_the_package_keeps_the_law(law: Callable[[Modules], Iterator[str]]) -> None:
    assert list(law(_package())) == []


@pytest.mark.parametrize("law", BAD_SAMPLES, ids=lambda law: law.__name__)
def test_the_law_catches_what_it_forbids(law: Callable[[Modules], Iterator[str]]) -> None:
    assert [sources for sources in BAD_SAMPLES[law] if not list(law(_sample(sources)))] == []


@pytest.mark.parametrize("law", BAD_SAMPLES, ids=lambda law: law.__name__)
def test_the_law_allows_what_is_harmless(law: Callable[[Modules], Iterator[str]]) -> None:
    assert list(law(_sample(HARMLESS))) == []


def test_relative_imports_are_read_by_the_whole_name_of_the_module() -> None:
    modules = _package()

    assert f"{ROOT}.exceptions" in _imports(modules[f"{ROOT}.core.durations"], modules)
