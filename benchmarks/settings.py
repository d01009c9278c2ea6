"""Settings of the benchmarks: the database named in DURABLE_BENCH_DATABASE_URL, and work done in this process."""

from __future__ import annotations

import os

from tests.databases import settings_of

DATABASES = {"default": settings_of(os.environ["DURABLE_BENCH_DATABASE_URL"])}
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "django_durable"]
DURABLE = {"DRIVER": "inline", "TURN_BUDGET": "1h"}
SECRET_KEY = "benchmarks"
USE_TZ = True
