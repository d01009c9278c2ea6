"""The middlewares that the settings name."""

from __future__ import annotations

from collections.abc import Callable

from django.utils.module_loading import import_string

from .conf import cached_setting, get_settings
from .core.functions.middleware import Hooks, Middleware
from .core.processes import per_process
from .exceptions import ConfigurationError


def get_hooks() -> Hooks:
    """Return the hooks of ``DURABLE["MIDDLEWARE"]``; ConfigurationError if a class cannot be used."""
    return _hooks_of_process()()


@cached_setting
def _hooks_of_process() -> Callable[[], Hooks]:
    paths = get_settings().middleware
    return per_process(lambda: Hooks([_make(path) for path in paths]))


def _make(path: str) -> Middleware:
    try:
        middleware = import_string(path)
    except ImportError as error:
        reason = f"DURABLE['MIDDLEWARE']: {path!r} cannot be imported ({error})"
        raise ConfigurationError(f"{reason}; name the dotted path of a class") from error
    if not (isinstance(middleware, type) and issubclass(middleware, Middleware)):
        raise ConfigurationError(f"DURABLE['MIDDLEWARE']: {path!r} is not a class derived from durable.Middleware")
    try:
        return middleware()
    except Exception as error:
        raise ConfigurationError(f"DURABLE['MIDDLEWARE']: {path!r} cannot be made ({error!r})") from error
