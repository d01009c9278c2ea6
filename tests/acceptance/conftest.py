"""The project of the acceptance tests on each backend."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.servers import database_url, rabbitmq_url, redis_url, unique_name

from .brokers import forget
from .workers import Project, started

Start = Callable[[str | None], Project]
SHARED: dict[str | None, Callable[[], str]] = {"redis": redis_url, "rabbitmq": rabbitmq_url}


@pytest.fixture
def project_on(tmp_path: Path, transactional_db: None) -> Iterator[Start]:
    """Make the project on a broker: "redis", "rabbitmq", a URL, or None for the embedded default on SQLite.

    On a broker it has the database of the test, and its own queue, which goes with it.
    """
    with ExitStack() as stack:

        def start(broker: str | None) -> Project:
            url = SHARED[broker]() if broker in SHARED else broker
            database = f"sqlite:///{tmp_path}/db.sqlite3" if broker is None else database_url()
            project = Project(tmp_path, database, url, unique_name())
            if broker in SHARED:
                stack.callback(forget, url, project.queue)
            return stack.enter_context(started(project))

        yield start
