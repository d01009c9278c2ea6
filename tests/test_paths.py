"""The law of paths: a test stands where its source stands; each of its halves is also shown to catch bad samples."""

from __future__ import annotations

import ast
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

import pytest

import django_durable

PACKAGE = Path(django_durable.__file__).parent
TESTS = Path(__file__).parent

#: Rooms that answer for no file: behaviours of the whole, and the repository's own tools.
ROOMS_OF_THEIR_OWN = ("acceptance", "behaviours", "benchmarks", "faults", "fuzz", "scenarios", "soak", "typing")
#: Tests of the repository, not of a file: its docs, its laws, its wheel, and the names of the package's root.
TESTS_OF_THE_REPOSITORY = ("test_docs.py", "test_layers.py", "test_packaging.py", "test_paths.py", "test_public_api.py")
#: Sources whose code has no test file at its own path, each with the reason. A line goes when its file comes.
SHOWN_ELSEWHERE = {
    "__init__.py": "its names are one line each, and every other test calls them",
    "admin/__init__.py": "registers the pages that all tests of the admin open",
    "apps.py": "what it connects is tested where it is connected",
    "exceptions.py": "each error is tested where it is raised",
    "migrations/0001_initial.py": "tests/test_migrations.py compares it with the models",
    "models/locks.py": "has a name for people and no more",
    "core/functions/handlers.py": "tests/core/functions/test_functions.py gives it every kind of handler",
    "core/functions/run_logger.py": "step.logger stands in tests/scenarios/test_steps.py",
    "core/functions/step_arguments.py": "tests/core/functions/test_steps.py gives wrong arguments to each step",
    "core/gotchas/handler_source.py": "read through tests/core/gotchas/test_findings.py",
    "core/gotchas/lost_changes.py": "read through tests/core/gotchas/test_findings.py",
    "core/gotchas/missing_awaits.py": "read through tests/core/gotchas/test_findings.py",
    "core/gotchas/moving_moments.py": "read through tests/core/gotchas/test_findings.py",
    "core/gotchas/side_effects.py": "read through tests/core/gotchas/test_findings.py",
    "core/option_values.py": "tests/core/functions/test_functions.py gives it every wrong option",
    "core/suggestions.py": "each suggestion is tested where it is made",
    "core/replay/groups.py": "its groups stand in tests/core/replay/test_replay.py",
    "core/values/references.py": "tests/test_model_references.py registers one",
    "core/values/writing.py": "tests/core/values/test_encoding.py goes through it",
    "engine/runs/histories.py": "tests/testing/test_histories.py reads what it exports",
    "engine/runs/starting.py": "every run of tests/engine starts through it",
    "engine/steps/opening.py": "every wait of tests/engine/steps opens through it",
    "engine/store/portable/queries.py": "tests/engine/store/test_contract.py calls each",
    "engine/store/postgresql/branch_sql.py": "its text runs in tests/engine/store/portable/test_branches.py",
    "engine/store/postgresql/lookup_sql.py": "its text runs in tests/engine/store/portable/test_lookups.py",
    "engine/store/postgresql/run_sql.py": "its text runs in tests/engine/store/test_contract.py",
    "engine/store/rows.py": "every test of the stores makes them",
    "engine/store/step_names.py": "tests/engine/runs/test_interventions.py names steps",
    "engine/turns/branch_turn.py": "tests/scenarios/test_branches.py runs branches",
    "engine/turns/running_bodies.py": "tests/engine/turns/test_async_turns.py runs them",
}


def has_code(source: str) -> bool:
    """Tell whether a file has a function that does something: constants, types and protocols need no test."""
    return any(
        isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not all(map(_does_nothing, node.body))
        for node in ast.walk(ast.parse(source))
    )


def _does_nothing(statement: ast.stmt) -> bool:
    """Tell whether the statement is a docstring or an ellipsis."""
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def place_of_test(source: str) -> str:
    """Return where the tests of a source stand: ``core/values/tags.py`` → ``core/values/test_tags.py``."""
    return Path(source).with_name(f"test_{Path(source).name}").as_posix()


