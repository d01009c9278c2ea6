"""Definitions of functions: a handler with its id, its triggers and its options, each of them checked."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypedDict, Union, Unpack

from ...exceptions import ConfigurationError
from ..events import event_types
from ..events.events import Event
from ..option_values import flag, one_of, optional, refused, whole_number
from ..retries import BackoffOption, ExceptionClasses, RetryPolicy, make_backoff
from ..type_variables import D, R
from . import handlers
from .triggers import On, OnModel, OnSignal, Trigger, make_triggers

Handler = Callable[[Any, Any], R]
EndHandler = Union["FunctionDefinition[Any, Any]", Handler[Any], str]
ON_CODE_CHANGE = ("continue", "pin", "fail")  #: the fates of a run whose function's code has changed
END_OPTIONS = ("on_failure", "on_cancel", "on_complete")  #: the functions that may follow a run's end
REPLAYS = ("allow", "confirm", "deny")  #: whether the runs of a function may be replayed

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


class FunctionDefinition(Generic[D, R]):
    """A durable function as it is defined: its handler, its id, its triggers and its options.

    To type checkers, ``D`` is the class of its event's data and ``R`` its result.
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
            self.belong_to("project")
            self._take_options(options)
        self.end_functions: dict[str, FunctionDefinition[Any, Any] | str] = {}  #: by option, one of END_OPTIONS

    def _take_options(self, options: FunctionOptions) -> None:
        self.retries = optional(whole_number)("retries", options.get("retries"))
        self.backoff = optional(make_backoff)("backoff", options.get("backoff"))
        self.retry_on, self.no_retry_on = _exceptions(options.get("retry_on"), options.get("no_retry_on"))
        self.queue = optional(_queue_name)("queue", options.get("queue"))
        self.checkpoint = optional(flag)("checkpoint", options.get("checkpoint"))
        self.on_code_change = optional(one_of(*ON_CODE_CHANGE))("on_code_change", options.get("on_code_change"))
        self.replay = one_of(*REPLAYS)("replay", options.get("replay", "allow"))
        self.triggers: tuple[On | OnModel | OnSignal, ...] = make_triggers(options.get("trigger"))

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
        """The type of the data of an event that no trigger names, such as one that a parent sends."""
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

    def __repr__(self) -> str:
        return f"<DurableFunction {self.id}>"


@contextmanager
def _naming(function: str) -> Iterator[None]:
    """Name the function that an error is about."""
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
