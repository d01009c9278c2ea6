"""The Celery application: a plain one, as Celery's documentation has it for Django."""

from __future__ import annotations

from typing import Any

from celery import Celery
from celery.signals import before_task_publish

from .ledger import write

app = Celery("project")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


@before_task_publish.connect
def _count(body: Any, **kwargs: Any) -> None:
    """Write down each message that a process of the project publishes."""
    write("messages", arguments=body[0])
