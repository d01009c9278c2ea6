"""Durable functions: the decorator, and what it makes of a handler."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import hashlib
import inspect
import marshal
import re
import textwrap
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Generic, Protocol, Union, overload

from ...exceptions import ConfigurationError
from ..events import event_types
from ..events.events import Event
from ..retries import Backoff, ExceptionClasses, RetryPolicy, make_backoff
from ..type_variables import D, R
from . import registry, run_handles
from .triggers import On, OnModel, OnSignal, Trigger, make_triggers

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from ..durations import Duration
    from ..events.events import CancelEvent, CompletionEvent, FailureEvent
    from .async_steps import AsyncStep
    from .run_handles import RunHandle
    from .steps import Step

Handler = Callable[[Any, Any], R]
BackoffOption = Backoff | "Duration" | Iterable["Duration"] | None if TYPE_CHECKING else Any

EndHandler = Union["DurableFunction[Any, Any]", Handler[Any], str]
ON_CODE_CHANGE = ("continue", "pin", "fail")  #: what a run may do whose function's code changed
END_OPTIONS = ("on_failure", "on_cancel", "on_complete")  #: what may run when a run ended
REPLAYS = ("allow", "confirm", "deny")  #: what may be said of replaying a function's runs

_SLUG = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")
_APP = re.compile(r"[a-z_][a-z0-9_]{0,99}")


class DurableFunction(Generic[D, R]):
    """A handler that can be run durably, with its triggers and options. Made by :func:`function`.

    To type checkers, ``D`` is the class of its event's data and ``R`` what it returns.
    """

    def __init__(
        self,
        handler: Handler[R],
        *,
        id: str | None = None,
        trigger: Trigger | Iterable[Trigger] | None = None,
        retries: int | None = None,
        backoff: Any = None,
        retry_on: ExceptionClasses | None = None,
        no_retry_on: ExceptionClasses | None = None,
        queue: str | None = None,
        checkpoint: bool | None = None,
        on_code_change: str | None = None,
        on_failure: EndHandler | None = None,
        on_cancel: EndHandler | None = None,
        on_complete: EndHandler | None = None,
        replay: str = "allow",
    ) -> None:
        self.handler = handler
        self.place = _place(handler)
        _check_handler(handler, self.place)
        name = handler.__name__.replace("_", "-").strip("-")
        self._app, self.slug = _split_id(name if id is None else id, self.place)
        self.place_in(registry.app_label(handler.__module__))
        self.is_async = inspect.iscoroutinefunction(handler)
        self.retries = _check_retries(retries, self.place)
        self.backoff = None if backoff is None else make_backoff(backoff)
        self.retry_on, self.no_retry_on = _check_exceptions(retry_on, no_retry_on, self.place)
        self.queue = _check_queue(queue, self.place)
        self.checkpoint = _check_checkpoint(checkpoint, self.place)
        self.on_code_change = _check_on_code_change(on_code_change, self.place)
        self.replay = _check_replay(replay, self.place)
        self.triggers: tuple[On | OnModel | OnSignal, ...] = make_triggers(trigger)
        self._end_functions: dict[str, DurableFunction[Any, Any] | str] = {}
        registry.add(self)
        for option, given in zip(END_OPTIONS, (on_failure, on_cancel, on_complete), strict=True):
            if isinstance(given, (DurableFunction, str)):
                self._end_functions[option] = given
            elif given is not None:
                self._on_end(option, given)

    def place_in(self, app_label: str) -> None:
        """Take the label of the app that holds the handler, unless the function was given one with its id."""
        self.app_label = self._app or app_label  #: ``project`` outside an app
        self.id = f"{self.app_label}/{self.slug}"

    @functools.cached_property
    def code_version(self) -> str:
        """A hash of the handler's source; it changes whenever the code does."""
        return hashlib.sha256(_source(self.handler)).hexdigest()[:16]

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


def function(
    id: str | None = None,
    *,
    trigger: Trigger | Iterable[Trigger] | None = None,
    retries: int | None = None,
    backoff: Any = None,
    retry_on: ExceptionClasses | None = None,
    no_retry_on: ExceptionClasses | None = None,
    queue: str | None = None,
    checkpoint: bool | None = None,
    on_code_change: str | None = None,
    on_failure: EndHandler | None = None,
    on_cancel: EndHandler | None = None,
    on_complete: EndHandler | None = None,
    replay: str = "allow",
    **unknown: Any,
) -> Decorator:
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
    if unknown:
        raise ConfigurationError(_unknown_options(unknown))
    if callable(id):
        raise ConfigurationError(f"The decorator of {_place(id)}: write @durable.function(), with parentheses")

    def decorate(handler: Handler[Any]) -> DurableFunction[Any, Any]:
        return DurableFunction(
            handler,
            id=id,
            trigger=trigger,
            retries=retries,
            backoff=backoff,
            retry_on=retry_on,
            no_retry_on=no_retry_on,
            queue=queue,
            checkpoint=checkpoint,
            on_code_change=on_code_change,
            on_failure=on_failure,
            on_cancel=on_cancel,
            on_complete=on_complete,
            replay=replay,
        )

    return decorate


