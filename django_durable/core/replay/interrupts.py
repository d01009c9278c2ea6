"""Control flow of a pass: what unwinds a handler. ``except Exception`` in project code does not catch these.

That the control flow derives from BaseException is learned from inngest-py, and the reason from absurd, whose
``SuspendTask`` is an Exception that a handler can swallow.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ...exceptions import DurableError

if TYPE_CHECKING:
    from .operations import Memo


class Interrupt(BaseException):
    """Unwind the handler of the pass."""


class Suspend(Interrupt):
    """Unwind a pass that cannot go on now: it waits for time, an event, a child or a later turn.

    The caller of the pass calls ``commit`` once the handler has unwound. It returns the step's memo where the pass can
    go on after all.
    """

    def __init__(self, commit: Callable[[], Memo | None]) -> None:
        self.commit = commit
        super().__init__()


class Abort(Interrupt):
    """Unwind a pass that can never go on; ``error`` says why."""

    def __init__(self, error: DurableError) -> None:
        self.error = error
        super().__init__(str(error))


class LeaseLost(Interrupt):
    """Unwind a pass whose run somebody else owns by now: it was cancelled, taken over or ended."""


class EngineFailed(Interrupt):
    """Unwind a pass during which the engine itself failed; ``error`` says how.

    The handler is not to blame, and does not learn of it.
    """

    def __init__(self, error: Exception) -> None:
        self.error = error
        super().__init__(str(error))
