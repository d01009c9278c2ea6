"""Settings of the project under test; "tuned" adds documented settings of Django and Celery, "default" none."""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import urlsplit

_server = urlsplit(os.environ["BENCH_PG"])
_is_tuned = os.environ["BENCH_VARIANT"] != "default"

SECRET_KEY = "benchmark"
USE_TZ = True
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "django_durable", "flows"]
DATABASES: dict[str, dict[str, Any]] = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": os.environ["BENCH_DB"],
        "USER": _server.username,
        "HOST": _server.hostname,
        "PORT": _server.port,
    }
}
CELERY_BROKER_URL = os.environ["BENCH_REDIS"] + "/2"
CELERY_BROKER_TRANSPORT_OPTIONS = {"socket_timeout": 5}

if _is_tuned:
    # Connections are kept from one message to the next.
    DATABASES["default"]["CONN_MAX_AGE"] = None
    CELERY_DB_REUSE_MAX = 1_000_000
    # The server keeps the plans of statements: half of its work for each of them.
    DATABASES["default"]["OPTIONS"] = {"server_side_binding": True, "prepare_threshold": 1}
