"""Durable functions: the decorator, and what it makes of a handler."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypedDict, Union, Unpack, overload

from ...exceptions import ConfigurationError
from ..events import event_types
from ..events.events import Event
from ..option_values import flag, one_of, optional, refused, whole_number
from ..retries import BackoffOption, ExceptionClasses, RetryPolicy, make_backoff
from ..suggestions import did_you_mean
from ..type_variables import D, R
from . import handlers, registry, run_handles
from .triggers import On, OnModel, OnSignal, Trigger, make_triggers

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from ..events.events import CancelEvent, CompletionEvent, FailureEvent
    from .async_steps import AsyncStep
    from .run_handles import RunHandle
    from .steps import Step

Handler = Callable[[Any, Any], R]
EndHandler = Union["DurableFunction[Any, Any]", Handler[Any], str]
ON_CODE_CHANGE = ("continue", "pin", "fail")  #: what a run may do whose function's code changed
END_OPTIONS = ("on_failure", "on_cancel", "on_complete")  #: what may run when a run ended
REPLAYS = ("allow", "confirm", "deny")  #: what may be said of replaying a function's runs

_SLUG = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")
_APP = re.compile(r"[a-z_][a-z0-9_]{0,99}")


class FunctionOptions(TypedDict, total=False):
    """The options that a function may have beside its id; :func:`function` says what each of them does."""

    trigger: Trigger | Iterable[Trigger] | None
    retries: int | None
    backoff: BackoffOption | None
    retry_on: ExceptionClasses | None
    no_retry_on: ExceptionClasses | None
    queue: str | None
    checkpoint: bool | None
    on_code_change: str | None
    on_failure: EndHandler | None
    on_cancel: EndHandler | None
    on_complete: EndHandler | None
    replay: str


class DurableFunction(Generic[D, R]):
    """A handler that can be run durably, with its triggers and options. Made by :func:`function`.

    To type checkers, ``D`` is the class of its event's data and ``R`` what it returns.
    """

    def __init__(self, handler: Handler[R], *, id: str | None = None, **options: Unpack[FunctionOptions]) -> None:
        if not inspect.isfunction(handler):
            raise ConfigurationError(f"durable.function() decorates a function, not {handler!r}")
        self.handler = handler
        self.place = handlers.place_of(handler)
        self.is_async = inspect.iscoroutinefunction(handler)
        name = handler.__name__.replace("_", "-").strip("-") if id is None else id
        with _naming(f"The durable function {name!r} ({self.place})"):
            handlers.check_handler(handler)
            self._app, self.slug = _split_id(name)
            self.belong_to(registry.app_label(handler.__module__))
            self._take_options(options)
        self._end_functions: dict[str, DurableFunction[Any, Any] | str] = {}
        registry.add(self)
        self._take_end_functions(options)

    def _take_options(self, options: FunctionOptions) -> None:
        self.retries = optional(whole_number)("retries", options.get("retries"))
        self.backoff = optional(make_backoff)("backoff", options.get("backoff"))
        self.retry_on, self.no_retry_on = _exceptions(options.get("retry_on"), options.get("no_retry_on"))
        self.queue = optional(_queue_name)("queue", options.get("queue"))
        self.checkpoint = optional(flag)("checkpoint", options.get("checkpoint"))
        self.on_code_change = optional(one_of(*ON_CODE_CHANGE))("on_code_change", options.get("on_code_change"))
        self.replay = one_of(*REPLAYS)("replay", options.get("replay", "allow"))
        self.triggers: tuple[On | OnModel | OnSignal, ...] = make_triggers(options.get("trigger"))

    def _take_end_functions(self, options: FunctionOptions) -> None:
        for option in END_OPTIONS:
            given: Any = options.get(option)
            if isinstance(given, (DurableFunction, str)):
                self._end_functions[option] = given
            elif given is not None:
                self._on_end(option, given)

    def belong_to(self, app_label: str) -> None:
        """Take the label of the app that holds the handler, unless the function was given one with its id."""
        self.app_label = self._app or app_label  #: ``project`` outside an app
        self.id = f"{self.app_label}/{self.slug}"

    @functools.cached_property
    def code_version(self) -> str:
        """A hash of the handler's source; it changes whenever the code does."""
        return handlers.version_of(self.handler)

    @functools.cached_property
    def listens(self) -> tuple[On, ...]:
        """The event names and wildcards that start it."""
        return tuple(self._listen(trigger) for trigger in self.triggers)

    def _listen(self, trigger: On | OnModel | OnSignal) -> On:
        if isinstance(trigger, OnModel):
            return trigger.on
        return trigger.on(self.id) if isinstance(trigger, OnSignal) else trigger

    @functools.cached_property
    def _data(self) -> Any:
        """The type of the data of an event that no trigger names: that of one sent by a parent, say."""
        annotated = event_types.annotated_data(self.handler)
        types = {on.type for on in self.listens}
        only = types.pop() if annotated is Any and len(types) == 1 else None
        return annotated if only is None else only.data

    def typed(self, event: Event[Any]) -> Event[Any]:
        """Return *event* with its data as the handler expects it: as its EventType or its annotation says.

        Raises InvalidEvent, naming the fields, for data that does not fit.
        """
        for on in self.listens:
            if on.type is not None and on.name == event.name:
                return event_types.typed(event, [on.type])
        if self._data is Any:
            return event
        return dataclasses.replace(event, data=event_types.convert(event.data, self._data, event.name))

    def on_failure(self, handler: Handler[Any]) -> DurableFunction[Any, Any]:
        """Register *handler* to run, durably and once, for each failed run of this function.

        It receives a :class:`FailureEvent`. Its id is this function's with ``.on_failure`` added.

        Example::

            @fulfil_order.on_failure
            def refund_order(event: FailureEvent, step: Step) -> None:
                step.run("refund", refund, event.original.data["order_id"])
        """
        return self._on_end("on_failure", handler)

    def on_cancel(self, handler: Handler[Any]) -> DurableFunction[Any, Any]:
        """Register *handler* to run, durably and once, for each cancelled run of this function.

        It receives a :class:`CancelEvent`. Its id is this function's with ``.on_cancel`` added.

        Example::

            @fulfil_order.on_cancel
            def release_stock(event: CancelEvent, step: Step) -> None:
                step.run("release", release, event.original.data["order_id"])
        """
        return self._on_end("on_cancel", handler)

    def on_complete(self, handler: Handler[Any]) -> DurableFunction[Any, Any]:
        """Register *handler* to run, durably and once, for each completed run of this function.

        It receives a :class:`CompletionEvent`. Its id is this function's with ``.on_complete`` added.

        Example::

            @fulfil_order.on_complete
            def thank(event: CompletionEvent, step: Step) -> None:
                step.run("thank", send_email, event.original.data["email"], number=event.result)
        """
        return self._on_end("on_complete", handler)

    def _on_end(self, option: str, handler: Handler[Any]) -> DurableFunction[Any, Any]:
        slug = f"{self.slug}.{option}"
        function_id = f"{self._app}/{slug}" if self._app else slug
        function = self._end_functions[option] = DurableFunction(handler, id=function_id, queue=self.queue)
        return function

    def end_function_id(self, option: str) -> str | None:
        """Return the id of the function that *option*, one of END_OPTIONS, names; it may not exist."""
        function = self._end_functions.get(option)
        if isinstance(function, str):
            return registry.qualified(function, self.app_label)
        return function.id if function else None

    def end_function(self, option: str) -> DurableFunction[Any, Any] | None:
        """Return the function that *option*, one of END_OPTIONS, names; ConfigurationError if it does not exist."""
        function = self._end_functions.get(option)
        return registry.find(function, self.app_label) if isinstance(function, str) else function

    def start(self, data: D | None = None, *, id: str | None = None, outside_transaction: bool = False) -> RunHandle[R]:
        """Start a run with *data* as its event's data, in the open transaction if there is one; return its handle.

        *id* is an idempotency key: the same id starts one run, and later calls return that one. Raises EncodingError,
        InvalidEvent for an id that is no text, and OutsideTransaction while a transaction of another database is open,
        unless *outside_transaction* accepts that.

        Example::

            receipt = fulfil_order.start({"order_id": order.pk}, id=f"order-{order.pk}").result(timeout="5s")
        """
        return run_handles.start(self, data, id, outside_transaction)

    async def astart(
        self, data: D | None = None, *, id: str | None = None, outside_transaction: bool = False
    ) -> RunHandle[R]:
        """Start a run from async code; see :meth:`start`."""
        return await run_handles.astart(self, data, id, outside_transaction)

    def __repr__(self) -> str:
        return f"<DurableFunction {self.id}>"


