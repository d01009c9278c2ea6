"""Each scenario is written once and played in every mode: plain and async handlers, in process and turn by turn.

A scenario's handler is an ``async def``; where a plain one is played, :mod:`.twins` takes the awaits out. Where both
differ by nature (``step.parallel`` and ``asyncio.gather``), a scenario gives both forms side by side.

On SQLite every scenario is played in every mode. On other databases, and where it has variants, each is played in one
mode, taken in turn, and in the others with ``scripts/test --full``.
"""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
from django.conf import settings

import django_durable as durable
from django_durable.core.durations import Duration
from django_durable.core.functions import registry
from django_durable.core.functions.functions import DurableFunction
from django_durable.core.values import encoding
from django_durable.core.values.errors import ErrorInfo
from django_durable.models import Run, Step
from tests.engine.conftest import Engine, engine, failure_of, other_database
from tests.scenarios.twins import plain_twin

__all__ = ["engine", "other_database"]

HERE = Path(__file__).parent
MOST_HOURS = 60  #: after which a run that still waits is not waited for


@dataclass(frozen=True)
class Mode:
    """How a scenario is played."""

    asynchronous: bool  #: whether its handlers are async
    checkpoint: bool  #: whether turns go on in process after each step

    def __str__(self) -> str:
        return f"{'async' if self.asynchronous else 'sync'}-{'in-process' if self.checkpoint else 'turn-by-turn'}"


MODES = [Mode(False, True), Mode(False, False), Mode(True, True), Mode(True, False)]


@dataclass
class Play:
    """Registers the scenario's functions in one mode, starts a run and moves time."""

    mode: Mode
    engine: Engine
    calls: list[str] = field(default_factory=list)  #: of the bodies, by name

    def body(
        self,
        name: str,
        value: Any = None,
        *,
        fails: int | Exception = 0,
        does: Callable[..., Any] | None = None,
        plain: bool = False,
    ) -> Callable[..., Any]:
        """Return a function for steps, async in async modes unless it is to be *plain*: each call is noted by name.

        It fails *fails* times, or always with that exception, and then returns *value*, or what *does* returns.
        """

        def fn(*args: Any, **kwargs: Any) -> Any:
            self.calls.append(name)
            if isinstance(fails, Exception):
                raise fails
            if self.calls.count(name) <= fails:
                raise ValueError(f"{name} failed {self.calls.count(name)} times")
            return does(*args, **kwargs) if does else value

        async def async_fn(*args: Any, **kwargs: Any) -> Any:
            return fn(*args, **kwargs)

        return async_fn if self.mode.asynchronous and not plain else fn

    def function(
        self, id: str, handler: Callable[..., Any], asynchronous: Callable[..., Any] | None = None, **options: Any
    ) -> DurableFunction[Any, Any]:
        """Register a durable function; *asynchronous* is its other form, if taking out the awaits does not make it."""
        options = {"trigger": None, "checkpoint": self.mode.checkpoint, **options}
        decorator: Any = durable.function(id, **options)
        function: DurableFunction[Any, Any] = decorator(self._form(handler, asynchronous))
        return function

    def _form(self, handler: Callable[..., Any], asynchronous: Callable[..., Any] | None) -> Callable[..., Any]:
        if asynchronous is not None:
            return asynchronous if self.mode.asynchronous else handler
        assert inspect.iscoroutinefunction(handler), "write the handler as async def, or give both forms"
        return handler if self.mode.asynchronous else plain_twin(handler)

    def start(
        self,
        handler: Callable[..., Any],
        asynchronous: Callable[..., Any] | None = None,
        *,
        data: dict[str, Any] | None = None,
        **options: Any,
    ) -> Run:
        """Start a run of the handler on ``test/start`` and take it as far as it goes now."""
        self.function("fn", handler, asynchronous, trigger="test/start", **options)
        durable.send_event("test/start", data)
        return self.run

    def deploy(
        self, handler: Callable[..., Any], asynchronous: Callable[..., Any] | None = None, **options: Any
    ) -> None:
        """Replace the code of the function under its runs."""
        registry._functions.pop(self.run.function_id)
        self.function("fn", handler, asynchronous, trigger="test/start", **options)

    def advance(self, duration: Duration) -> Run:
        """Move time, and do what became due."""
        self.engine.advance(duration)
        return self.run

    def to_the_end(self) -> Run:
        """Move time, hour by hour, until the run has ended."""
        for _ in range(MOST_HOURS):
            if self.run.status in ("completed", "failed", "cancelled"):
                return self.run
            self.advance("1h")
        raise AssertionError(f"the run still waits after {MOST_HOURS} hours, for {self.run.waiting_for}")

    @property
    def run(self) -> Run:
        """The scenario's run, as stored now; those that came of it are younger."""
        return Run.objects.order_by("id")[0]

    @property
    def status(self) -> str:
        """The run's status."""
        return self.run.status

    @property
    def result(self) -> Any:
        """What the run returned; it must have completed."""
        run = self.run
        assert run.status == "completed", run.error or f"it waits for {run.waiting_for}"
        return encoding.decode(run.output or "null")

    @property
    def failure(self) -> ErrorInfo:
        """The run's error; it must have failed."""
        assert self.run.status == "failed", self.run.output or f"it waits for {self.run.waiting_for}"
        return failure_of(self.run)

    def step(self, name: str, ordinal: int = 0) -> Step:
        """Return a step of the run, as stored now."""
        return Step.objects.get(run=self.run, name=name, ordinal=ordinal)


@pytest.fixture(params=MODES, ids=str)
def play(request: pytest.FixtureRequest, engine: Engine) -> Play:
    """Play the scenario in each mode."""
    return Play(request.param, engine)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave to the full suite what is played in one mode only, taken in turn; see the top of this module."""
    on_sqlite = settings.DATABASES["default"]["ENGINE"].endswith("sqlite3")
    played: defaultdict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        callspec = getattr(item, "callspec", None)
        mode = callspec.params.get("play") if callspec and HERE in item.path.parents else None
        if callspec and mode and not (on_sqlite and len(callspec.params) == 1):
            played[item.nodeid.replace(str(mode), "")].append(item)
    for scenario, in_modes in played.items():
        # By its name: the same one in every process of a run.
        chosen = sorted(item.nodeid for item in in_modes)[crc32(scenario.encode()) % len(in_modes)]
        for item in in_modes:
            if item.nodeid != chosen:
                item.add_marker("slow")
