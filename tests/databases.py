"""Databases of the tests: URLs and Django's settings for them, in both directions, and emptying one quickly."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from django.apps import apps
from django.db import transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models.signals import post_migrate

ENGINES = {
    "postgres": "django.db.backends.postgresql",
    "postgresql": "django.db.backends.postgresql",
    "mysql": "django.db.backends.mysql",
    "mariadb": "django.db.backends.mysql",
    "sqlite": "django.db.backends.sqlite3",
}
KEPT_TABLES = {"auth_permission", "django_content_type", "django_migrations"}
SCHEMES = {"postgresql": "postgres", "mysql": "mysql", "sqlite3": "sqlite"}


def settings_of(url: str) -> dict[str, Any]:
    """Return Django's settings for postgres://user@host/name?host=/socket, mysql://… or sqlite:////path."""
    parts = urlsplit(url)
    if parts.scheme not in ENGINES:
        raise ValueError(f"{url!r} names no database: expected one of {', '.join(ENGINES)} before the colon")
    options = dict(parse_qsl(parts.query))
    return {
        "ENGINE": ENGINES[parts.scheme],
        "NAME": unquote(parts.path.removeprefix("/")),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": options.pop("host", parts.hostname or ""),
        "PORT": str(parts.port or ""),
        "OPTIONS": options,
    }


def url_of(settings: dict[str, Any]) -> str:
    """Return the URL that `settings_of` reads as these settings."""
    scheme = SCHEMES[settings["ENGINE"].rpartition(".")[2]]
    user, password = (quote(settings.get(key) or "", safe="") for key in ("USER", "PASSWORD"))
    host, port = settings.get("HOST") or "", settings.get("PORT")
    credentials = f"{user}:{password}@" if password else f"{user}@" if user else ""
    socket = {"host": host} if host.startswith("/") else {}
    place = "" if socket else f"{host}:{port}" if port else host
    query = urlencode({**(settings.get("OPTIONS") or {}), **socket})
    return f"{scheme}://{credentials}{place}/{quote(str(settings['NAME']))}{'?' + query if query else ''}"


def end_other_sessions(connection: BaseDatabaseWrapper) -> None:
    """End the sessions of threads that outlive their tests: PostgreSQL refuses to drop a database while it has any."""
    if connection.vendor == "postgresql":
        others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT pg_terminate_backend(pid) {others} AND backend_type = 'client backend'")


def empty(connection: BaseDatabaseWrapper) -> None:
    """Delete all rows but those that migrating made, and let the package know, as Django's ``flush`` does.

    ``flush`` truncates and makes those rows again, which takes a hundred times as long for tables with a few rows.
    """
    tables = set(connection.introspection.django_table_names(only_existing=True, include_views=False)) - KEPT_TABLES
    with connection.constraint_checks_disabled(), transaction.atomic(connection.alias), connection.cursor() as cursor:
        for table in sorted(tables):
            cursor.execute(f"DELETE FROM {connection.ops.quote_name(table)}")
    package = apps.get_app_config("django_durable")
    context = {"app_config": package, "apps": apps, "plan": [], "using": connection.alias}
    post_migrate.send(package, verbosity=0, interactive=False, **context)