def _unknown_options(unknown: Iterable[str]) -> str:
    known = [
        "id",
        "trigger",
        "retries",
        "backoff",
        "retry_on",
        "no_retry_on",
        "queue",
        "checkpoint",
        "on_code_change",
        *END_OPTIONS,
        "replay",
    ]
    name = next(iter(unknown))
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"the options are {', '.join(known)}"
    return f"durable.function() has no option {name!r}; {hint}"


def _source(handler: Any) -> bytes:
    code = handler.__code__
    # Python 3.13 takes the text of "python -c" for the source of whatever was compiled from a string.
    if not code.co_filename.startswith("<"):
        with suppress(OSError, TypeError):
            return textwrap.dedent(inspect.getsource(handler)).encode()
    return marshal.dumps(code.replace(co_filename="", co_firstlineno=1))


def _place(handler: object) -> str:
    code = getattr(inspect.unwrap(handler) if callable(handler) else handler, "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code else repr(handler)


def _check_handler(handler: Any, place: str) -> None:
    if not inspect.isfunction(handler):
        raise ConfigurationError(f"durable.function() decorates a function, not {handler!r}")
    name = f"The handler {handler.__name__!r} ({place})"
    if inspect.isgeneratorfunction(handler) or inspect.isasyncgenfunction(handler):
        raise ConfigurationError(f"{name} contains 'yield'; a handler calls steps and returns")
    if not _takes_event_and_step(inspect.signature(handler)):
        raise ConfigurationError(f"{name} must take exactly two positional parameters: (event, step)")


def _takes_event_and_step(signature: inspect.Signature) -> bool:
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = list(signature.parameters.values())
    return len(parameters) == 2 and all(each.kind in positional for each in parameters)


def _split_id(id: object, place: str) -> tuple[str | None, str]:
    if not isinstance(id, str):
        raise ConfigurationError(f"The id of a durable function is text, not {id!r} ({place})")
    app, slash, slug = id.rpartition("/")
    if not _SLUG.fullmatch(slug) or (slash and not _APP.fullmatch(app)):
        raise ConfigurationError(
            f"The function id {id!r} ({place}) cannot be used: write 'slug' or 'app/slug', "
            "in lower case letters, digits, '.', '_' and '-', 100 characters at most"
        )
    return app or None, slug


def _check_retries(retries: object, place: str) -> int | None:
    if retries is None:
        return None
    if not isinstance(retries, int) or isinstance(retries, bool) or retries < 0:
        raise ConfigurationError(f"retries={retries!r} ({place}) must be a whole number, 0 or more")
    return retries


def _check_exceptions(retry_on: Any, no_retry_on: Any, place: str) -> tuple[Any, Any]:
    try:
        policy = RetryPolicy(retry_on=retry_on, no_retry_on=no_retry_on)
    except ConfigurationError as error:
        raise ConfigurationError(f"{error} ({place})") from None
    return policy.retry_on, policy.no_retry_on


def _check_queue(queue: object, place: str) -> str | None:
    if queue is None or (isinstance(queue, str) and 0 < len(queue) <= 100):
        return queue
    raise ConfigurationError(f"queue={queue!r} ({place}) must be the name of a queue, text of 1 to 100 characters")


def _check_replay(replay: object, place: str) -> str:
    if isinstance(replay, str) and replay in REPLAYS:
        return replay
    raise ConfigurationError(f"replay={replay!r} ({place}) must be one of {', '.join(map(repr, REPLAYS))}")


def _check_checkpoint(checkpoint: object, place: str) -> bool | None:
    if checkpoint is None or isinstance(checkpoint, bool):
        return checkpoint
    raise ConfigurationError(f"checkpoint={checkpoint!r} ({place}) must be True or False")


def _check_on_code_change(value: object, place: str) -> str | None:
    if value is None or (isinstance(value, str) and value in ON_CODE_CHANGE):
        return value
    raise ConfigurationError(
        f"on_code_change={value!r} ({place}) must be one of {', '.join(map(repr, ON_CODE_CHANGE))}"
    )
