"""Settings of the example: SQLite and no broker, unless the environment names others. Not for a public server."""

from __future__ import annotations

import os
from pathlib import Path

from .databases import database

BASE_DIR = Path(__file__).resolve().parent.parent

# How long a new user has for a first post before the reminder: the example's own setting, read in accounts/durable.py.
ACTIVATION_WAIT = os.environ.get("ACTIVATION_WAIT", "24h")

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "django_durable",
    "accounts",
    "blog",
]
DATABASES = {"default": database(os.environ.get("DATABASE_URL", f"sqlite:///{BASE_DIR / 'db.sqlite3'}"))}
CELERY_BROKER_URL = os.environ.get("CELERY_BROKER_URL", "")
if CELERY_BROKER_URL.startswith("redis"):
    # A frozen Redis would block whoever publishes for ever.
    CELERY_BROKER_TRANSPORT_OPTIONS = {"socket_timeout": 5}
EMAIL_BACKEND = "django.core.mail.backends.console.EmailBackend"

DEBUG = True
SECRET_KEY = "an example has no secrets"
TIME_ZONE = "UTC"
USE_TZ = True
ROOT_URLCONF = "config.urls"
WSGI_APPLICATION = "config.wsgi.application"
STATIC_URL = "static/"
STATICFILES_DIRS = [BASE_DIR / "static"]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
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
# The page asks for its runs every second; those lines would bury the e-mails on the console.
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "loggers": {"django.server": {"level": "WARNING"}},
}
