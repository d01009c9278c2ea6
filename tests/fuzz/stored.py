"""What must hold of any input to the engine on a database: whatever is sent, everybody else's work is done."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from django.db import connection, transaction
from django.test import override_settings

import django_durable as durable
from django_durable.core import clock
from django_durable.core.functions import registry
from django_durable.core.ids import uuid7
from django_durable.core.values.encoding import from_json
from django_durable.drivers.celery.task import work_on
from django_durable.engine.events import index
from django_durable.engine.runs import catalog, replays
from django_durable.engine.workers.ingest import ingest_events
from django_durable.engine.workers.work import work
from django_durable.exceptions import DurableError, EncodingError, InvalidEvent
from django_durable.models import Event, Run, RunStatus
from tests.databases import empty

DEAF = {"DRIVER": "tests.engine.conftest.DeafDriver"}


@contextlib.contextmanager
def project() -> Iterator[None]:
    """Give a project whose functions listen to everything, with conditions that many events fail."""
    known = dict(registry._functions)
    registry._functions.clear()
    for forget in (catalog.forget, index.forget):
        forget()
    durable.function("canary", trigger="canary/sent")(lambda event, step: event.data)
    on = ["fuzz/*", durable.On("fuzz/a", if_="event.data.a.b > 1"), durable.On("fuzz/*", if_="event.user.a == 'b'")]
    durable.function("listener", trigger=on)(lambda event, step: event.data)
    durable.function("waiter", trigger="fuzz/wait")(_wait)
    try:
        with override_settings(DURABLE=DEAF):
            yield
    finally:
        registry._functions.clear()
        registry._functions.update(known)
        empty(connection)


def _wait(event: durable.Event, step: durable.Step) -> Any:
    condition = "async.data.a == event.data.a && (async.data.b < 1 || async.user.a.size() > 0)"
    return step.parallel(
        lambda: step.wait_for_event("any", "fuzz/*", if_=condition, timeout="1h"),
        lambda: step.wait_for_event("match", ["fuzz/a", "fuzz/reply"], match="data.a", timeout="1h"),
    )


def ingest(batch: list[tuple[Any, Any, dict[str, Any]]]) -> None:
    """Any event is stored or refused; what is stored is ingested, and the canary that comes with it runs."""
    with project():
        durable.send_event("fuzz/wait", {"a": 1})
        work(None, ingest=True)
        for name, data, options in batch:
            with contextlib.suppress(InvalidEvent, EncodingError):
                durable.send_events([durable.Event(name, data, **options)])
        _expect_the_canary()
        assert not Event.objects.to_ingest().exists()


def damaged_rows(batch: list[Any]) -> None:
    """Events that somebody else wrote into the table are ingested or put off, and hold up nobody."""
    with project():
        durable.send_event("fuzz/wait", {"a": 1})
        work(None, ingest=True)
        for data in batch:
            now = clock.now()
            with contextlib.suppress(Exception):  # What the database itself refuses is not stored.
                Event.objects.create(id=uuid7(), name="fuzz/a", data=data, ts=now, received_at=now, ingest_at=now)
        _expect_the_canary()


def _expect_the_canary() -> None:
    durable.send_event("canary/sent", {"n": 1})
    list(ingest_events())
    work(None)
    assert Run.objects.get(function="project/canary").output == '{"n":1}'


def reference(data: dict[str, Any]) -> None:
    """Any reference leads to a row, or to an error that says why it does not."""
    with transaction.atomic(), contextlib.suppress(DurableError):
        from_json(data)


def message(arguments: tuple[Any, Any, Any]) -> None:
    """A worker takes any message, and goes on."""
    with project():
        work_on(*arguments)


def replay(data: Any) -> None:
    """A run is replayed with any data, or the data is refused; the new run ends."""
    with project():
        durable.send_event("canary/sent", {"n": 1})
        work(None, ingest=True)
        with contextlib.suppress(DurableError):
            replays.replay(Run.objects.get().id, data=data)
        work(None)
        assert not Run.objects.exclude(status__in=[RunStatus.COMPLETED, RunStatus.FAILED]).exists()