class Decorator(Protocol):
    """Makes a durable function of a handler, and keeps what its data and its result are."""

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
    ``checkpoint=False`` gives every step a turn and a message of its own. *on_code_change* says whether a run whose
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


@contextmanager
def _naming(function: str) -> Iterator[None]:
    """Say of which function an error is."""
    try:
        yield
    except ConfigurationError as error:
        raise ConfigurationError(f"{function}: {error}") from None


def _split_id(id: object) -> tuple[str | None, str]:
    if not isinstance(id, str):
        raise ConfigurationError("its id must be text")
    app, slash, slug = id.rpartition("/")
    if not _SLUG.fullmatch(slug) or (slash and not _APP.fullmatch(app)):
        raise ConfigurationError(
            "its id cannot be used: write 'slug' or 'app/slug', "
            "in lower case letters, digits, '.', '_' and '-', 100 characters at most"
        )
    return app or None, slug


def _queue_name(name: str, value: object) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= 100:
        raise refused(name, value, "the name of a queue, text of 1 to 100 characters")
    return value


def _exceptions(retry_on: Any, no_retry_on: Any) -> tuple[Any, Any]:
    policy = RetryPolicy(retry_on=retry_on, no_retry_on=no_retry_on)
    return policy.retry_on, policy.no_retry_on
