"""Which middlewares the settings name."""

from __future__ import annotations

import os
from typing import Any

from django.core.signals import setting_changed
from django.utils.module_loading import import_string

from .conf import get_settings
from .core.functions.middleware import Hooks, Middleware
from .exceptions import ConfigurationError

_hooks: dict[int, Hooks] = {}  #: by process, because a fork must not share its parent's instances


def get_hooks() -> Hooks:
    """Return the hooks of ``DURABLE["MIDDLEWARE"]``; ConfigurationError if a class cannot be used."""
    pid = os.getpid()
    hooks = _hooks.get(pid)
    return hooks or _hooks.setdefault(pid, Hooks([_make(path) for path in get_settings().middleware]))


def _make(path: str) -> Middleware:
    try:
        middleware = import_string(path)
    except ImportError as error:
        reason = f"DURABLE['MIDDLEWARE']: {path!r} cannot be imported ({error})"
        raise ConfigurationError(f"{reason}; name the dotted path of a class") from error
    if not (isinstance(middleware, type) and issubclass(middleware, Middleware)):
        raise ConfigurationError(f"DURABLE['MIDDLEWARE']: {path!r} is no class derived from durable.Middleware")
    try:
        return middleware()
    except Exception as error:
        raise ConfigurationError(f"DURABLE['MIDDLEWARE']: {path!r} cannot be made ({error!r})") from error


def _forget(*, setting: str, **kwargs: Any) -> None:
    if setting == "DURABLE":
        _hooks.clear()


setting_changed.connect(_forget, dispatch_uid="django_durable.middleware")
