"""Hooks of a project into sending, turns, the functions of steps and recorded values."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from ...exceptions import ConfigurationError
from ..events.events import Event
from ..replay.interrupts import LeaseLost

logger = logging.getLogger("django_durable")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunContext:
    """The run that a turn works on: ``event`` is its trigger, ``attempt`` counts failures of its handler's own code."""

    run_id: str
    function_id: str
    queue: str
    attempt: int
    event: Event


@dataclass(frozen=True, slots=True, kw_only=True)
class StepContext:
    """A step whose next attempt is about to be made: ``attempt`` counts from 1, ``kind`` is ``run`` or ``atomic``."""

    run: RunContext
    name: str
    ordinal: int
    kind: str
    attempt: int


class Middleware:
    """Hooks into the engine; a subclass overrides those that it needs.

    Name subclasses in ``DURABLE["MIDDLEWARE"]``. Each process makes one instance of each, without arguments, which all
    threads share. Hooks before something are called in the order of the setting, those after it in reverse.

    Example::

        class Timing(Middleware):
            def before_turn(self, run: RunContext) -> None:
                logger.info("run %s goes on", run.run_id)
    """

    def before_send(self, events: list[Event]) -> list[Event]:
        """Return the events to send in place of these: as many, in their order. An error reaches the sender."""
        return events

    def after_send(self, events: list[Event], ids: list[str]) -> None:
        """Learn the ids of the events before the sender does; in the sender's open transaction, if there is one."""

    def before_turn(self, run: RunContext) -> None:
        """Prepare for a turn of the handler. After an error the run is given back and tried again later."""

    def after_turn(self, run: RunContext, outcome: str) -> None:
        """Clean up after a turn.

        *outcome* is ``completed``, ``failed`` or ``suspended``; ``lost`` if another worker owns the run by now, and
        ``broken`` if the engine itself, or a hook, failed.
        """

    def around_step(self, context: StepContext) -> AbstractContextManager[Any]:
        """Return a context manager to run a step's function in. An error that it raises is the step's own."""
        return nullcontext()

    def encode(self, value: Any) -> Any:
        """Return the value to record in place of a step's or a run's result. An error fails the attempt."""
        return value

    def decode(self, value: Any) -> Any:
        """Return the value that :meth:`encode` got. After an error the run is given back and tried again later."""
        return value


class Hooks:
    """The hooks of several middlewares, in order; a hook that none of them overrides costs nothing."""

    def __init__(self, middlewares: Sequence[Middleware] = ()) -> None:
        self._before_send = _overriding(middlewares, "before_send")
        self._after_send = _overriding(middlewares, "after_send")[::-1]
        self._turn = _overriding(middlewares, "before_turn", "after_turn")
        self._around_step = _overriding(middlewares, "around_step")
        self._encode = _overriding(middlewares, "encode")
        self._decode = _overriding(middlewares, "decode")[::-1]
        self.watch_turns = bool(self._turn)  #: whether a hook hears of turns
        self.watch_steps = bool(self._around_step)  #: whether one hears of attempts of steps
        self.change_values = bool(self._encode or self._decode)  #: whether one changes recorded values
        self.decoder = self.decode if self._decode else None  #: undoes the change, if one does

    def before_send(self, events: list[Event]) -> list[Event]:
        """Return the events as the hooks change them; ConfigurationError if one changes their number."""
        for each in self._before_send:
            changed = each.before_send(events)
            if not isinstance(changed, list) or len(changed) != len(events):
                raise ConfigurationError(
                    f"{type(each).__qualname__}.before_send() was given {len(events)} events and returned {changed!r}; "
                    "return a list of as many"
                )
            events = changed
        return events

    def after_send(self, events: list[Event], ids: list[str]) -> None:
        """Tell the hooks; their errors are logged."""
        for each in self._after_send:
            _logged(each.after_send, events, ids)

    def around_turn(self, run: RunContext, turn: Callable[[], str]) -> None:
        """Call *turn*, which returns its outcome, between the hooks."""
        end, outcome = self.begin_turn(run), "broken"
        try:
            outcome = turn()
        except LeaseLost:
            outcome = "lost"
            raise
        finally:
            end(outcome)

    def begin_turn(self, run: RunContext) -> Callable[[str], None]:
        """Call the hooks before a turn; return a function that calls those after it, and logs their errors."""
        prepared: list[Middleware] = []

        def end(outcome: str) -> None:
            for each in reversed(prepared):
                _logged(each.after_turn, run, outcome)

        try:
            for each in self._turn:
                each.before_turn(run)
                prepared.append(each)
        except BaseException:
            end("broken")
            raise
        return end

    def around_step(self, step: Callable[[], StepContext]) -> AbstractContextManager[None]:
        """Return a context manager of all hooks for a step's function; *step* makes their argument."""
        return self._within_hooks(step()) if self.watch_steps else nullcontext()

    @contextmanager
    def _within_hooks(self, step: StepContext) -> Iterator[None]:
        with ExitStack() as stack:
            for each in self._around_step:
                stack.enter_context(each.around_step(step))
            yield
            return
        raise RuntimeError("A middleware's around_step() swallowed the error of the step; let it pass")

    def encode(self, value: Any) -> Any:
        """Return the value to record in place of this one."""
        for each in self._encode:
            value = each.encode(value)
        return value

    def decode(self, value: Any) -> Any:
        """Return the value that was recorded as this one."""
        for each in self._decode:
            value = each.decode(value)
        return value


def _overriding(middlewares: Sequence[Middleware], *names: str) -> list[Middleware]:
    def overrides(middleware: Middleware, name: str) -> bool:
        return getattr(type(middleware), name) is not getattr(Middleware, name)

    return [each for each in middlewares if any(overrides(each, name) for name in names)]


def _logged(hook: Callable[..., None], *arguments: Any) -> None:
    try:
        hook(*arguments)
    except Exception:
        logger.exception("The hook %s failed", getattr(hook, "__qualname__", hook))
