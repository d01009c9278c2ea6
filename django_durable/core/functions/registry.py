"""Which durable functions the code has, by id."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ...exceptions import ConfigurationError
from ..events.events import pattern_matches
from ..suggestions import did_you_mean

if TYPE_CHECKING:
    from .definitions import FunctionDefinition
    from .triggers import On

_functions: dict[str, FunctionDefinition[Any, Any]] = {}
_additions = 0
_unnamed: list[FunctionDefinition[Any, Any]] = []  #: registered before the apps were ready to say whose they are
_locate: Callable[[str], str | None] | None = None


def app_label(module: str) -> str:
    """Return the label of the installed app that holds *module*; ``project`` if none does."""
    return (_locate(module) if _locate else None) or "project"


def locate_apps_by(locate: Callable[[str], str | None]) -> None:
    """Use *locate* (module name to app label or None) from now on; functions registered before get their ids now."""
    global _locate
    _locate = locate
    early, _unnamed[:] = _unnamed[:], []
    for function in early:
        add(function)


def add(function: FunctionDefinition[Any, Any]) -> None:
    """Register a function; ConfigurationError if another one has its id."""
    if _locate is None:
        _unnamed.append(function)
        return
    function.belong_to(app_label(function.handler.__module__))
    other = _functions.get(function.id)
    if other is not None and other.place != function.place:
        raise ConfigurationError(
            f"Two durable functions have the id {function.id!r}: {other.place} and {function.place}. Rename one"
        )
    global _additions
    _additions += 1
    _functions[function.id] = function


def generation() -> int:
    """Return a number that changes with every function that is registered."""
    return _additions


def get(function_id: str) -> FunctionDefinition[Any, Any] | None:
    """Return the function of that id, or None if this code has none."""
    return _functions.get(function_id)


def qualified(id_or_slug: str, app_label: str) -> str:
    """Return the id that a function of *app_label* means by ``app/slug`` or ``slug``."""
    return id_or_slug if "/" in id_or_slug else f"{app_label}/{id_or_slug}"


def find(id_or_slug: str, app_label: str = "project") -> FunctionDefinition[Any, Any]:
    """Return the function of ``app/slug``, or of ``slug`` in *app_label*; ConfigurationError suggests another."""
    function_id = qualified(id_or_slug, app_label)
    function = get(function_id)
    if function is None:
        hint = did_you_mean(function_id, _functions, "is its durable.py in an installed app?")
        raise ConfigurationError(f"There is no durable function {function_id!r}; {hint}")
    return function


def end_function_id(function: FunctionDefinition[Any, Any], option: str) -> str | None:
    """Return the id of the function that *option*, one of END_OPTIONS, names; it may not exist."""
    named = function.end_functions.get(option)
    if isinstance(named, str):
        return qualified(named, function.app_label)
    return named.id if named else None


def end_function(function: FunctionDefinition[Any, Any], option: str) -> FunctionDefinition[Any, Any] | None:
    """Return the function that *option*, one of END_OPTIONS, names; ConfigurationError if it does not exist."""
    named = function.end_functions.get(option)
    return find(named, function.app_label) if isinstance(named, str) else named


def functions() -> list[FunctionDefinition[Any, Any]]:
    """Return every registered function, by id."""
    return [_functions[key] for key in sorted(_functions)]


def async_ids() -> list[str]:
    """Return the ids of the functions whose handlers are ``async def``."""
    return [function.id for function in _functions.values() if function.is_async]


def listening_to(event_name: str) -> list[tuple[FunctionDefinition[Any, Any], list[On]]]:
    """Return each function with those of its triggers that listen to the event's name."""
    found = [
        (function, [on for on in function.listens if pattern_matches(on.name, event_name)])
        for function in _functions.values()
    ]
    return [(function, triggers) for function, triggers in found if triggers]
