"""A Celery project for benchmarks that need real workers: ``celery -A benchmarks.project worker``."""

from __future__ import annotations

import datetime
import os
import time
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "benchmarks.project_settings")

from celery import Celery

app = Celery("benchmarks")
app.config_from_object("django.conf:settings", namespace="CELERY")


@app.on_after_finalize.connect
def register(**kwargs: Any) -> None:
    """Register the functions."""
    import django_durable as durable

    @durable.function("timer", trigger="bench/timer")
    def timer(event: durable.Event, step: durable.Step) -> float:
        step.sleep_until("until", datetime.datetime.fromisoformat(event.data["at"]))
        return time.time()
