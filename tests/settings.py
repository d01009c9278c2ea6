"""Settings of the tests: the database named in DURABLE_TEST_DATABASE_URL, else a SQLite file of this process."""

from __future__ import annotations

import atexit
import os
import tempfile
from pathlib import Path
from typing import Any

from tests.databases import settings_of


def _own_database_file() -> str:
    """Return the URL of a SQLite file that goes with this process; threads cannot share ``:memory:``."""
    file = Path(tempfile.gettempdir(), f"durable-tests-{os.getpid()}.sqlite3")
    atexit.register(_remove, file)
    return f"sqlite:///{file}"


def _remove(file: Path) -> None:
    for left in file.parent.glob(f"{file.name}*"):
        left.unlink(missing_ok=True)


def _database() -> dict[str, Any]:
    settings = settings_of(os.environ.get("DURABLE_TEST_DATABASE_URL") or _own_database_file())
    if settings["ENGINE"].endswith("sqlite3"):
        settings["TEST"] = {"NAME": settings["NAME"] + ".test"}
    if settings["ENGINE"].endswith("mysql"):
        import pymysql

        # Django asks for the version of mysqlclient, which PyMySQL stands in for.
        pymysql.version_info = (2, 2, 8, "final", 0)
        pymysql.install_as_MySQLdb()
        settings["TEST"] = {"CHARSET": "utf8mb4"}
    return settings


DATABASES = {"default": _database()}
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django_durable",
    "tests.testapp",
]
DURABLE: dict[str, Any] = {"DRIVER": "inline"}

SECRET_KEY = "tests"
ROOT_URLCONF = "tests.urls"
USE_TZ = True
TIME_ZONE = "UTC"
STATIC_URL = "/static/"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]
