"""Django signals of the engine: a worker sends them after its commits, to receivers in its own process.

They are for metrics, logs and caches. A process that dies between the commit and the signal sends none: work that must
happen belongs in ``on_complete``, ``on_failure`` or ``on_cancel``. Django logs the errors of receivers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from django.dispatch import Signal

run_started = Signal()  #: run_id, function_id; the first turn of a run begins
run_ended = Signal()  #: run_id, function_id, status: completed, failed or cancelled
step_failed = Signal()  #: run_id, function_id, step, attempts, error; the last attempt failed


def tell(signal: Signal, values: Callable[[], Iterable[dict[str, Any]]]) -> None:
    """Send the signal with each of *values*, which is called only if there is a receiver."""
    from .models import Function  # receivers are connected before models can be imported

    if signal.has_listeners(Function):
        for each in values():
            signal.send_robust(Function, **each)
