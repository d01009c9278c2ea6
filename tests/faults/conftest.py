"""Stages for faults of processes and servers, and where each fault is tried.

The mark ``stages`` names where a fault can happen. ``scripts/test`` lets it happen on those that are named as
``always``, ``scripts/test --faults`` on the first one and in the embedded default, ``scripts/test --full`` on all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.acceptance.brokers import forget
from tests.acceptance.workers import Project, Served
from tests.servers import database_url, rabbitmq_url, redis_url, unique_name

from .stage import Stage

Zygotes = Callable[[str | None], tuple[Project, Served]]
BROKERS: dict[str | None, Callable[[], str]] = {"redis": redis_url, "rabbitmq": rabbitmq_url}
STAGES = {
    "prefork": ("prefork", "redis"),
    "threads": ("threads", "redis"),
    "solo": ("solo", "redis"),
    "rabbitmq": ("prefork", "rabbitmq"),
    "embedded": (None, None),
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Try the fault of a test on each of its stages, marked with what runs it there."""
    mark = metafunc.definition.get_closest_marker("stages")
    if mark is None or "stage" not in metafunc.fixturenames:
        return
    always = mark.kwargs.get("always", ())
    params = [
        pytest.param(name, marks=[*_needs(name), *_tier(name, first=name == mark.args[0], always=name in always)])
        for name in mark.args
    ]
    metafunc.parametrize("stage", params, indirect=True)


def _needs(name: str) -> list[pytest.MarkDecorator]:
    broker = STAGES[name][1]
    return [pytest.mark.needs(broker, "postgresql")] if broker else [pytest.mark.needs("postgresql")]


def _tier(name: str, *, first: bool, always: bool) -> list[pytest.MarkDecorator]:
    return [] if always else [pytest.mark.faults] if first or name == "embedded" else [pytest.mark.slow]


@pytest.fixture(scope="session")
def zygotes(tmp_path_factory: pytest.TempPathFactory, django_db_setup: None) -> Iterator[Zygotes]:
    """Give the process that forks those of a stage: one for each broker and database, for the whole session."""
    started: dict[str | None, tuple[Project, Served]] = {}

    def zygote(broker: str | None) -> tuple[Project, Served]:
        if broker not in started:
            folder = tmp_path_factory.mktemp("zygote")
            url = BROKERS[broker]() if broker else None
            database = database_url() if broker else f"sqlite:///{folder}/db.sqlite3"
            project = Project(folder, database, url, unique_name())
            started[broker] = project, project.serve("zygote")
        return started[broker]

    yield zygote
    for project, _ in started.values():
        project.end()


@pytest.fixture
def stage(request: pytest.FixtureRequest, zygotes: Zygotes, tmp_path: Path, transactional_db: None) -> Iterator[Stage]:
    """Give the stage that the test names, with an empty database and queue."""
    pool, broker = STAGES[getattr(request, "param", "prefork")]
    with ExitStack() as stack:
        project, zygote = zygotes(broker)
        if project.broker_url:
            stack.callback(forget, project.broker_url, project.queue)
        else:
            stack.callback(_forget_database, project.folder)
        stage = Stage(zygote, tmp_path, pool)
        stack.callback(stage.end)
        yield stage


def _forget_database(folder: Path) -> None:
    for file in folder.glob("db.sqlite3*"):
        file.unlink()
