"""The one call that wakes a worker, and the driver that answers it."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from django.core.checks import CheckMessage
from django.utils.module_loading import import_string

from ..conf import cached_setting, get_settings
from ..exceptions import ConfigurationError

DRIVERS = {
    "celery": "django_durable.drivers.celery.driver.CeleryDriver",
    "inline": "django_durable.drivers.inline.InlineDriver",
}


class BaseDriver:
    """Carries hints to workers. A hint may be lost, doubled or late: rows are the truth, a hint only saves time."""

    #: May threads of a worker's process wake runs whose timers are near? Where tests move time, they may not.
    keeps_timers = False

    def wake(self, queue: str, run_ids: Sequence[UUID] = (), *, ingest: bool = False) -> None:
        """Have a worker of *queue* look at these runs, at other ready ones and, with *ingest*, at new events.

        The engine calls it after the commit that made them ready. It never blocks and never raises.
        """
        raise NotImplementedError

    def flush(self) -> None:
        """Give pending hints a moment to get out, before the process ends."""

    def default_queue(self) -> str:
        """Return the queue of functions that name none."""
        return get_settings().queue or "default"

    def check(self) -> list[CheckMessage]:
        """Return the faults of the driver's own configuration, as messages of a system check."""
        return []


@cached_setting
def get_driver() -> BaseDriver:
    """Return the driver that the settings name; ConfigurationError if there is none."""
    name = get_settings().driver
    try:
        driver: type[BaseDriver] = import_string(DRIVERS.get(name, name))
    except ImportError as error:
        reason = f"DURABLE['DRIVER']: {name!r} cannot be imported ({error})"
        raise ConfigurationError(f"{reason}; name 'celery', 'inline' or the dotted path of a driver") from error
    return driver()
