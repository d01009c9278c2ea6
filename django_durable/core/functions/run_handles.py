"""Handles of runs: code that started a run asks for its state and its result. The engine answers."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Protocol, TypeVar, cast

from ...exceptions import ConfigurationError, ResultInTransaction, ResultTimeout, RunCancelled, RunFailed
from ..durations import parse_duration
from ..replay.operations import return_annotation
from ..values import encoding, errors
from . import registry
from .run_statuses import ENDED, RunStatus

if TYPE_CHECKING:
    from ..durations import Duration
    from .definitions import FunctionDefinition

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

FIRST_PAUSE = 0.02  #: seconds between two looks at a run
LONGEST_PAUSE = 1.0
_GROWTH = 1.5


@dataclass(frozen=True, slots=True)
class RunState:
    """A run as it was when somebody looked; ``output`` and ``error`` are JSON text."""

    function_id: str
    status: str
    output: str | None
    error: str | None

    @property
    def has_ended(self) -> bool:
        """Whether the run goes no further."""
        return self.status in ENDED


class Engine(Protocol):
    """The questions of handles to the engine."""

    def start(
        self, function: FunctionDefinition[Any, Any], data: Any, key: str | None, outside_transaction: bool
    ) -> str:
        """Start a run in the open transaction, unless *key* started one before; return the run's id."""

    def look(self, run_id: str) -> RunState:
        """Return how the run stands; RunNotFound."""

    def cancel(self, run_id: str, reason: str) -> bool:
        """Cancel the run; False if it had ended."""

    def replay(self, run_id: str, data: Any, from_step: str | tuple[str, int] | None, confirmed: bool) -> str:
        """Replay the run; return the new run's id."""

    def decode(self, value: Any) -> Any:
        """Return the result that a project's hooks recorded as *value*."""

    def is_in_transaction(self) -> bool:
        """Tell whether a transaction is open, so that a run started in it has not begun."""

    def in_thread(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Awaitable[T]:
        """Call a function that uses the database from async code."""


_engine: Engine | None = None


def connect(engine: Engine) -> None:
    """Let *engine* answer handles from now on."""
    global _engine
    _engine = engine


def _connected() -> Engine:
    if _engine is None:
        raise ConfigurationError("Runs cannot be started before Django's apps are ready: call django.setup() first")
    return _engine


def start(function: FunctionDefinition[Any, R], data: Any, id: str | None, outside_transaction: bool) -> RunHandle[R]:
    """Start a run of *function*; see :meth:`.functions.DurableFunction.start`."""
    return RunHandle(_connected().start(function, data, id, outside_transaction))


async def astart(
    function: FunctionDefinition[Any, R], data: Any, id: str | None, outside_transaction: bool
) -> RunHandle[R]:
    """Start a run from async code."""
    handle = await _connected().in_thread(start, function, data, id, outside_transaction)
    return await handle.arefresh()


class RunHandle(Generic[R]):
    """A run, for code outside of it. ``fn.start()`` and ``durable.get_run()`` return one.

    Inside a handler use ``step.invoke`` instead: waiting for a result there would hold up a worker.

    Example::

        run = fulfil_order.start({"order_id": 7})
        receipt = run.result(timeout="5s")
    """

    def __init__(self, run_id: str) -> None:
        self.id = run_id  #: the id of the run
        self._state: RunState | None = None

    @property
    def status(self) -> str:
        """Where the run stood at the last look: queued, running, waiting, completed, failed, cancelled or skipped."""
        return self._seen().status

    def _seen(self) -> RunState:
        if self._state is None:
            self.refresh()
        assert self._state is not None
        return self._state

    def refresh(self) -> RunHandle[R]:
        """Look at the run again; return this handle."""
        self._state = _connected().look(self.id)
        return self

    async def arefresh(self) -> RunHandle[R]:
        """Look at the run again, from async code."""
        return await _connected().in_thread(self.refresh)

    def result(self, timeout: Duration | None = None) -> R:
        """Wait until the run has ended, and return what its handler returned.

        *timeout* is a duration (``"5s"``, seconds, a timedelta); without one it waits as long as it takes. Raises
        RunFailed, RunCancelled, ResultTimeout, and ResultInTransaction where waiting could not help.
        """
        pauses = _Pauses(timeout)
        while not self.refresh()._seen().has_ended:
            self._check_can_wait()
            time.sleep(self._pause(pauses))
        return self._outcome()

    async def aresult(self, timeout: Duration | None = None) -> R:
        """Wait for the result from async code; see :meth:`result`."""
        pauses = _Pauses(timeout)
        while not (await self.arefresh())._seen().has_ended:
            await _connected().in_thread(self._check_can_wait)
            await asyncio.sleep(self._pause(pauses))
        return self._outcome()

    def _pause(self, pauses: _Pauses) -> float:
        seconds = pauses.next()
        if seconds <= 0:
            raise ResultTimeout(self.id, self.status, pauses.longest)
        return seconds

    def _check_can_wait(self) -> None:
        if _connected().is_in_transaction():
            raise ResultInTransaction(self.id)

    def _outcome(self) -> R:
        state = self._seen()
        if state.status == RunStatus.COMPLETED:
            recorded = encoding.decode(state.output or "null", lambda: _hint(state.function_id))
            return cast(R, _connected().decode(recorded))
        error = errors.decode_error(state.error or "{}")
        if state.status == RunStatus.FAILED:
            raise RunFailed(self.id, type=error.type, message=error.message, traceback=error.traceback)
        raise RunCancelled(self.id, state.status, error.message)

    def cancel(self, reason: str = "") -> bool:
        """Cancel the run, as ``cancel_run`` does; False if it had ended."""
        self._state = None
        return _connected().cancel(self.id, reason)

    async def acancel(self, reason: str = "") -> bool:
        """Cancel the run from async code."""
        return await _connected().in_thread(self.cancel, reason)

    def replay(
        self, *, from_step: str | tuple[str, int] | None = None, data: Any = None, confirmed: bool = False
    ) -> RunHandle[R]:
        """Start a new run of the same function, as ``replay_run`` does; return its handle."""
        return RunHandle(_connected().replay(self.id, data, from_step, confirmed))

    async def areplay(
        self, *, from_step: str | tuple[str, int] | None = None, data: Any = None, confirmed: bool = False
    ) -> RunHandle[R]:
        """Replay the run from async code."""
        return await _connected().in_thread(self.replay, from_step=from_step, data=data, confirmed=confirmed)

    def __repr__(self) -> str:
        return f"<RunHandle {self.id}>"


class _Pauses:
    """How long to pause between two looks: longer each time, until the time is over."""

    def __init__(self, timeout: Duration | None) -> None:
        self.longest = math.inf if timeout is None else parse_duration(timeout).total_seconds()
        self._ends = time.monotonic() + self.longest
        self._length = FIRST_PAUSE

    def next(self) -> float:
        """Return how many seconds to pause; zero or less when the time is over."""
        length, self._length = self._length, min(self._length * _GROWTH, LONGEST_PAUSE)
        return min(length, self._ends - time.monotonic())


def _hint(function_id: str) -> Any:
    function = registry.get(function_id)
    return return_annotation(function.handler) if function else None
