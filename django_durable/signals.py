"""Django signals of the engine, for this process to react to: sent after the commit, by the worker that did it.

They are for metrics, logs and caches. A process that dies between the commit and the signal sends none: what must
happen belongs into ``on_complete``, ``on_failure`` or ``on_cancel``. Receivers' errors are logged by Django.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from django.dispatch import Signal

run_started = Signal()  #: run_id, function_id; the first turn of a run begins
run_ended = Signal()  #: run_id, function_id, status: completed, failed or cancelled
step_failed = Signal()  #: run_id, function_id, step, attempts, error; the last attempt failed


def tell(signal: Signal, values: Callable[[], Iterable[dict[str, Any]]]) -> None:
    """Send the signal with each of *values*, which are asked for only if there is a receiver."""
    from .models import Function  # receivers are connected before models can be imported

    if signal.has_listeners(Function):
        for each in values():
            signal.send_robust(Function, **each)
