"""The steps that a handler calls: each asks for an operation; :mod:`..replay` knows whether it is done already."""

from __future__ import annotations

import datetime
import functools
import hashlib
import inspect
import logging
import random
import uuid
from collections.abc import Callable, Iterable, MutableMapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar, overload

from ...exceptions import ConfigurationError, DurableError
from .. import clock
from ..durations import Duration, parse_moment, parse_wait
from ..events.conditions import match_rule
from ..events.event_types import EventType
from ..events.events import Event
from ..replay import groups, operations
from ..replay.groups import Group, GroupMode, RaceResult
from ..replay.operations import StepOptions
from ..replay.replay import Replay, in_a_body
from ..retries import BackoffOption
from ..type_variables import D
from ..values import encoding
from ..values.coercion import fields_of
from .definitions import FunctionDefinition
from .run_logger import RunLogger
from .step_arguments import (
    check_events,
    check_signal,
    read_function_id,
    read_limit,
    read_lookback,
    read_patterns,
    read_summary,
    step_options,
)

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
R1 = TypeVar("R1")
R2 = TypeVar("R2")
R3 = TypeVar("R3")

_DECORATED: Any = object()  #: stands for the function that step.run decorates


@dataclass(frozen=True, slots=True, kw_only=True)
class RunInfo:
    """The run of a step: its ids, the handler's failed attempts, and the time zone of naive moments."""

    run_id: str
    app_label: str
    attempt: Callable[[], int]
    timezone: datetime.tzinfo
    largest_value: int  #: bytes of JSON
    function_id: str = ""


