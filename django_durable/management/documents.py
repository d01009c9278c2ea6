"""Functions, runs and steps as JSON documents."""

from __future__ import annotations

import datetime
import json
from typing import Any
from uuid import UUID

from ..conf import get_settings
from ..core.functions import registry
from ..core.functions.definitions import END_OPTIONS, FunctionDefinition
from ..core.values.encoding import plain
from ..core.values.errors import ErrorInfo, decode_error
from ..drivers.base import get_driver
from ..exceptions import EncodingError, RunNotFound
from ..models import Run, Step


def find_run(run_id: UUID) -> Run:
    """Return a run; raises RunNotFound."""
    run: Run | None = Run.objects.using(get_settings().database).filter(id=run_id).first()
    if run is None:
        raise RunNotFound(run_id)
    return run


def run_document(run: Run) -> dict[str, Any]:
    """Return a run as JSON."""
    return {
        "id": str(run.id),
        "function": run.function_id,
        "status": run.status,
        "waiting_for": run.waiting_for or None,
        "event": str(run.event_id) if run.event_id else None,
        "output": _value(run.output),
        "error": _error(run.error),
        "created_at": run.created_at.isoformat(),
        "finished_at": _moment(run.finished_at),
    }


def step_document(step: Step) -> dict[str, Any]:
    """Return a step as JSON; ``attempt`` counts the attempts that failed."""
    return {
        "id": step.name,
        "ordinal": step.ordinal,
        "kind": step.kind,
        "status": step.status,
        "attempt": step.attempt,
        "unused": step.unused,
        "output": _value(step.output),
        "error": _error(step.error),
    }


def function_document(function: FunctionDefinition[Any, Any]) -> dict[str, Any]:
    """Return a function of the code as JSON."""
    settings = get_settings()
    return {
        "id": function.id,
        "triggers": [{"event": on.name, "if": on.if_} for on in function.listens],
        "retries": settings.retries if function.retries is None else function.retries,
        "queue": function.queue or get_driver().default_queue(),
        "checkpoint": settings.checkpoint if function.checkpoint is None else function.checkpoint,
        **{option: registry.end_function_id(function, option) for option in END_OPTIONS},
        "code_version": function.code_version,
        "place": function.place,
    }


def error_line(error: dict[str, Any] | None) -> str:
    """Return class and message of an error's document, in one line."""
    return f"{error['type'].rpartition('.')[2]}: {error['message']}" if error else ""


def _value(text: str | None) -> Any:
    if text is None:
        return None
    # A value written by hand or by a later version must not keep the others from being shown.
    try:
        return plain(json.loads(text))
    except (ValueError, EncodingError):
        return text


def _error(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        return _error_document(decode_error(text))
    except EncodingError:
        return {"type": "", "message": text, "traceback": "", "cause": None}


def _error_document(error: ErrorInfo) -> dict[str, Any]:
    return {
        "type": error.type,
        "message": error.message,
        "traceback": error.traceback,
        "cause": _error_document(error.cause) if error.cause else None,
    }


def _moment(moment: datetime.datetime | None) -> str | None:
    return moment.isoformat() if moment else None
