"""Settings: ``DURABLE = {...}`` in the project's settings, over the defaults below."""

from __future__ import annotations

import dataclasses
import datetime
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from django.conf import settings as django_settings
from django.core.signals import setting_changed

from .core.functions.definitions import ON_CODE_CHANGE
from .core.option_values import Check, flag, one_of, optional, positive_duration, refused, text, whole_number
from .core.retries import Backoff, ExceptionClasses, RetryPolicy, make_backoff
from .core.suggestions import did_you_mean
from .exceptions import ConfigurationError

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings in force; each field is the key in capitals."""

    autodiscover_module: str = "durable"  #: the module of each app that holds its functions
    database: str = "default"  #: the alias of the database that holds the durable rows
    driver: str = "celery"  #: who carries wake-ups: "celery", "inline", or the dotted path of a driver class
    celery_app: str | None = None  #: dotted path of the Celery app; None: the current one when Django starts
    queue: str | None = None  #: the queue of functions without one; None: Celery's task_default_queue
    retries: int = 4  #: further attempts of a step whose function does not give their number
    backoff: Backoff | None = None  #: pauses between attempts; None: 15 s, 30 s, 1 m, … 2 h
    lease: datetime.timedelta = datetime.timedelta(seconds=15)  #: how long a silent worker keeps a run
    rehint: datetime.timedelta = datetime.timedelta(seconds=10)  #: after how long an unclaimed run is announced again
    turn_budget: datetime.timedelta = datetime.timedelta(seconds=5)  #: after how long a run gives way to others
    checkpoint: bool = True  #: whether a turn runs several steps; False: one turn per step
    scheduler: str = "worker"  #: where the scheduler runs: in every Celery "worker", or only as a "command"
    on_code_change: str = "continue"  #: the fate of a run whose code has changed: "continue", "pin" or "fail"
    middleware: tuple[str, ...] = ()  #: dotted paths of Middleware classes, from the outermost to the innermost
    max_payload: int = 1024 * 1024  #: bytes of JSON of a step's value, a run's output or an invocation's data
    max_event: int = 512 * 1024  #: bytes of JSON of an event's data
    max_steps: int = 10_000  #: steps of a run
    max_run: int = 32 * 1024 * 1024  #: bytes of JSON of all values and errors recorded in a run
    codec: Any = field(default=None, repr=False)  #: of payloads: None, the dotted path of a class, or an instance
    encryption_keys: tuple[str, ...] = field(default=(), repr=False)  #: of FernetCodec, newest first; all decrypt
    match_keys: tuple[str, ...] = field(default=(), repr=False)  #: of the hashes that match compares, newest first

    def retry_policy(
        self,
        retries: int | None,
        backoff: Backoff | None,
        *,
        retry_on: ExceptionClasses | None = None,
        no_retry_on: ExceptionClasses | None = None,
    ) -> RetryPolicy:
        """Return the policy of a function, which may leave the count and the pauses to these settings."""
        policy = RetryPolicy(
            retries=self.retries if retries is None else retries, retry_on=retry_on, no_retry_on=no_retry_on
        )
        chosen = backoff or self.backoff
        return policy if chosen is None else dataclasses.replace(policy, backoff=chosen)


def _dotted_paths(name: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(path, str) for path in value):
        raise refused(name, value, "a list of dotted paths")
    return tuple(value)


def _codec(name: str, value: Any) -> Any:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, type) or not (hasattr(value, "encode") and hasattr(value, "decode")):
        raise refused(name, value, "None, the dotted path of a class with encode and decode, or an instance")
    return value


def _secrets(name: str, value: Any) -> tuple[str, ...]:
    # The error does not show the value, which may be a key in another form.
    if not isinstance(value, list | tuple) or not all(isinstance(each, str) and each for each in value):
        raise ConfigurationError(f"{name} must be a list of texts, the newest first")
    return tuple(value)


_CHECKS: Mapping[str, Check[Any]] = {
    "autodiscover_module": text,
    "database": text,
    "driver": text,
    "celery_app": optional(text),
    "queue": optional(text),
    "retries": whole_number,
    "backoff": make_backoff,
    "lease": positive_duration,
    "rehint": positive_duration,
    "turn_budget": positive_duration,
    "checkpoint": flag,
    "scheduler": one_of("worker", "command"),
    "on_code_change": one_of(*ON_CODE_CHANGE),
    "middleware": _dotted_paths,
    "max_payload": whole_number,
    "max_event": whole_number,
    "max_steps": whole_number,
    "max_run": whole_number,
    "codec": _codec,
    "encryption_keys": _secrets,
    "match_keys": _secrets,
}


def read_settings(given: object) -> Settings:
    """Return the settings that the dictionary *given* makes; ConfigurationError names a wrong key or value."""
    if not isinstance(given, Mapping):
        raise ConfigurationError(f"The setting DURABLE must be a dictionary, not {given!r}")
    return Settings(**{str(key).lower(): _read(str(key), value) for key, value in given.items()})


def _read(key: str, value: Any) -> Any:
    check = _CHECKS.get(key.lower()) if key.isupper() else None
    if check is None:
        known = [name.upper() for name in _CHECKS]
        hint = did_you_mean(key, known, f"the keys are {', '.join(known)}")
        raise ConfigurationError(f"The setting DURABLE has no key {key!r}; {hint}")
    return check(f"DURABLE[{key!r}]", value)


def cached_setting(read: Callable[[], T]) -> Callable[[], T]:
    """Call *read* once, and once more after each change of the setting ``DURABLE``.

    Nothing changes it in a running project, but tests do: ``override_settings`` says so by a signal.
    """
    cached = functools.cache(read)

    def forget(*, setting: str, **kwargs: Any) -> None:
        if setting == "DURABLE":
            cached.cache_clear()

    setting_changed.connect(forget, weak=False)
    return cached


@cached_setting
def get_settings() -> Settings:
    """Return the project's settings."""
    return read_settings(getattr(django_settings, "DURABLE", {}))
