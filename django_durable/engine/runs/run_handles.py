"""The engine's side of :mod:`django_durable.core.functions.run_handles`: answers to handles, from the rows."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, ParamSpec, TypeVar
from uuid import UUID

from asgiref.sync import sync_to_async

from ...codecs import open_text
from ...conf import get_settings
from ...core.events.events import is_storable
from ...core.functions.definitions import FunctionDefinition
from ...core.functions.run_handles import Engine, RunState
from ...core.values import encoding
from ...core.values.coercion import fields_of
from ...exceptions import InvalidEvent, RunNotFound
from ...middleware import get_hooks
from ...models import Run
from ..events import sending
from ..store import stored_events
from ..store.step_names import StepName
from ..store.transactions import alias, atomic, is_open
from . import ending, replays, starting

P = ParamSpec("P")
T = TypeVar("T")


def parse_run_id(id: object) -> UUID:
    """Return the id of a run as it is stored; RunNotFound for text that is not an id."""
    try:
        return UUID(str(id))
    except ValueError:
        raise RunNotFound(id) from None


class StoredRuns(Engine):
    """Answers handles of runs from the durable database."""

    def start(
        self, function: FunctionDefinition[Any, Any], data: Any, key: str | None, outside_transaction: bool
    ) -> str:
        """Start a run in the open transaction; where *key* started one before, return the id of that one."""
        if not outside_transaction:
            sending.refuse_other_transaction(alias())
        given = {} if data is None else fields_of(data)
        text = encoding.encode(given, root="data", limit=get_settings().max_payload, objects=False)
        if key is not None and not is_storable(key, 1_000):
            raise InvalidEvent(f"{function.id}: the id of a start is text of 1 to 1,000 characters, not {key!r}")
        start_key = None if key is None else stored_events.digest(function.id, "start", key)
        run = starting.new_run(function, input=text, start_key=start_key)
        with atomic(savepoint=False):
            first = _started_by(start_key)
            if first is None:
                starting.announce(starting.store_runs([run]))
                first = _started_by(start_key)
        return str(first or run.id)

    def look(self, run_id: str) -> RunState:
        """Return how the run stands."""
        runs = Run.objects.using(alias()).filter(id=parse_run_id(run_id))
        row = runs.values_list("function_id", "status", "output", "error").first()
        if row is None:
            raise RunNotFound(run_id)
        function_id, status, output, error = row
        return RunState(function_id, status, open_text(output), open_text(error))

    def cancel(self, run_id: str, reason: str) -> bool:
        """Cancel the run; False if it had ended."""
        return ending.cancel(parse_run_id(run_id), reason)

    def replay(self, run_id: str, data: Any, from_step: StepName | None, confirmed: bool) -> str:
        """Replay the run; return the new run's id."""
        return str(replays.replay(parse_run_id(run_id), data=data, from_step=from_step, confirmed=confirmed))

    def decode(self, value: Any) -> Any:
        """Return the result that the project's hooks recorded as *value*."""
        return get_hooks().decode(value)

    def is_in_transaction(self) -> bool:
        """Tell whether a transaction is open on the durable database."""
        return is_open(0)

    def in_thread(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Awaitable[T]:
        """Call a function that uses the database from async code, in the thread that has the connection."""
        return sync_to_async(call)(*args, **kwargs)


def _started_by(start_key: bytes | None) -> UUID | None:
    if start_key is None:
        return None
    return Run.objects.using(alias()).filter(start_key=start_key).values_list("id", flat=True).first()
