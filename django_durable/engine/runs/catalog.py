"""The rows of functions: the registry, as it was last seen."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from django.db import transaction

from ...core import clock
from ...core.events.events import pattern_matches
from ...core.functions import registry
from ...core.functions.definitions import END_OPTIONS, FunctionDefinition
from ...core.functions.triggers import On
from ...drivers.base import get_driver
from ...exceptions import ConfigurationError
from ...models import Function, Run
from ..store.stores import get_store
from ..store.transactions import alias, atomic

logger = logging.getLogger("django_durable")

FRESH = 60.0  #: seconds for which the list of other code's functions is new enough to end a run by


@dataclass(frozen=True, slots=True)
class RemoteFunction:
    """A function that only other workers' code has, as they stored it: this worker can start its runs."""

    id: str
    queue: str | None
    code_version: str
    listens: tuple[On, ...]
    end_functions: Mapping[str, str]


AnyFunction = FunctionDefinition[Any, Any] | RemoteFunction

_foreign: dict[str, tuple[float, Mapping[str, RemoteFunction]]] = {}  #: by alias: when they were read, and by id
_heard: dict[tuple[str, str, int], bool] = {}  #: by alias, event's name and generation of the registry
_stored: set[tuple[str, str]] = set()  #: (alias, id) that this process has seen in the database


def queue_of(function: AnyFunction) -> str:
    """Return the queue of the function's runs."""
    return function.queue or get_driver().default_queue()


def ensure(functions: Iterable[AnyFunction]) -> None:
    """Make sure that these functions have rows before runs point at them; foreign ones have theirs."""
    own = [each for each in functions if isinstance(each, FunctionDefinition)]
    new = [each for each in own if (alias(), each.id) not in _stored]
    if not new:
        return
    Function.objects.using(alias()).bulk_create([_row(each) for each in new], ignore_conflicts=True)
    # Only a commit makes that last: rows written in a transaction that is still open may vanish with it.
    transaction.on_commit(lambda: _stored.update((alias(), each.id) for each in new), using=alias())


def ensure_rows_for(runs: Iterable[Run]) -> None:
    """Make sure that the functions of these runs have rows."""
    ids = {run.function_id for run in runs}
    ensure(function for function in map(registry.get, ids) if function)


def forget() -> None:
    """Forget which rows this process has seen."""
    _stored.clear()
    _foreign.clear()
    _heard.clear()


def foreign(max_age: float = FRESH) -> Mapping[str, RemoteFunction]:
    """Return the functions that only other workers' code has, as read at most *max_age* seconds ago.

    So an old worker starts the runs of functions that a deployment has just brought.
    """
    read_at, known = _foreign.get(alias(), (-math.inf, {}))
    if time.monotonic() - read_at > max_age:
        own = [function.id for function in registry.functions()]
        known = {id: _foreign_of(id, version, config) for id, version, config in get_store().foreign_functions(own)}
        if known != _foreign.get(alias(), (0, {}))[1]:
            _heard.clear()
        _foreign[alias()] = (time.monotonic(), known)
    return known


def _foreign_of(function_id: str, code_version: str, config: Mapping[str, Any]) -> RemoteFunction:
    ends = {option: config[option] for option in END_OPTIONS if config.get(option)}
    return RemoteFunction(function_id, config.get("queue"), code_version, tuple(_triggers(function_id, config)), ends)


def _triggers(function_id: str, config: Mapping[str, Any]) -> Iterator[On]:
    for each in config.get("triggers", ()):
        try:
            yield On(each["event"], each["if"])
        except (ConfigurationError, LookupError, TypeError):  # a row that later code wrote, or something else
            logger.exception("This worker's code lacks %s and cannot read its trigger %s", function_id, each)


def known(function_id: str) -> AnyFunction | None:
    """Return the function, of this code or another's; None if no code has it."""
    return registry.get(function_id) or foreign().get(function_id)


def end_function(function: AnyFunction, option: str) -> AnyFunction | None:
    """Return the function that *option* names; ConfigurationError if no code has it."""
    if isinstance(function, FunctionDefinition):
        return registry.end_function(function, option)
    function_id = function.end_functions.get(option)
    return (function_id and known(function_id)) or None


def any_ends(option: str) -> bool:
    """Tell whether a function of any code has the option, one of END_OPTIONS."""
    own = any(registry.end_function_id(function, option) for function in registry.functions())
    return own or any(option in each.end_functions for each in foreign().values())


def listening_to(event_name: str) -> list[tuple[AnyFunction, list[On]]]:
    """Return each function, of this code or another's, with those of its triggers that listen to the event's name."""
    found: list[tuple[AnyFunction, list[On]]] = [*registry.listening_to(event_name)]
    for each in foreign().values():
        triggers = [on for on in each.listens if pattern_matches(on.name, event_name)]
        if triggers and registry.get(each.id) is None:
            found.append((each, triggers))
    return found


def is_heard(event_name: str) -> bool:
    """Tell whether a function of any code listens to the event's name; every end of a run asks."""
    foreign()  # which drops answers that are out of date
    key = (alias(), event_name, registry.generation())
    if key not in _heard:
        _heard[key] = bool(listening_to(event_name))
    return _heard[key]


def sync() -> None:
    """Write the registry into the rows: new functions, changed configurations, and which are no longer in the code."""
    rows = [_row(function) for function in registry.functions()]
    with atomic():
        stored = Function.objects.using(alias())
        known = set(stored.values_list("id", flat=True))
        stored.exclude(id__in=[row.id for row in rows]).update(in_code=False)
        stored.bulk_create([row for row in rows if row.id not in known], ignore_conflicts=True)
        stored.bulk_update(
            [row for row in rows if row.id in known], ["config", "code_version", "in_code", "last_seen"], batch_size=100
        )


def _row(function: FunctionDefinition[Any, Any]) -> Function:
    now = clock.now()
    return Function(
        id=function.id,
        slug=function.slug,
        config=_config(function),
        code_version=function.code_version,
        first_seen=now,
        last_seen=now,
    )


def _config(function: FunctionDefinition[Any, Any]) -> dict[str, Any]:
    return {
        "triggers": [{"event": on.name, "if": on.if_} for on in function.listens],
        "retries": function.retries,
        "queue": function.queue,
        "checkpoint": function.checkpoint,
        "on_code_change": function.on_code_change,
        **{option: registry.end_function_id(function, option) for option in END_OPTIONS},
        "replay": function.replay,
        "place": function.place,
    }
