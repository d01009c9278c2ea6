"""The module that Celery's autodiscovery imports."""

from __future__ import annotations

from celery import Celery

from django_durable.drivers.celery.publisher import TASK


def test_celery_discovers_the_task_that_messages_call() -> None:
    app = Celery("project", set_as_current=False)

    app.autodiscover_tasks(["django_durable"], force=True)

    assert TASK in app.tasks
