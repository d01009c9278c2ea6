"""Durable, event-driven, multi-step functions in a Django project's own database.

Import it as ``import django_durable as durable``; that works before Django's apps are ready.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, overload
from uuid import UUID

from asgiref.sync import sync_to_async

from .core.events.event_types import EventType
from .core.events.events import CancelEvent, CompletionEvent, Event, FailureEvent
from .core.functions.async_steps import AsyncStep
from .core.functions.functions import DurableFunction, function
from .core.functions.middleware import Middleware, RunContext, StepContext
from .core.functions.run_handles import RunHandle
from .core.functions.steps import Step, step
from .core.functions.triggers import On, OnModel, OnSignal
from .core.replay.groups import RaceResult
from .core.retries import Exponential, Linear
from .core.values.encoding import register_type
from .exceptions import (
    CodecError,
    ConfigurationError,
    DurableError,
    EncodingError,
    InvalidEvent,
    InvalidStep,
    InvokeError,
    InvokeTimeout,
    NonRetriable,
    NotWaiting,
    OutsideTransaction,
    PayloadTooLarge,
    ReplayRefused,
    ResultInTransaction,
    ResultTimeout,
    RetryAfter,
    RunCancelled,
    RunFailed,
    RunNotFound,
    SignalTaken,
    StaleReference,
    StepError,
    StepNotFound,
    StepTimeout,
)

if TYPE_CHECKING:
    from .core.type_variables import D

__version__ = "0.1.0"
__all__ = [
    "AsyncStep",
    "CancelEvent",
    "CodecError",
    "CompletionEvent",
    "ConfigurationError",
    "DurableError",
    "DurableFunction",
    "EncodingError",
    "Event",
    "EventType",
    "Exponential",
    "FailureEvent",
    "InvalidEvent",
    "InvalidStep",
    "InvokeError",
    "InvokeTimeout",
    "Linear",
    "Middleware",
    "NonRetriable",
    "NotWaiting",
    "On",
    "OnModel",
    "OnSignal",
    "OutsideTransaction",
    "PayloadTooLarge",
    "RaceResult",
    "ReplayRefused",
    "ResultInTransaction",
    "ResultTimeout",
    "RetryAfter",
    "RunCancelled",
    "RunContext",
    "RunFailed",
    "RunHandle",
    "RunNotFound",
    "SignalTaken",
    "StaleReference",
    "Step",
    "StepContext",
    "StepError",
    "StepNotFound",
    "StepTimeout",
    "asend_event",
    "asend_events",
    "asend_signal",
    "cancel_run",
    "export_history",
    "function",
    "get_run",
    "register_type",
    "replay_run",
    "replay_runs",
    "resolve_wait",
    "retry_run",
    "send_event",
    "send_events",
    "send_signal",
    "step",
    "time_out_wait",
    "wake_run",
]


@overload
def send_event(
    event: EventType[D],
    data: D,
    *,
    id: str | None = None,
    user: dict[str, Any] | None = None,
    ts: datetime.datetime | None = None,
    v: str | None = None,
    outside_transaction: bool = False,
) -> str: ...
@overload
def send_event(
    event: str | Event[Any],
    data: dict[str, Any] | None = None,
    *,
    id: str | None = None,
    user: dict[str, Any] | None = None,
    ts: datetime.datetime | None = None,
    v: str | None = None,
    outside_transaction: bool = False,
) -> str: ...
def send_event(
    event: str | Event[Any] | EventType[Any],
    data: Any = None,
    *,
    id: str | None = None,
    user: dict[str, Any] | None = None,
    ts: datetime.datetime | None = None,
    v: str | None = None,
    outside_transaction: bool = False,
) -> str:
    """Send an event, in the open transaction if there is one; return its id.

    *event* is a name, an EventType, or an Event that holds everything. *id* is an idempotency key: events of one name
    and id start functions once, and the first one's id is returned. *user* says who did it, *ts* when (a future moment
    delays what it starts), *v* is the version of its schema. Raises InvalidEvent, EncodingError, or OutsideTransaction
    while a transaction of another database is open, unless *outside_transaction* accepts that.

    Example::

        send_event("app/user.created", {"user": {"id": user.pk}}, id=f"user-{user.pk}")
    """
    if isinstance(event, EventType):
        event = event(data, id=id, user=user, ts=ts, v=v)
    elif isinstance(event, str):
        event = Event(event, {} if data is None else data, id=id, user=user, ts=ts, v=v)
    elif (data, id, user, ts, v) != (None,) * 5:
        raise InvalidEvent("An Event holds its own data, id, user, ts and v: give these to Event(...)")
    return send_events([event], outside_transaction=outside_transaction)[0]


def send_events(events: Iterable[Event[Any]], *, outside_transaction: bool = False) -> list[str]:
    """Send several events as :func:`send_event` does, in a few statements; return their ids in order.

    Example::

        send_events(Event("app/post.created", {"id": post.pk}) for post in posts)
    """
    from .engine.events.sending import send

    return send(events, outside_transaction=outside_transaction)


@overload
async def asend_event(
    event: EventType[D],
    data: D,
    *,
    id: str | None = None,
    user: dict[str, Any] | None = None,
    ts: datetime.datetime | None = None,
    v: str | None = None,
    outside_transaction: bool = False,
) -> str: ...
@overload
async def asend_event(
    event: str | Event[Any],
    data: dict[str, Any] | None = None,
    *,
    id: str | None = None,
    user: dict[str, Any] | None = None,
    ts: datetime.datetime | None = None,
    v: str | None = None,
    outside_transaction: bool = False,
) -> str: ...
async def asend_event(
    event: str | Event[Any] | EventType[Any],
    data: Any = None,
    *,
    id: str | None = None,
    user: dict[str, Any] | None = None,
    ts: datetime.datetime | None = None,
    v: str | None = None,
    outside_transaction: bool = False,
) -> str:
    """Send an event from async code; see :func:`send_event`."""
    given: Any = event  # one of the overloads fits, whichever was chosen
    return await sync_to_async(send_event)(
        given, data, id=id, user=user, ts=ts, v=v, outside_transaction=outside_transaction
    )


async def asend_events(events: Iterable[Event[Any]], *, outside_transaction: bool = False) -> list[str]:
    """Send several events from async code; see :func:`send_events`."""
    return await sync_to_async(send_events)(list(events), outside_transaction=outside_transaction)


def send_signal(signal: str, data: Any = None) -> bool:
    """Give *data* to the step that waits for *signal*, in the open transaction if there is one; False if none waits.

    The step's ``step.wait_for_signal`` returns *data*. Raises EncodingError, and DurableError for a name that
    cannot be a signal's.

    Example::

        if not send_signal(f"approve-{token}", {"approved": True}):
            raise Http404("This link was used already, or is too old")
    """
    from .engine.steps.wait_for_signal import send

    return send(signal, data)


async def asend_signal(signal: str, data: Any = None) -> bool:
    """Send a signal from async code; see :func:`send_signal`."""
    return await sync_to_async(send_signal)(signal, data)


def get_run(run_id: UUID | str) -> RunHandle[Any]:
    """Return the handle of a run, which tells its status and result, and cancels and replays it. Raises RunNotFound.

    Example::

        get_run(run_id).result(timeout="5s")
    """
    return RunHandle[Any](str(run_id)).refresh()


def cancel_run(run_id: UUID | str, reason: str = "") -> bool:
    """Cancel a run, and the children that it waits for; False if it had ended already.

    *reason* is kept as its error. A step that is running is not interrupted, but its value is discarded and the run
    goes no further. Raises RunNotFound.

    Example::

        cancel_run(run_id, "the order was withdrawn")
    """
    return _do("cancel", run_id, reason=reason)


def replay_run(
    run_id: UUID | str, *, from_step: str | tuple[str, int] | None = None, data: Any = None, confirmed: bool = False
) -> RunHandle[Any]:
    """Start a new run of the same function, with the same trigger; return its handle. The old run stays as it is.

    With *from_step* (an id, or an id and its ordinal) it begins with everything that was recorded before that step;
    *data* takes the place of the event's data. A function registered with ``replay="confirm"`` asks for *confirmed*.
    Raises RunNotFound, StepNotFound, ReplayRefused, EncodingError, and ConfigurationError for a function that the code
    lost.

    Example::

        replay_run(run_id, from_step="charge")
    """
    [new] = replay_runs([run_id], from_step=from_step, data=data, confirmed=confirmed)
    return new


def replay_runs(
    run_ids: Iterable[UUID | str],
    *,
    from_step: str | tuple[str, int] | None = None,
    data: Any = None,
    confirmed: bool = False,
) -> list[RunHandle[Any]]:
    """Replay several runs as :func:`replay_run` does, in a few statements; return the handles of the new ones.

    All are checked before the first is started.

    Example::

        replay_runs(Run.objects.filter(status="failed").values_list("id", flat=True))
    """
    from .engine.runs import replays, run_handles

    wanted = map(run_handles.parse_run_id, run_ids)
    new_ids = replays.replay_many(wanted, data=data, from_step=from_step, confirmed=confirmed)
    return [RunHandle(str(new_id)) for new_id in new_ids]


def resolve_wait(run_id: UUID | str, step: str | tuple[str, int], data: Any = None) -> bool:
    """Answer a step that waits: with an event of *data*, or with *data* as the result of its signal or invoked run.

    False if the step was settled or the run ended before. Raises RunNotFound, StepNotFound, NotWaiting, InvalidEvent
    and EncodingError.

    Example::

        resolve_wait(run_id, "wait-for-approval", {"approved": True})
    """
    return _do("resolve", run_id, step=step, data=data)


def time_out_wait(run_id: UUID | str, step: str | tuple[str, int]) -> bool:
    """Let a step that waits for an event, a signal or an invoked run time out now.

    False if the step was settled or the run ended before. Raises RunNotFound, StepNotFound and NotWaiting.

    Example::

        time_out_wait(run_id, "wait-for-approval")
    """
    return _do("time_out", run_id, step=step)


def wake_run(run_id: UUID | str) -> bool:
    """End the sleep of a run now; False if it does not wait. Raises RunNotFound, and NotWaiting if it does not sleep.

    Example::

        wake_run(run_id)
    """
    return _do("wake", run_id)


def retry_run(run_id: UUID | str) -> bool:
    """Make the next attempt of a step, or of the handler's own code, now instead of after its back-off.

    False if the run does not wait. Raises RunNotFound, and NotWaiting if it waits for something else.

    Example::

        retry_run(run_id)
    """
    return _do("retry", run_id)


def export_history(run_id: UUID | str) -> dict[str, Any]:
    """Return the history of a run as a JSON document, for ``django_durable.testing.replay_history``.

    It holds the run's event, and every step's result as it is stored. Raises RunNotFound.

    Example::

        Path("history.json").write_text(json.dumps(export_history(run_id)))
    """
    from .engine.runs import histories, run_handles

    return histories.export(run_handles.parse_run_id(run_id))


def _do(operation: str, run_id: UUID | str, **arguments: Any) -> bool:
    """Do an operation to a run; False if it was too late for it."""
    from .engine.runs.operations import OPERATIONS

    return OPERATIONS[operation].do(run_id, **arguments) is not None
