"""The events that tell of the end of a run: to the function that handles it, and to functions that listen to ends.

One event of the engine tells both. It is stored in the commit that ends the run, and only if there is a function to
tell: an end that no function follows costs nothing.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from ...core.functions import registry
from ...core.functions.definitions import END_OPTIONS
from ...core.replay.operations import return_annotation
from ...core.values import encoding
from ...exceptions import ConfigurationError, EncodingError
from ...models import Event, Run, RunStatus
from ..events import sending
from ..store import stored_events
from ..store.rows import EventRow
from ..store.transactions import alias
from . import catalog
from .catalog import AnyFunction

logger = logging.getLogger("django_durable")

_OPTIONS = dict(zip((RunStatus.FAILED, RunStatus.CANCELLED, RunStatus.COMPLETED), END_OPTIONS, strict=True))
_NAMES = dict(zip(_OPTIONS, (stored_events.FAILED, stored_events.CANCELLED, stored_events.COMPLETED), strict=True))


@dataclass(frozen=True, slots=True)
class RunEnd:
    """How a run ended: with what output or error, as JSON text."""

    run_id: UUID
    status: str
    output: str | None = None
    error: str | None = None
    has_branches: bool = False  #: whether branches may be open
    unused: tuple[bytes, ...] = ()  #: keys of memos that the last pass did not ask for


@dataclass(frozen=True, slots=True)
class FollowUp:
    """The runs that follow the end of a run of *function_id*: of *handler*, and of the listeners to *name*."""

    function_id: str
    name: str
    handler: AnyFunction | None
    is_heard: bool


def follow_up_of(function_id: str, status: str, trigger: str | None) -> FollowUp | None:
    """Return the follow-up of a run that *trigger* started and that ends with *status*; None if there is none.

    Nothing follows a run that was itself started by a lifecycle event: that might go on for ever.
    """
    ending = RunStatus(status)
    if trigger in stored_events.LIFECYCLE or ending not in _NAMES:
        return None
    handler = _handler(function_id, _OPTIONS[ending])
    is_heard = catalog.is_heard(_NAMES[ending])
    return FollowUp(function_id, _NAMES[ending], handler, is_heard) if handler or is_heard else None


def _handler(function_id: str, option: str) -> AnyFunction | None:
    function = catalog.known(function_id)
    try:
        return catalog.end_function(function, option) if function else None
    except ConfigurationError:
        logger.exception("A run of %s ended, and what %s names is not in the code", function_id, option)
        return None


def store_end_event(follow_up: FollowUp, end: RunEnd, trigger: EventRow) -> Event:
    """Store the event that tells of the end, in the ending commit; with listeners, it is ingested like any other."""
    data = {
        "function": follow_up.function_id,
        "run_id": str(end.run_id),
        "event": stored_events.portable(trigger),
        **_details(follow_up, end),
    }
    return sending.store_own(follow_up.name, data, to_ingest=follow_up.is_heard)


def _details(follow_up: FollowUp, end: RunEnd) -> dict[str, Any]:
    if follow_up.name == stored_events.COMPLETED:
        return {"result": _result(follow_up.function_id, end.output or "null")}
    error = json.loads(end.error or "{}")
    return {"error": error} if follow_up.name == stored_events.FAILED else {"reason": error.get("message", "")}


def _result(function_id: str, output: str) -> Any:
    """Return the output as an event's data holds it: an object of a class that is not registered is a plain value."""
    function = registry.get(function_id)
    try:
        value = encoding.decode(output, lambda: return_annotation(function.handler) if function else None)
        return encoding.to_json(value, objects=False)
    except EncodingError:
        return encoding.plain(json.loads(output))


def follow_ups_of_cancelled(run_ids: Iterable[UUID]) -> list[tuple[FollowUp, EventRow, UUID]]:
    """Return the follow-ups of these cancelled runs, with their triggers; query only if there may be some."""
    if not catalog.is_heard(stored_events.CANCELLED) and not catalog.any_ends("on_cancel"):
        return []
    runs = Run.objects.using(alias()).filter(id__in=list(run_ids)).select_related("event").defer("output", "error")
    followed = []
    for run in runs:
        follow_up = follow_up_of(run.function_id, RunStatus.CANCELLED, run.event.name if run.event else None)
        if follow_up:
            followed.append((follow_up, stored_events.trigger_of_run(run), run.id))
    return followed


def store_invoked_event(child: Run, parent_trigger: EventRow | None) -> None:
    """Store the event that tells of an invoked run, in the invoking commit, if anybody listens to it."""
    if (parent_trigger and parent_trigger.name in stored_events.LIFECYCLE) or not catalog.is_heard(
        stored_events.INVOKED
    ):
        return
    data: Mapping[str, Any] = {
        "function": child.function_id,
        "run_id": str(child.id),
        "parent_run_id": str(child.parent_id),
        "event": {"data": json.loads(child.input or "{}")},
    }
    sending.store_own(stored_events.INVOKED, dict(data), to_ingest=True)
