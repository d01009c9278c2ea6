"""Triggers, which start functions: events by name or wildcard, maybe under a condition; changes of models; signals."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from ...exceptions import ConfigurationError, InvalidEvent, InvalidExpression
from ..events import conditions, events
from ..events.event_types import EventType
from ..option_values import one_of, refused

Change = Literal["created", "updated", "deleted"]
CHANGES: tuple[Change, ...] = ("created", "updated", "deleted")


@dataclass(frozen=True, slots=True, init=False)
class On:
    """Start on events of a name (``app/user.created``), wildcard (``app/user.*``) or EventType, if *if_* holds.

    *if_* is CEL over ``event``.

    Example::

        @durable.function("welcome-vip", trigger=On("app/user.created", if_="event.data.plan == 'vip'"))
    """

    name: str
    if_: str | None
    type: EventType[Any] | None  #: of the data of its events

    def __init__(self, name: str | EventType[Any], if_: str | None = None) -> None:
        event_type = name if isinstance(name, EventType) else None
        values = {"name": event_type.name if event_type else name, "if_": if_, "type": event_type}
        for field, value in values.items():
            object.__setattr__(self, field, value)
        try:
            events.check_pattern(self.name)
            if if_ is not None:
                conditions.compile_condition(if_, ("event",))
        except (InvalidEvent, InvalidExpression) as error:
            raise ConfigurationError(f"The trigger {self.name!r} cannot be used. {error}") from error


class OnModel:
    """Start when a row of a model was created, updated or deleted, in the transaction that did it.

    *model* is a model class or its label (``"blog.Post"``). *fields* are sent as the event's data beside ``id``, the
    primary key. *changed* limits ``updated`` to saves that changed one of these fields, which the data then lists as
    ``changed_fields``; it costs a query for each save. *if_* is CEL over ``event``. The event is named
    ``<app_label>/<model>.<change>``. As with Django's signals, ``QuerySet.update()``, ``bulk_create()`` and raw SQL
    send none.

    Example::

        @durable.function("welcome", trigger=OnModel("auth.User", "created", fields=["email"]))
    """

    def __init__(
        self,
        model: Any,
        change: Change,
        *,
        fields: Iterable[str] = (),
        changed: Iterable[str] = (),
        if_: str | None = None,
    ) -> None:
        self.label = _model_label(model)
        self.change = one_of(*CHANGES)(f"OnModel({self.label!r}): the change", change)
        self.fields = _names(fields)
        self.changed = _names(changed)
        if self.changed and change != "updated":
            raise ConfigurationError(f"OnModel({self.label!r}): changed= goes with 'updated', not with {change!r}")
        self.on = On(f"{self.label.replace('.', '/')}.{change}", if_)
        if self.changed:
            self.on = On(self.on.name, _if_changed(self.changed, if_))


class OnSignal:
    """Start when a Django signal is sent.

    *data* turns the signal's arguments into the event's data: a callable of ``(sender, **kwargs)`` that returns a
    dictionary, or None to send nothing. The event is named ``signal/`` and the function's id.

    Example::

        @durable.function("greet", trigger=OnSignal(user_logged_in, data=lambda sender, user, **kw: {"id": user.pk}))
    """

    def __init__(self, signal: Any, *, data: Callable[..., dict[str, Any] | None], if_: str | None = None) -> None:
        if not callable(getattr(signal, "connect", None)):
            raise ConfigurationError(f"OnSignal takes a Django signal, not {signal!r}")
        if not callable(data):
            raise ConfigurationError(f"OnSignal(data=...) takes a callable of (sender, **kwargs), not {data!r}")
        self.signal = signal
        self.data = data
        self.if_ = On("signal/*", if_).if_

    def on(self, function_id: str) -> On:
        """Return the trigger by which the function with this id listens to the signal's event."""
        return On(f"signal/{function_id}", self.if_)


Trigger = str | EventType[Any] | On | OnModel | OnSignal


def make_triggers(trigger: Trigger | Iterable[Trigger] | None) -> tuple[On | OnModel | OnSignal, ...]:
    """Return the triggers that the option ``trigger=`` names; a text names an event."""
    if trigger is None:
        return ()
    if isinstance(trigger, (str, EventType, On, OnModel, OnSignal)):
        trigger = (trigger,)
    if not isinstance(trigger, Iterable):
        raise _no_trigger(trigger)
    return tuple(_make_trigger(each) for each in trigger)


def _make_trigger(trigger: object) -> On | OnModel | OnSignal:
    if isinstance(trigger, (str, EventType)):
        return On(trigger)
    if isinstance(trigger, (On, OnModel, OnSignal)):
        return trigger
    raise _no_trigger(trigger)


def _no_trigger(given: object) -> ConfigurationError:
    wanted = "an event's name, On(...), OnModel(...), OnSignal(...), an EventType, or a list of these"
    return refused("trigger", given, wanted)


def _model_label(model: Any) -> str:
    label = getattr(getattr(model, "_meta", None), "label_lower", model)
    if not isinstance(label, str) or label.count(".") != 1:
        raise ConfigurationError(f"OnModel takes a model or its label such as 'blog.Post', not {model!r}")
    return label.lower()


def _names(names: Iterable[str]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)


def _if_changed(fields: tuple[str, ...], if_: str | None) -> str:
    changed = f"has(event.data.changed_fields) && event.data.changed_fields.exists(x, x in {json.dumps(fields)})"
    # On a line of its own, because the condition may end in a comment.
    return f"{changed} && (\n{if_}\n)" if if_ else changed
