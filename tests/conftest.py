"""What holds for every test: no database below tests/core, servers that are asked for, every skip named at the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest
from django.db import connections
from django.test import TransactionTestCase

from tests.databases import empty, end_other_sessions
from tests.servers import skip_without

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter
    from pytest_django.plugin import DjangoDbBlocker

CORE = Path(__file__).parent / "core"
ACCEPTANCE = Path(__file__).parent / "acceptance"
DATABASE_FIXTURES = {"db", "transactional_db", "django_db_setup"}

# A machine that also runs databases and workers is sometimes slow; that is no failure of a property.
hypothesis.settings.register_profile("suite", deadline=None)
hypothesis.settings.load_profile("suite")


def _empty_databases(test: TransactionTestCase) -> None:
    for alias in test._databases_names(include_mirrors=False):
        empty(connections[alias])


TransactionTestCase._fixture_teardown = _empty_databases


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """Let nobody else use the databases when they are dropped."""
    yield
    with django_db_blocker.unblock():
        end_other_sessions(connections["default"])
        # Django closes the connection that it set up with; the engine may have put another one in its place since.
        connections["default"].close()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the second and third run of the suite leave out what no database changes."""
    parser.addoption("--only-database", action="store_true", help="run the tests that use the database, and no others")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what the command line does not ask for; run each acceptance module in one process."""
    for item in items:
        if ACCEPTANCE in item.path.parents:
            item.add_marker(pytest.mark.xdist_group(item.path.stem))
    if config.getoption("only_database"):
        config.hook.pytest_deselected(items=[item for item in items if not _uses_database(item)])
        items[:] = [item for item in items if _uses_database(item)]


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Refuse a database to core tests, and skip a test whose servers this run lacks."""
    if CORE in item.path.parents and _uses_database(item):
        pytest.fail("tests/core runs without a database: move this test to tests/engine", pytrace=False)
    for marker in item.iter_markers("needs"):
        for server in marker.args:
            skip_without(server)


def _uses_database(item: pytest.Item) -> bool:
    fixtures = set(getattr(item, "fixturenames", ()))
    test_class = getattr(item, "cls", None) or object
    return bool(
        item.get_closest_marker("django_db")
        or DATABASE_FIXTURES & fixtures
        or issubclass(test_class, TransactionTestCase)
    )


def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    """Say how many tests were skipped, and why."""
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = Counter(report.longrepr[2].removeprefix("Skipped: ") for report in skipped)
    if reasons:
        terminalreporter.section(f"{reasons.total()} skipped")
    for reason, count in reasons.most_common():
        terminalreporter.write_line(f"{count:5}  {reason}")
