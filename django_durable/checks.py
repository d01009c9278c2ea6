"""System checks, tagged ``durable``: each message states a problem, its hint the remedy."""

from __future__ import annotations

from importlib import metadata
from typing import Any

from django.conf import settings as django_settings
from django.core.checks import CheckMessage, Error, Info, Warning, register
from django.db import connections

from .codecs import get_codec
from .conf import get_settings
from .core.functions import registry
from .core.functions.definitions import END_OPTIONS
from .core.gotchas import findings
from .core.suggestions import nearest
from .drivers.base import get_driver
from .exceptions import ConfigurationError
from .middleware import get_hooks

TAG = "durable"
VENDORS = ("postgresql", "sqlite", "mysql")  #: as Django names its backends; MariaDB's is mysql
NAMESAKE = "django-durable"  #: another project's distribution, whose package has the same name


@register(TAG)
def check_settings(**kwargs: Any) -> list[CheckMessage]:
    """Find keys and values of ``DURABLE`` that cannot work, among them a driver or middleware that does not exist."""
    try:
        get_driver()
        get_hooks()
    except ConfigurationError as error:
        return [_error("E001", error, "Correct it in the project's settings.")]
    return []


@register(TAG)
def check_driver(**kwargs: Any) -> list[CheckMessage]:
    """Ask the driver for problems of its own."""
    try:
        return get_driver().check()
    except ConfigurationError:
        return []  # said by check_settings


@register(TAG)
def check_codec(**kwargs: Any) -> list[CheckMessage]:
    """Find a codec that cannot be made, for want of its keys, say."""
    try:
        get_settings()
    except ConfigurationError:
        return []  # said by check_settings
    try:
        get_codec()
    except ConfigurationError as error:
        return [_error("E016", error, "Correct it in the project's settings.")]
    return []


@register(TAG)
def check_end_functions(**kwargs: Any) -> list[CheckMessage]:
    """Find functions whose ``on_failure``, ``on_cancel`` or ``on_complete`` names no function."""
    found: list[CheckMessage] = []
    for function in registry.functions():
        for option in END_OPTIONS:
            try:
                registry.end_function(function, option)
            except ConfigurationError as error:
                found.append(_error("E008", error, f"Correct {option}=.", about=f"{option} of {function.id!r}: "))
    return found


@register(TAG)
def check_handlers(**kwargs: Any) -> list[CheckMessage]:
    """Find mistakes in handlers that replay punishes; a comment ``# durable: ok`` says that the line is meant."""
    found: list[CheckMessage] = []
    for function in registry.functions():
        for finding in findings.find(function.handler):
            problem = f"{finding.message}. ({function.id}, {finding.file}:{finding.line})"
            found.append(Warning(problem, hint=finding.remedy, id=f"durable.{finding.kind}"))
    return found


@register(TAG)
def check_database(**kwargs: Any) -> list[CheckMessage]:
    """Find a database that is not there, cannot hold durable rows, or could do it better."""
    try:
        alias = get_settings().database
    except ConfigurationError:
        return []  # said by check_settings
    if alias not in connections:
        known = list(connections)
        hint = f"Name an alias of DATABASES, such as {nearest(alias, known) or known[0]!r}."
        return [Error(f"DURABLE['DATABASE'] names the unknown database {alias!r}.", hint=hint, id="durable.E010")]
    return _check_vendor(alias, connections[alias].vendor)


def _check_vendor(alias: str, vendor: str) -> list[CheckMessage]:
    if vendor not in VENDORS:
        hint = 'Let DURABLE["DATABASE"] name a PostgreSQL, SQLite, MariaDB or MySQL database.'
        problem = f"The database {alias!r} ({vendor}) cannot hold durable rows."
        return [Error(problem, hint=hint, id="durable.E010")]
    options = connections[alias].settings_dict["OPTIONS"]
    if vendor == "sqlite" and str(options.get("transaction_mode")).upper() != "IMMEDIATE":
        hint = (
            f'Add "OPTIONS": {{"transaction_mode": "IMMEDIATE"}} to DATABASES[{alias!r}]: your own transactions then '
            "wait for one another. Durable functions work without it."
        )
        problem = f"Transactions on the SQLite database {alias!r} that read before they write can fail as locked."
        return [Info(problem, hint=hint, id="durable.I002")]
    return []


@register(TAG)
def check_time_zones(**kwargs: Any) -> list[CheckMessage]:
    """Find a project without aware times."""
    if django_settings.USE_TZ:
        return []
    problem = "USE_TZ is False, but durable rows hold aware times: SQLite and MySQL refuse to store these."
    return [Error(problem, hint="Remove USE_TZ = False from the project's settings.", id="durable.E015")]


@register(TAG)
def check_namesake(**kwargs: Any) -> list[CheckMessage]:
    """Find another distribution that writes into the folder of this package."""
    try:
        version = metadata.version(NAMESAKE)
    except metadata.PackageNotFoundError:
        return []
    problem = f"{NAMESAKE} {version} is installed, whose package is named django_durable, too."
    hint = f"Run pip uninstall {NAMESAKE}, then pip install --force-reinstall --no-deps django-durable-functions."
    return [Error(problem, hint=hint, id="durable.E014")]


def _error(number: str, error: ConfigurationError, otherwise: str, about: str = "") -> Error:
    """Make a check's error of *error*, whose text is its problem and, after a semicolon, the remedy."""
    problem, _, remedy = str(error).partition("; ")
    hint = _sentence(f"{remedy[0].upper()}{remedy[1:]}") if remedy else otherwise
    return Error(_sentence(f"{about}{problem}"), hint=hint, id=f"durable.{number}")


def _sentence(text: str) -> str:
    return text if text.endswith((".", "?")) else f"{text}."
