"""Durable functions: the decorator, and the functions that it makes of handlers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Protocol, Unpack, overload

from ...exceptions import ConfigurationError
from ..events.events import Event
from ..suggestions import did_you_mean
from ..type_variables import D, R
from . import handlers, registry, run_handles
from .definitions import END_OPTIONS, FunctionDefinition, FunctionOptions, Handler

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from ..events.events import CancelEvent, CompletionEvent, FailureEvent
    from .async_steps import AsyncStep
    from .run_handles import RunHandle
    from .steps import Step


class DurableFunction(FunctionDefinition[D, R]):
    """A handler that can be run durably, with its triggers and options. Made by :func:`function`.

    To type checkers, ``D`` is the class of its event's data and ``R`` its result.
    """

    def __init__(self, handler: Handler[R], *, id: str | None = None, **options: Unpack[FunctionOptions]) -> None:
        super().__init__(handler, id=id, **options)
        registry.add(self)
        for option in END_OPTIONS:
            given: Any = options.get(option)
            if isinstance(given, (FunctionDefinition, str)):
                self.end_functions[option] = given
            elif given is not None:
                self._on_end(option, given)

    def on_failure(self, handler: Handler[Any]) -> DurableFunction[Any, Any]:
        """Register *handler* to run, durably and once, for each failed run of this function.

        The handler receives a :class:`FailureEvent`. Its id is this function's with ``.on_failure`` added.

        Example::

            @fulfil_order.on_failure
            def refund_order(event: FailureEvent, step: Step) -> None:
                step.run("refund", refund, event.original.data["order_id"])
        """
        return self._on_end("on_failure", handler)

    def on_cancel(self, handler: Handler[Any]) -> DurableFunction[Any, Any]:
        """Register *handler* to run, durably and once, for each cancelled run of this function.

        The handler receives a :class:`CancelEvent`. Its id is this function's with ``.on_cancel`` added.

        Example::

            @fulfil_order.on_cancel
            def release_stock(event: CancelEvent, step: Step) -> None:
                step.run("release", release, event.original.data["order_id"])
        """
        return self._on_end("on_cancel", handler)

    def on_complete(self, handler: Handler[Any]) -> DurableFunction[Any, Any]:
        """Register *handler* to run, durably and once, for each completed run of this function.

        The handler receives a :class:`CompletionEvent`. Its id is this function's with ``.on_complete`` added.

        Example::

            @fulfil_order.on_complete
            def thank(event: CompletionEvent, step: Step) -> None:
                step.run("thank", send_email, event.original.data["email"], number=event.result)
        """
        return self._on_end("on_complete", handler)

    def _on_end(self, option: str, handler: Handler[Any]) -> DurableFunction[Any, Any]:
        slug = f"{self.slug}.{option}"
        function_id = f"{self._app}/{slug}" if self._app else slug
        function: DurableFunction[Any, Any] = DurableFunction(handler, id=function_id, queue=self.queue)
        self.end_functions[option] = function
        return function

    def start(self, data: D | None = None, *, id: str | None = None, outside_transaction: bool = False) -> RunHandle[R]:
        """Start a run with *data* as its event's data, in the open transaction if there is one; return its handle.

        *id* is an idempotency key: only the first call with an id starts a run, and later calls return that run. Raises
        EncodingError, InvalidEvent for an id that is not text, and OutsideTransaction while a transaction of another
        database is open, unless *outside_transaction* accepts that.

        Example::

            receipt = fulfil_order.start({"order_id": order.pk}, id=f"order-{order.pk}").result(timeout="5s")
        """
        return run_handles.start(self, data, id, outside_transaction)

    async def astart(
        self, data: D | None = None, *, id: str | None = None, outside_transaction: bool = False
    ) -> RunHandle[R]:
        """Start a run from async code; see :meth:`start`."""
        return await run_handles.astart(self, data, id, outside_transaction)


class Decorator(Protocol):
    """Makes a durable function of a handler, and keeps the types of its data and its result."""

    @overload
    def __call__(
        self, handler: Callable[[Event[D], AsyncStep], Coroutine[Any, Any, R]], /
    ) -> DurableFunction[D, R]: ...
    @overload
    def __call__(self, handler: Callable[[Event[D], Step], R], /) -> DurableFunction[D, R]: ...
    @overload
    def __call__(self, handler: Callable[[FailureEvent[D], Step], R], /) -> DurableFunction[Any, R]: ...
    @overload
    def __call__(self, handler: Callable[[CancelEvent[D], Step], R], /) -> DurableFunction[Any, R]: ...
    @overload
    def __call__(self, handler: Callable[[CompletionEvent[D], Step], R], /) -> DurableFunction[Any, R]: ...


def function(id: str | None = None, **options: Unpack[FunctionOptions]) -> Decorator:
    """Make a durable function of a handler ``(event, step)``.

    *id* is ``"slug"`` or ``"app/slug"``; without one, the handler's name with dashes. Without an app, the installed app
    that holds the module, else ``project``. *trigger* is an event's name or wildcard, ``On``, ``OnModel``, ``OnSignal``
    or a list of them; without one, the function is only invoked. *retries* is how often each step, and the handler's
    own code between steps, is tried again (4); *backoff* the pauses between: a duration, a list of them,
    ``Exponential``, ``Linear`` or a callable of (failed attempts, error). With *retry_on*, only errors of these classes
    are tried again; those of *no_retry_on* never are. *queue* is the Celery queue of its runs;
    ``checkpoint=False`` gives every step a turn of its own. *on_code_change* says whether a run whose
    function's code changed goes on (``"continue"``), waits for a worker with the old code (``"pin"``) or fails
    (``"fail"``). *on_failure*, *on_cancel* and *on_complete* are handlers, functions or ids that run once for each run
    that ended so. *replay* is ``"deny"`` or ``"confirm"`` where a replay could move money twice: it is refused, or
    refused unless somebody confirms it.

    Raises ConfigurationError for anything that cannot work.

    Example::

        @durable.function("activation-email", trigger="app/user.created")
        def activation_email(event: Event, step: Step) -> None:
            step.run("send-welcome-email", send_email, event.user["email"], template="welcome")
    """
    if callable(id):
        raise ConfigurationError(
            f"The decorator of {handlers.place_of(id)}: write @durable.function(), with parentheses"
        )
    _check_known(options)

    def decorate(handler: Handler[Any]) -> DurableFunction[Any, Any]:
        return DurableFunction(handler, id=id, **options)

    return decorate


def _check_known(options: Iterable[str]) -> None:
    known = ["id", *FunctionOptions.__annotations__]
    for name in options:
        if name not in known:
            hint = did_you_mean(name, known, f"the options are {', '.join(known)}")
            raise ConfigurationError(f"durable.function() has no option {name!r}; {hint}")
