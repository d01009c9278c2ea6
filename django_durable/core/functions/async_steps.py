"""The steps of ``async def`` handlers, as type checkers see them; at run time they are those of :mod:`.steps`."""

from __future__ import annotations

import datetime
import logging
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar, overload

from ..type_variables import D

if TYPE_CHECKING:
    from ..durations import Duration
    from ..events.event_types import EventType
    from ..events.events import Event
    from ..retries import BackoffOption
    from .definitions import FunctionDefinition

P = ParamSpec("P")
R = TypeVar("R")


class AsyncStep(Protocol):
    """The steps of an ``async def`` handler: each call is that of :class:`Step`, awaited.

    Instead of ``parallel``, ``race`` and ``map`` there are ``asyncio.gather``, ``TaskGroup``, ``as_completed`` and
    ``wait(…, return_when=FIRST_COMPLETED)``. ``run`` takes async functions, too, and does not decorate: the name would
    hold an awaitable, which can be awaited only once. The class is for annotations; the object is a Step.

    Example::

        @durable.function(trigger="shop/order.paid")
        async def fulfil_order(event: Event, step: AsyncStep) -> None:
            label, receipt = await asyncio.gather(
                step.run("print-label", print_label, event.data["order_id"]),
                step.invoke("receipt", send_receipt, event.data),
            )
    """

    @property
    def run_id(self) -> str:
        """The id of the run."""

    @property
    def attempt(self) -> int:
        """How often the handler's own code failed since the last recorded step."""

    @property
    def logger(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger for the handler's own code, silent while recorded steps are replayed."""

    def options(
        self,
        *,
        retries: int | None = None,
        backoff: BackoffOption | None = None,
        timeout: Duration | None = None,
        thread: bool = False,
        idempotency_key: str | None = None,
    ) -> AsyncStep:
        """Return steps with these settings in place of their function's, see :meth:`Step.options`."""

    @overload
    async def run(self, id: str, fn: Callable[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    async def run(self, id: str, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    async def run(self, id: str, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Run *fn*, async or plain, with the arguments, and record the value, see :meth:`Step.run`."""

    async def atomic(self, id: str, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run a plain *fn* in one database transaction with its record, see :meth:`Step.atomic`."""

    def idempotency_key(self, id: str) -> str:
        """Return a key for *id* that is the same in every pass and attempt, see :meth:`Step.idempotency_key`."""

    async def now(self) -> datetime.datetime:
        """Return the present moment, the same in every pass."""

    async def uuid(self) -> uuid.UUID:
        """Return a random UUID, the same in every pass."""

    async def random(self) -> float:
        """Return a random number from 0 to 1, the same in every pass."""

    async def patched(self, id: str) -> bool:
        """Tell whether this run first came here with the code that asks, see :meth:`Step.patched`."""

    async def summary(self, text: str, /) -> None:
        """Show *text* with this run in lists, see :meth:`Step.summary`."""

    async def continue_as_new(self, data: Any = None, /) -> None:
        """End this run here, and start a new one with *data*, see :meth:`Step.continue_as_new`."""

    async def sleep(self, id: str, duration: Duration, /) -> None:
        """Go on after *duration*, see :meth:`Step.sleep`."""

    async def sleep_until(self, id: str, when: datetime.datetime | datetime.date | str, /) -> None:
        """Go on at *when*, see :meth:`Step.sleep_until`."""

    @overload
    async def wait_for_event(
        self,
        id: str,
        event: EventType[D],
        *,
        timeout: Duration,
        match: str | None = None,
        if_: str | None = None,
        lookback: bool | Duration = True,
    ) -> Event[D] | None: ...
    @overload
    async def wait_for_event(
        self,
        id: str,
        event: str | Sequence[str | EventType[Any]],
        *,
        timeout: Duration,
        match: str | None = None,
        if_: str | None = None,
        lookback: bool | Duration = True,
    ) -> Event[Any] | None: ...
    async def wait_for_event(
        self,
        id: str,
        event: str | EventType[Any] | Sequence[str | EventType[Any]],
        *,
        timeout: Duration,
        match: str | None = None,
        if_: str | None = None,
        lookback: bool | Duration = True,
    ) -> Event[Any] | None:
        """Wait for an event of that name, wildcard or EventType, see :meth:`Step.wait_for_event`."""

    async def wait_for_signal(self, id: str, signal: str, /, *, timeout: Duration, replace: bool = False) -> Any:
        """Wait for ``send_signal(signal, data)``, see :meth:`Step.wait_for_signal`."""

    @overload
    async def invoke(
        self,
        id: str,
        function: FunctionDefinition[dict[str, Any], R],
        data: dict[str, Any] | None = None,
        /,
        *,
        timeout: Duration | None = None,
        cancel_children: bool = True,
    ) -> R: ...
    @overload
    async def invoke(
        self,
        id: str,
        function: FunctionDefinition[D, R],
        data: D,
        /,
        *,
        timeout: Duration | None = None,
        cancel_children: bool = True,
    ) -> R: ...
    @overload
    async def invoke(
        self,
        id: str,
        function: str,
        data: Any = None,
        /,
        *,
        timeout: Duration | None = None,
        cancel_children: bool = True,
    ) -> Any: ...
    async def invoke(
        self,
        id: str,
        function: FunctionDefinition[Any, Any] | str,
        data: Any = None,
        /,
        *,
        timeout: Duration | None = None,
        cancel_children: bool = True,
    ) -> Any:
        """Run another durable function as a child, and return its result, see :meth:`Step.invoke`."""

    async def send_event(self, id: str, /, *events: Event[Any]) -> list[str]:
        """Send events in one commit with the step's record, see :meth:`Step.send_event`."""