def every_test_has_a_source(sources: Mapping[str, str], tests: Collection[str]) -> Iterator[str]:
    """A test file has a source at the same path, or stands in a room of its own."""
    places = {place_of_test(source) for source in sources} | {*TESTS_OF_THE_REPOSITORY}
    places |= {f"test_{Path(source).parts[0]}.py" for source in sources}  # of a whole package, as the migrations
    for test in tests:
        if test not in places and Path(test).parts[0] not in ROOMS_OF_THEIR_OWN:
            yield test


def every_source_has_a_test(sources: Mapping[str, str], tests: Collection[str]) -> Iterator[str]:
    """A file with code has its tests at the same path, or a reason why it has not."""
    for source, text in sources.items():
        if has_code(text) and place_of_test(source) not in tests and source not in SHOWN_ELSEWHERE:
            yield source


def every_reason_is_needed(sources: Mapping[str, str], tests: Collection[str]) -> Iterator[str]:
    """A reason goes when the tests come, or when the file goes."""
    for source in SHOWN_ELSEWHERE:
        if source not in sources or not has_code(sources[source]) or place_of_test(source) in tests:
            yield source


CODE = "def f(): return 1"
Law = Callable[[Mapping[str, str], Collection[str]], Iterator[str]]
#: Sources and tests that break the law, and sources and tests that keep it.
SAMPLES: dict[Law, tuple[tuple[dict[str, str], set[str]], tuple[dict[str, str], set[str]]]] = {
    every_test_has_a_source: (
        (
            {"core/values/tags.py": CODE, "core/ids.py": CODE},
            {"core/test_tags.py", "test_ids.py", "values/test_tags.py"},
        ),
        (
            {"core/values/tags.py": CODE, "migrations/0001_initial.py": CODE, "signals.py": ""},
            {"core/values/test_tags.py", "test_migrations.py", "test_signals.py", "scenarios/test_time.py"},
        ),
    ),
    every_source_has_a_test: (
        ({"core/values/tags.py": CODE, "engine/a.py": f"class A:\n    async {CODE}"}, {"core/test_tags.py"}),
        (
            {
                "core/values/tags.py": CODE,
                "core/words.py": '"""What they say."""\nWORDS = ("a", "b")',
                "engine/steps/turn.py": 'class Turn(Protocol):\n    def f(self):\n        """Do it."""',
                "exceptions.py": CODE,
            },
            {"core/values/test_tags.py"},
        ),
    ),
    every_reason_is_needed: (
        ({"exceptions.py": CODE, "apps.py": "A = 1"}, {"test_exceptions.py"}),
        (dict.fromkeys(SHOWN_ELSEWHERE, CODE), {"core/test_ids.py"}),
    ),
}


def _package() -> dict[str, str]:
    return {file.relative_to(PACKAGE).as_posix(): file.read_text() for file in PACKAGE.rglob("*.py")}


def _tests() -> set[str]:
    return {file.relative_to(TESTS).as_posix() for file in TESTS.rglob("test_*.py")}


@pytest.mark.parametrize("law", SAMPLES, ids=lambda law: law.__name__)
def test_the_tests_keep_the_law(law: Law) -> None:
    assert list(law(_package(), _tests())) == []


@pytest.mark.parametrize("law", SAMPLES, ids=lambda law: law.__name__)
def test_the_law_names_each_file_that_breaks_it(law: Law) -> None:
    sources, tests = SAMPLES[law][0]
    broken = {*tests} if law is every_test_has_a_source else {*sources}

    assert {*law(sources, tests)} >= broken


@pytest.mark.parametrize("law", SAMPLES, ids=lambda law: law.__name__)
def test_the_law_allows_what_keeps_it(law: Law) -> None:
    assert list(law(*SAMPLES[law][1])) == []
