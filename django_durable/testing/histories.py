"""A recorded history against the code of today: would a run go on that began with other code?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from django.utils import timezone

from ..conf import get_settings
from ..core.functions import registry
from ..core.functions.definitions import FunctionDefinition
from ..core.functions.steps import RunInfo, Step
from ..core.replay.async_replay import AsyncReplay
from ..core.replay.groups import Op
from ..core.replay.interrupts import Suspend
from ..core.replay.operations import Memo
from ..core.replay.replay import Aborted, Completed, Outcome, Raised, Replay, Suspended
from ..engine.runs import histories
from ..engine.runs.histories import History
from ..exceptions import StepKindMismatch
from ..middleware import get_hooks


@dataclass(frozen=True, slots=True)
class OpenStep:
    """A step that the handler asked for, and that has no result yet.

    ``recorded`` tells whether the run had reached the step, which then slept, waited or was between attempts. Otherwise
    the step is new.
    """

    name: str
    ordinal: int
    kind: str
    recorded: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The outcome of a handler's pass over a recorded history.

    ``outcome`` is ``completed`` (with ``value``), ``raised`` (with ``error``, an exception of the handler's own),
    ``suspended`` (at ``step``, which the run would execute next) or ``aborted`` (with ``error``: the run would fail,
    and not be retried). ``unused`` names the recorded steps that the handler did not ask for, in order.
    """

    outcome: str
    value: Any = None
    error: Exception | None = None
    step: OpenStep | None = None
    unused: tuple[str, ...] = ()

    @property
    def kind_mismatch(self) -> StepKindMismatch | None:
        """The error, if a recorded step is now called as one of another kind."""
        return self.error if isinstance(self.error, StepKindMismatch) else None


def replay_history(
    history: Mapping[str, Any] | str | Path, function: FunctionDefinition[Any, Any] | str | None = None
) -> Report:
    """Run a function's handler against a recorded history, up to the first step without a result; touch no database.

    *history* is the document that ``export_history`` returned, its JSON text, or a file of it. *function* is a durable
    function or its id; without one, it is the function that the history names. The handler's own code runs, the
    functions of its steps do not. Raises DurableError for a *history* that is not one, and ConfigurationError if the
    code lacks the function.

    Example::

        report = replay_history(Path("tests/histories/order-7.json"))
        assert (report.outcome, report.unused) == ("completed", ())
    """
    recorded = _read(history)
    if not isinstance(function, FunctionDefinition):
        function = registry.find(function or recorded.function_id)
    return _Rehearsal(recorded).run(function)


def _read(history: Mapping[str, Any] | str | Path) -> History:
    if isinstance(history, Path):
        return histories.parse(history.read_text())
    return histories.parse(history) if isinstance(history, str) else histories.read(history)


class _Rehearsal:
    """One pass of a handler over a history, in which nothing is performed."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._memos = {memo.key: memo for _, memo in history.memos}
        self._next: OpenStep | None = None

    def run(self, function: FunctionDefinition[Any, Any]) -> Report:
        decode = get_hooks().decode
        replay = (
            AsyncReplay(self._memos, decode=decode)
            if function.is_async
            else Replay(self._memos, self._perform, decode=decode)
        )
        handler = partial(function.handler, self._history.event, Step(replay, self._info(function)))
        outcome = self._rehearse(replay, handler) if isinstance(replay, AsyncReplay) else replay.run(handler)
        unused = tuple(name for name, memo in self._history.memos if memo.key not in replay.used)
        return _report(outcome, self._next, unused)

    def _rehearse(self, replay: AsyncReplay, handler: Callable[[], Any]) -> Outcome:
        """Take an async handler as far as recorded results lead."""
        replay.start(handler)
        while True:
            outcome = replay.rest()
            if outcome is not None:
                return outcome
            if not replay.release():
                break
        for asked in replay.take_asked()[:1]:
            self._note(asked.op, asked.memo)
        replay.unwind()
        return Suspended(Suspend(lambda: None)) if self._next else replay.stalled()

    def _perform(self, op: Op, memo: Memo | None) -> Memo:
        self._note(op, memo)
        raise Suspend(lambda: None)

    def _note(self, op: Op, memo: Memo | None) -> None:
        ref = op.ref
        self._next = OpenStep(ref.name, ref.ordinal, str(op.kind), recorded=memo is not None)

    def _info(self, function: FunctionDefinition[Any, Any]) -> RunInfo:
        return RunInfo(
            run_id=self._history.run_id,
            app_label=function.app_label,
            attempt=lambda: self._history.attempt,
            timezone=timezone.get_current_timezone(),
            largest_value=get_settings().max_payload,
            function_id=function.id,
        )


def _report(outcome: Outcome, step: OpenStep | None, unused: tuple[str, ...]) -> Report:
    if isinstance(outcome, Completed):
        return Report(outcome="completed", value=outcome.value, unused=unused)
    if isinstance(outcome, Raised):
        return Report(outcome="raised", error=outcome.error, unused=unused)
    if isinstance(outcome, Aborted):
        return Report(outcome="aborted", error=outcome.error, unused=unused)
    return Report(outcome="suspended", step=step, unused=unused)