class Step:
    """The durable part of a handler. Each call is recorded once; later passes get its record.

    Ids name the steps of a function and may repeat in loops: the n-th use of an id is one step in every pass. A call
    that can never work (a bad duration, a step inside a step) fails the run with an InvalidStep that names its line.
    ``async def`` handlers await these calls.
    """

    def __init__(self, replay: Replay, run: RunInfo, options: StepOptions = operations.NO_OPTIONS) -> None:
        self._replay = replay
        self._run = run
        self._options = options

    @property
    def run_id(self) -> str:
        """The id of the run."""
        return self._run.run_id

    @property
    def attempt(self) -> int:
        """How often the handler's own code failed since the last recorded step."""
        return self._run.attempt()

    @property
    def logger(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger for the handler's own code: silent while recorded steps are replayed, so each line comes once.

        Lines carry ``run_id`` and ``function`` as extra fields, and go to the logger ``django_durable.runs``.
        """
        extra = {"run_id": self._run.run_id, "function": self._run.function_id}
        return RunLogger(self._replay, extra)

    def options(
        self,
        *,
        retries: int | None = None,
        backoff: BackoffOption | None = None,
        timeout: Duration | None = None,
        thread: bool = False,
        idempotency_key: str | None = None,
    ) -> Step:
        """Return steps with these settings in place of their function's, for ``run``, ``atomic`` and ``map``.

        *retries* and *backoff* are as in ``durable.function``. *timeout* bounds one attempt, which fails with a
        StepTimeout: async bodies, and plain ones in the main thread of a worker process, are interrupted; elsewhere
        the attempt fails when it returns. *thread* runs a plain function of an async handler in a thread of its own.
        *idempotency_key* names the parameter of the step's function that receives a key; the key is the same in every
        attempt.

        Example::

            step.options(retries=8, timeout="30s", idempotency_key="key").run("charge", charge_card, order_id)
        """
        settings = functools.partial(step_options, retries, backoff, timeout, thread, idempotency_key)
        return Step(self._replay, self._run, self._replay.checked("options", settings))

    @overload
    def run(self, id: str, /) -> Callable[[Callable[[], R]], R]: ...
    @overload
    def run(self, id: str, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    def run(self, id: str, fn: Any = _DECORATED, /, *args: Any, **kwargs: Any) -> Any:
        """Run *fn* with the arguments, and record the value it returns.

        A step whose function raises is tried again on its own. The function may run twice if its worker dies before
        the record is committed; never after. Raises StepError once the retries are spent. Without a function it
        decorates one that takes no arguments and runs it at once; the name then holds the value.

        Example::

            step.run("send-welcome-email", send_email, email, template="welcome")

            @step.run("total")
            def total() -> int:
                return sum(line.price for line in lines)
        """
        if fn is _DECORATED:
            return functools.partial(self.run, id)
        return self._body(id, fn, args, kwargs, atomic=False)

    def atomic(self, id: str, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run *fn* in one database transaction together with its record, so that its writes happen exactly once.

        Example::

            lines = step.atomic("reserve-stock", reserve_stock, order_id)
        """
        result: R = self._body(id, fn, args, kwargs, atomic=True)
        return result

    def _body(self, id: str, fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any], *, atomic: bool) -> Any:
        def build(ref: operations.StepRef) -> operations.RunStep:
            given = self._with_key(ref, kwargs)
            make = operations.AtomicStep if atomic else operations.RunStep
            return make(ref, _check_function(fn, atomic=atomic), args, given, self._options)

        return self._replay.call(id, build)

    def _with_key(self, ref: operations.StepRef, kwargs: dict[str, Any]) -> dict[str, Any]:
        name = self._options.key_argument
        return kwargs if name is None else {**kwargs, name: self._stable_key(ref.key.hex())}

    def idempotency_key(self, id: str) -> str:
        """Return a key for *id* that is the same in every pass and attempt of this run, for payment providers and such.

        Example::

            step.run("charge", charge_card, order_id, idempotency_key=step.idempotency_key("charge"))
        """
        return self._stable_key(id)

    def _stable_key(self, name: str) -> str:
        return hashlib.blake2b(f"{self._run.run_id}/{name}".encode(), digest_size=16).hexdigest()

    def now(self) -> datetime.datetime:
        """Return the present moment, the same in every pass.

        Example::

            deadline = step.now() + timedelta(days=3)
        """
        moment: datetime.datetime = self._body("now", clock.now, (), {}, atomic=False)
        return moment

    def uuid(self) -> uuid.UUID:
        """Return a random UUID, the same in every pass.

        Example::

            token = step.uuid().hex
        """
        value: uuid.UUID = self._body("uuid", uuid.uuid4, (), {}, atomic=False)
        return value

    def random(self) -> float:
        """Return a random number from 0 to 1, the same in every pass.

        Example::

            variant = "a" if step.random() < 0.5 else "b"
        """
        value: float = self._body("random", random.random, (), {}, atomic=False)
        return value

    def patched(self, id: str) -> bool:
        """Tell whether this run first came here with the code that asks: False if it passed here with older code.

        The answer is recorded, so that a change of the code between steps can leave runs in flight as they were.

        Example::

            if step.patched("charge-before-shipping"):
                step.run("charge", charge_card, order_id)
        """
        # Asked now, not when the step is performed: an async handler may come to other steps before.
        comes_first = not self._replay.is_replaying
        answer: bool = self._body(f"patched {id}", lambda: comes_first, (), {}, atomic=False)
        return answer

    def summary(self, text: str, /) -> None:
        """Show *text*, 200 characters at most, with this run in lists.

        Example::

            step.summary(f"order {order_id}, {len(lines)} lines")
        """
        done: None = self._replay.call("summary", lambda ref: operations.Summarize(ref, read_summary(text)))
        return done

    def continue_as_new(self, data: Any = None, /) -> None:
        """End this run here, and start a new one of the same function with *data* as its event's data, in one commit.

        The history of an endless loop stays small that way. A run that invoked this one gets the last run's result.

        Example::

            step.continue_as_new({"cursor": page.next})
        """

        def build(ref: operations.StepRef) -> operations.ContinueAsNew:
            if ref.branch:
                raise DurableError("a branch cannot end its run. Return from the branch first")
            return operations.ContinueAsNew(ref, self._as_input(data))

        done: None = self._replay.call("continue-as-new", build)
        return done

    def _as_input(self, data: Any) -> str:
        given = {} if data is None else fields_of(data)
        return encoding.encode(given, root="data", limit=self._run.largest_value, objects=False)

    # Several lines of work

    @overload
    def parallel(self, first: Callable[[], R1], second: Callable[[], R2], /, *, id: str = ...) -> tuple[R1, R2]: ...
    @overload
    def parallel(
        self, first: Callable[[], R1], second: Callable[[], R2], third: Callable[[], R3], /, *, id: str = ...
    ) -> tuple[R1, R2, R3]: ...
    @overload
    def parallel(self, *branches: Callable[[], R], id: str = ..., **labelled: Callable[[], R]) -> tuple[R, ...]: ...
    def parallel(self, *branches: Any, id: str = "parallel", **labelled: Any) -> Any:
        """Run *branches* at the same time, on as many workers as are free, and return their values in order.

        A branch is a callable that may use several steps, sleep and wait. All branches settle; then the first that
        failed, in their order, raises its StepError here. Branches given by keyword have a label, by which runs in
        flight know them when others are inserted; the values of branches without one come first.

        Example::

            label, receipt = step.parallel(
                lambda: step.run("print-label", print_label, order_id),
                lambda: step.invoke("receipt", send_receipt, {"order_id": order_id}),
            )
        """
        return self._group(GroupMode.PARALLEL, id, branches, labelled)

    def race(self, *branches: Callable[[], R], id: str = "race", **labelled: Callable[[], R]) -> RaceResult[R]:
        """Run *branches* at the same time until the first settles; return its index and value, or raise its error.

        The others go no further: their waits and sleeps are closed, and the result of a body that still runs is
        discarded.

        Example::

            first = step.race(
                lambda: step.wait_for_event("paid", "shop/order.paid", match="data.order_id", timeout="3d"),
                lambda: step.wait_for_event("cancelled", "shop/order.cancelled", match="data.order_id", timeout="3d"),
            )
        """
        result: RaceResult[R] = self._group(GroupMode.RACE, id, branches, labelled)
        return result

    def _group(
        self, mode: GroupMode, id: str, plain: Sequence[Callable[[], Any]], labelled: MutableMapping[str, Any]
    ) -> Any:
        functions = {**{str(index): fn for index, fn in enumerate(plain)}, **labelled}

        def build(ref: operations.StepRef) -> Group:
            if mode is GroupMode.RACE and not functions:
                raise DurableError("a race needs a branch")
            return Group(ref, mode, groups.branches_of(ref, functions))

        return self._replay.call(id, build) if functions or mode is GroupMode.RACE else ()

    def map(self, id: str, fn: Callable[[T], R], items: Iterable[T], /, *, limit: int | None = None) -> list[R]:
        """Run *fn* once for each item, as a step of its own; return the values in order.

        At most *limit* run at the same time. The items must be the same in every pass: take them from a step or from
        the event. All of them settle; then the first that failed raises its StepError.

        Example::

            sizes = step.map("resize", resize_image, image_ids, limit=10)
        """
        given = list(items)

        def build(ref: operations.StepRef) -> Group:
            _check_function(fn)
            return Group(ref, GroupMode.MAP, groups.leaves_of(ref, fn, given), read_limit(limit), self._options)

        result: list[R] = self._replay.call(id, build) if given else []
        return result

    # Time, events, other functions

    def sleep(self, id: str, duration: Duration, /) -> None:
        """Go on after *duration*, counted from the first time that the step is reached; zero or less goes on at once.

        A duration is ``"24h"``, ``"1 day"``, ``"1h30m"``, ``"P1D"``, a timedelta, or seconds; 10 years at most.

        Example::

            step.sleep("wait-a-day", "1 day")
        """
        done: None = self._replay.call(id, lambda ref: operations.Sleep(ref, duration=parse_wait(duration)))
        return done

    def sleep_until(self, id: str, when: datetime.datetime | datetime.date | str, /) -> None:
        """Go on at *when*; a past moment goes on at once. The moment of the first pass wins over those of later ones.

        *when* is an aware datetime, a naive one or a date in the current time zone, or ISO text.

        Example::

            step.sleep_until("birthday", user.next_birthday)
        """
        done: None = self._replay.call(
            id, lambda ref: operations.Sleep(ref, until=parse_moment(when, self._run.timezone))
        )
        return done

    @overload
    def wait_for_event(
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
    def wait_for_event(
        self,
        id: str,
        event: str | Sequence[str | EventType[Any]],
        *,
        timeout: Duration,
        match: str | None = None,
        if_: str | None = None,
        lookback: bool | Duration = True,
    ) -> Event[Any] | None: ...
    def wait_for_event(
        self,
        id: str,
        event: str | EventType[Any] | Sequence[str | EventType[Any]],
        *,
        timeout: Duration,
        match: str | None = None,
        if_: str | None = None,
        lookback: bool | Duration = True,
    ) -> Event[Any] | None:
        """Wait for an event of that name, wildcard or EventType; return it, or None when *timeout* passes first.

        Of several names, the first event of any of them counts.

        *match* is a path (``"data.user.id"``) at which the run's trigger and the event must have the same value;
        *if_* is CEL over ``event`` (the trigger) and ``async`` (the arriving event). With *lookback*, events received
        since the trigger count too, except those that resolved a wait with this id already; False, a duration or
        ``"since:<step id>"`` narrows that.

        Example::

            post = step.wait_for_event("wait-for-post", event="app/post.created", match="data.user.id", timeout="24h")
        """

        def build(ref: operations.StepRef) -> operations.WaitForEvent:
            patterns, types = read_patterns(event)
            longest = parse_wait(timeout)
            earlier = read_lookback(lookback)
            return operations.WaitForEvent(ref, patterns, match_rule(match, if_), longest, earlier, types)

        result: Event | None = self._replay.call(id, build)
        return result

    def wait_for_signal(self, id: str, signal: str, /, *, timeout: Duration, replace: bool = False) -> Any:
        """Wait for ``send_signal(signal, data)`` and return its data, or None when *timeout* passes first.

        *signal* is a name for this wait alone, such as one with a random part for a link in an email. If another run
        waits for the name already, a StepError is raised, unless *replace* takes the name over: then the other wait
        gets None.

        Example::

            token = step.uuid().hex
            step.run("ask", send_approval_mail, order_id, token)
            answer = step.wait_for_signal("approval", f"approve-{token}", timeout="3d")
        """

        def build(ref: operations.StepRef) -> operations.WaitForSignal:
            name = check_signal(signal)
            return operations.WaitForSignal(ref, name, parse_wait(timeout), replace)

        return self._replay.call(id, build)

    @overload
    def invoke(
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
    def invoke(
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
    def invoke(
        self,
        id: str,
        function: str,
        data: Any = None,
        /,
        *,
        timeout: Duration | None = None,
        cancel_children: bool = True,
    ) -> Any: ...
    def invoke(
        self,
        id: str,
        function: FunctionDefinition[Any, Any] | str,
        data: Any = None,
        /,
        *,
        timeout: Duration | None = None,
        cancel_children: bool = True,
    ) -> Any:
        """Run another durable function as a child, wait for it, and return its result.

        *function* is the function or its id (``"app/slug"``, or ``"slug"`` in this app); *data* becomes its event's
        data. Raises InvokeError if the child fails, is cancelled or is unknown, InvokeTimeout after *timeout*.
        Cancelling this run cancels the child, unless *cancel_children* is False.

        Example::

            receipt = step.invoke("receipt", send_receipt, {"order_id": order_id}, timeout="1h")
        """

        def build(ref: operations.StepRef) -> operations.Invoke:
            text = self._as_input(data)
            longest = None if timeout is None else parse_wait(timeout)
            if not isinstance(function, FunctionDefinition):
                child = read_function_id(function, self._run.app_label)
                return operations.Invoke(ref, child, text, longest, cancel_children=cancel_children)
            hint = functools.partial(operations.return_annotation, function.handler)
            return operations.Invoke(ref, function.id, text, longest, hint, cancel_children)

        return self._replay.call(id, build)

    def send_event(self, id: str, /, *events: Event[Any]) -> list[str]:
        """Send events in one commit with the step's record, so exactly once; return their ids.

        Example::

            step.send_event("emit", Event("app/post.created", {"user": {"id": 7}}))
        """

        def build(ref: operations.StepRef) -> operations.SendEvents:
            return operations.SendEvents(ref, check_events(events))

        result: list[str] = self._replay.call(id, build)
        return result


current_step: ContextVar[Step | None] = ContextVar("current_step", default=None)  #: of the handler that runs now


def step(fn: Callable[P, R]) -> Callable[P, R]:
    """Make a step of a function wherever a handler calls it; elsewhere, and inside other steps, it is a plain call.

    The step's id is the function's name with dashes.

    Example::

        @durable.step
        def send_invoice(order_id: int) -> str: ...

        @durable.function("bill", trigger="shop/order.paid")
        def bill(event: Event, step: Step) -> None:
            send_invoice(event.data["order_id"])
    """
    if not inspect.isfunction(fn):
        raise ConfigurationError(f"durable.step decorates a function, not {fn!r}. Write @durable.step, without ()")
    id = fn.__name__.strip("_").replace("_", "-")

    @functools.wraps(fn)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        present = current_step.get()
        result: R = fn(*args, **kwargs) if present is None or in_a_body() else present.run(id, fn, *args, **kwargs)
        return result

    if inspect.iscoroutinefunction(fn):
        inspect.markcoroutinefunction(call) if hasattr(inspect, "markcoroutinefunction") else None
    return call


def _check_function(fn: Any, *, atomic: bool = False) -> Any:
    """Return the function of a step; refuse an async one for a step that is *atomic*."""
    if not callable(fn):
        raise DurableError(f"needs a function to run, not {fn!r}. Pass the function itself and its arguments after it")
    if atomic and inspect.iscoroutinefunction(fn):
        raise DurableError(f"{fn.__qualname__}() is async, and a transaction needs plain code. Use step.run")
    return fn
