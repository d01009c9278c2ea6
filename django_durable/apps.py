"""The app: finds the functions of every installed app when Django starts."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from django.apps import AppConfig, apps
from django.db import OperationalError
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created
from django.db.models.signals import post_migrate
from django.utils.module_loading import autodiscover_modules
from django.utils.translation import gettext_lazy as _

from .conf import Settings, get_settings
from .exceptions import ConfigurationError


class DurableConfig(AppConfig):
    """Durable functions."""

    name = "django_durable"
    label = "django_durable"
    verbose_name = _("Durable functions")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Find the ``durable.py`` of every app, then connect the triggers and the driver of its functions."""
        from . import checks, model_events, model_references  # noqa: F401
        from .core.functions import registry, run_handles
        from .drivers.base import get_driver
        from .engine.runs.run_handles import StoredRuns

        connection_created.connect(_use_write_ahead_log, dispatch_uid="django_durable.wal")
        post_migrate.connect(_forget_rows, sender=self, dispatch_uid="django_durable.rows")
        run_handles.connect(StoredRuns())
        registry.locate_apps_by(_app_label)
        model_references.register()
        autodiscover_modules(_module_name())
        model_events.connect()
        with suppress(ConfigurationError):
            get_driver()


def _use_write_ahead_log(*, connection: BaseDatabaseWrapper, **kwargs: Any) -> None:
    """Let readers and the writer of a SQLite file work side by side; the file keeps that mode."""
    if connection.vendor == "sqlite" and connection.alias == get_settings().database:
        # Somebody else may hold the file at this moment; the next connection asks again.
        with suppress(OperationalError), connection.cursor() as cursor:
            cursor.execute("PRAGMA journal_mode = WAL")


def _forget_rows(**kwargs: Any) -> None:
    """Forget which rows this process has seen: ``flush``, which runs between tests, deletes them."""
    from .engine.events import index
    from .engine.runs import catalog

    catalog.forget()
    index.forget()


def _module_name() -> str:
    try:
        return get_settings().autodiscover_module
    except ConfigurationError:
        # The system check durable.E001 says so in Django's own way; whatever uses the settings raises.
        return Settings().autodiscover_module


def _app_label(module: str) -> str | None:
    config = apps.get_containing_app_config(module)
    return config.label if config else None
