"""The engine in this process, on a real database: every test of tests/engine may take the fixture ``engine``."""

from __future__ import annotations

import datetime
import inspect
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from django.db import DatabaseError, connection, connections
from django.db.backends.sqlite3.base import DatabaseWrapper
from django.test import override_settings

import django_durable as durable
from django_durable.core import clock
from django_durable.core.durations import Duration, parse_duration
from django_durable.core.functions import registry
from django_durable.core.functions.functions import DurableFunction
from django_durable.core.values.errors import ErrorInfo, decode_error
from django_durable.drivers.base import BaseDriver, get_driver
from django_durable.engine.events import index
from django_durable.engine.leases import crash_isolation, leases
from django_durable.engine.runs import catalog
from django_durable.engine.scheduler.scheduler import SOONEST, Scheduler
from django_durable.engine.workers.work import work
from django_durable.models import Lock, Run, Step, StepAttempt


class Engine:
    """Sends events, works until nothing is ready, and moves time; the inline driver works at every commit."""

    def __init__(self) -> None:
        self.scheduler = Scheduler()

    def function(self, id: str = "fn", **options: Any) -> Callable[[Callable[..., Any]], DurableFunction[Any]]:
        """Register a durable function for this test; without a trigger it starts on ``test/start``."""
        return durable.function(id, **{"trigger": "test/start", **options})

    def start(self, data: dict[str, Any] | None = None, **options: Any) -> Run:
        """Send ``test/start`` and return the newest run."""
        durable.send_event("test/start", data, **options)
        return self.run()

    def run(self) -> Run:
        """Return the newest run, as stored now."""
        return Run.objects.order_by("-id")[0]

    def step(self, name: str, ordinal: int = 0) -> Step:
        """Return a step of the newest run."""
        return Step.objects.get(run=self.run(), name=name, ordinal=ordinal)

    def settle(self) -> None:
        """Let the scheduler and the workers do all there is to do now."""
        for _ in range(20):
            pause = self.scheduler.look()
            work(None, ingest=True)
            if pause > SOONEST:
                return
        raise AssertionError("the scheduler still finds something due after 20 looks")

    def advance(self, duration: Duration) -> Run:
        """Move time, do what became due, and return the newest run."""
        clock.move(parse_duration(duration))
        self.settle()
        return self.run()


@pytest.fixture
def engine(transactional_db: None) -> Iterator[Engine]:
    """Give an engine with an empty registry and database, at the present time."""
    known = dict(registry._functions)
    registry._functions.clear()
    catalog.forget()
    index._backfilled.clear()
    try:
        yield Engine()
    finally:
        clock.move(-clock.shifted_by)
        registry._functions.clear()
        registry._functions.update(known)
        catalog.forget()
        index._backfilled.clear()
        abandon_turns()


def abandon_turns() -> None:
    """Let no turn that this test left under way be renewed, or be company to those of the next."""
    bulkhead, heartbeat = crash_isolation.bulkhead(), leases._heartbeat()
    for lease in bulkhead._present | bulkhead._waiting:
        bulkhead.leave(lease)
    heartbeat._leases.clear()
    heartbeat._to_settle.clear()


@pytest.fixture
def on_postgresql() -> None:
    """Skip on other databases."""
    if connection.vendor != "postgresql":
        pytest.skip("runs on PostgreSQL only")


@pytest.fixture
def other_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Give the project a second database."""
    settings = connections.settings["default"] | {"ENGINE": "django.db.backends.sqlite3", "OPTIONS": {}}
    connections["other"] = DatabaseWrapper(settings | {"NAME": str(tmp_path / "other.sqlite3")}, "other")
    connections["other"].ensure_connection()
    # Only now, because Django's test cases do not connect to other databases that the settings name.
    monkeypatch.setitem(connections.settings, "other", settings)
    yield "other"
    connections["other"].close()
    del connections["other"]


class DeafDriver(BaseDriver):
    """Loses every hint, so that a test decides who works and when."""

    def wake(self, queue: str, run_ids: Sequence[UUID] = (), *, ingest: bool = False) -> None:
        """Lose it."""


class RecordingDriver(BaseDriver):
    """Keeps every hint for the test to look at, and passes none on."""

    def __init__(self) -> None:
        self.hints: list[tuple[str, list[UUID], bool]] = []

    def wake(self, queue: str, run_ids: Sequence[UUID] = (), *, ingest: bool = False) -> None:
        """Keep the hint."""
        self.hints.append((queue, list(run_ids), ingest))

    def taken(self) -> list[tuple[str, list[UUID], bool]]:
        """Return the hints since the last call."""
        hints, self.hints = self.hints, []
        return hints


@pytest.fixture
def recorder(engine: Engine) -> Iterator[RecordingDriver]:
    """Keep every hint instead of working on it."""
    with override_settings(DURABLE={"DRIVER": f"{__name__}.RecordingDriver"}):
        driver = get_driver()
        assert isinstance(driver, RecordingDriver)
        yield driver


class ReadOnly:
    """The database refuses writes, as it does on a full disk or a standby, between :meth:`begin` and :meth:`end`."""

    _refusals = {
        "postgresql": {"options": "-c default_transaction_read_only=on"},
        "sqlite": {"init_command": "PRAGMA query_only = ON"},
    }

    def __init__(self) -> None:
        self._options = connection.settings_dict["OPTIONS"]

    def begin(self) -> None:
        """Refuse writes on connections that are made from now on, this thread's among them."""
        self._reconnect(self._options | self._refusals[connection.vendor])
        with pytest.raises(DatabaseError, match=r"read-?only"):
            Lock.objects.create(name="refused")

    def end(self) -> None:
        """Take writes again."""
        self._reconnect(self._options)

    def _reconnect(self, options: dict[str, Any]) -> None:
        connection.close()
        connection.settings_dict["OPTIONS"] = options


@pytest.fixture
def read_only(engine: Engine) -> Iterator[ReadOnly]:
    """Give a database that refuses writes when it is told to."""
    if connection.vendor not in ReadOnly._refusals:
        pytest.skip("MariaDB refuses writes for a whole server only")
    refusal = ReadOnly()
    try:
        yield refusal
    finally:
        refusal.end()


def failing(text: str, *, times: int = 1_000_000) -> Callable[..., Any]:
    """Return a wrapper for ``connection.execute_wrapper``: statements with *text* fail, as often as said."""
    left = [text] * times

    def execute(run: Callable[..., Any], sql: str, params: Any, many: bool, context: dict[str, Any]) -> Any:
        if text in f"{sql} {params}" and left:
            left.pop()
            raise DatabaseError(f"the disk is full: {sql[:50]}")
        return run(sql, params, many, context)

    return execute


def line_of(function: Callable[..., object], marker: str) -> str:
    """Return file and line of the line of *function* that ends in ``# <- marker``."""
    lines, start = inspect.getsourcelines(function)
    number = start + next(index for index, line in enumerate(lines) if f"# <- {marker}" in line)
    return f"{inspect.getsourcefile(function)}:{number}"


def in_seconds(moment: datetime.datetime | None) -> float:
    """Return how many seconds from now the moment is."""
    assert moment is not None
    return (moment - clock.now()).total_seconds()


def failure_of(row: Run | Step | StepAttempt) -> ErrorInfo:
    """Return the error that is stored with the row."""
    assert row.error is not None
    return decode_error(row.error)
