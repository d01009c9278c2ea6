"""Event types: a name of events together with the class of their data."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Generic, overload

from ...exceptions import ConfigurationError, InvalidEvent
from ..type_variables import D
from ..values.coercion import Converter, is_record
from .events import Event, check_sendable

if TYPE_CHECKING:
    import datetime


class EventType(Generic[D]):
    """A name of events whose data has a type: a dataclass, NamedTuple, TypedDict or pydantic model, or a dictionary.

    Call it to make an event to send. Give it in place of the name as a trigger, in ``On(...)`` and to
    ``step.wait_for_event``: the data of the event that arrives is then an instance of the class. Raises
    ConfigurationError for a name that cannot be sent or data of any other class.

    Example::

        ORDER_PAID = EventType("shop/order.paid", OrderPaid)


        @durable.function(trigger=ORDER_PAID)
        def fulfil_order(event: Event[OrderPaid], step: Step) -> None:
            step.run("ship", ship, event.data.order_id)


        durable.send_event(ORDER_PAID(OrderPaid(order_id=7)))
    """

    @overload
    def __init__(self: EventType[dict[str, Any]], name: str) -> None: ...
    @overload
    def __init__(self, name: str, data: type[D]) -> None: ...
    def __init__(self, name: str, data: Any = dict) -> None:
        try:
            self.name: str = check_sendable(name)
        except InvalidEvent as error:
            raise ConfigurationError(f"The event type {name!r} cannot be used. {error}") from error
        if not is_record(typing.get_origin(data) or data) and (typing.get_origin(data) or data) is not dict:
            raise ConfigurationError(
                f"EventType({name!r}): its data is a dataclass, a NamedTuple, a TypedDict, a pydantic model or dict, "
                f"not {data!r}"
            )
        self.data: Any = data

    def __call__(
        self,
        data: D,
        *,
        id: str | None = None,
        user: Any = None,
        ts: datetime.datetime | None = None,
        v: str | None = None,
    ) -> Event[D]:
        """Make an event of this type to send; the arguments are those of :class:`Event`.

        Raises InvalidEvent, naming the fields, for data that does not fit.
        """
        if is_record(self.data) and not typing.is_typeddict(self.data) and not isinstance(data, self.data):
            raise InvalidEvent(
                f"{self.name}: its data is a {self.data.__qualname__}, not {type(data).__qualname__}. "
                f"Write {self.data.__qualname__}(…)"
            )
        convert(data, self.data, self.name)
        return Event(self.name, data, id=id, user=user, ts=ts, v=v)

    def read(self, data: Any) -> D:
        """Return an event's data as an instance of the class; InvalidEvent names the fields that do not fit."""
        read: D = convert(data, self.data, self.name)
        return read

    def __repr__(self) -> str:
        return f"<EventType {self.name}>"


def convert(data: Any, annotation: Any, event_name: str) -> Any:
    """Return an event's data as the annotation asks for it; InvalidEvent names the fields that do not fit."""
    converter = Converter()
    value = converter.convert(data, annotation)
    if converter.problems:
        name = annotation.__qualname__ if isinstance(annotation, type) else str(annotation)
        raise InvalidEvent(f"The data of the event {event_name!r} does not fit {name}: {'; '.join(converter.problems)}")
    return value


def typed(event: Event[Any], event_types: Iterable[EventType[Any]]) -> Event[Any]:
    """Return *event* with its data as the class of the type that has its name."""
    for each in event_types:
        if each.name == event.name:
            return dataclasses.replace(event, data=each.read(event.data))
    return event


def annotated_data(handler: Callable[..., Any]) -> Any:
    """Return ``D`` of a handler whose first parameter is an ``Event[D]``; Any where that cannot be read."""
    name = next(iter(handler.__code__.co_varnames), "")
    only = types.SimpleNamespace(__annotations__={name: handler.__annotations__.get(name, Any)})
    try:
        hint = typing.get_type_hints(only, handler.__globals__)[name]
    except (NameError, TypeError, AttributeError, SyntaxError):
        # A name that was imported for type checkers only, or is local to a function, cannot be read here.
        return Any
    return typing.get_args(hint)[0] if typing.get_origin(hint) is Event else Any
