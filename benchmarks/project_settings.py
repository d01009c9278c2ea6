"""Settings of the benchmarks that need real workers: those of the package as they come, and a broker."""

from __future__ import annotations

import json
import os

from .settings import DATABASES, INSTALLED_APPS, SECRET_KEY, USE_TZ

__all__ = ["DATABASES", "INSTALLED_APPS", "SECRET_KEY", "USE_TZ"]
DURABLE = json.loads(os.environ.get("DURABLE_BENCH_DURABLE", "{}"))
CELERY_BROKER_URL = os.environ["DURABLE_BENCH_BROKER_URL"]
CELERY_TASK_DEFAULT_QUEUE = "celery"
