"""A worker's side: its task, its end, its scheduler."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from typing import Any
from uuid import UUID, uuid4

import pytest
from billiard.pool import soft_timeout_sighandler
from celery import Celery, signals
from celery.exceptions import SoftTimeLimitExceeded
from django.db import connection
from django.test.utils import CaptureQueriesContext

from django_durable.drivers import base
from django_durable.drivers.celery.publisher import IDS_IN_A_MESSAGE, TASK
from django_durable.drivers.celery.task import SchedulerStep, _soft_limit, work_on


class Recorder(base.BaseDriver):
    """Notes what it is told."""

    wakes: list[tuple[str, list[UUID], bool]] = []

    def wake(self, queue: str, run_ids: Sequence[UUID] = (), *, ingest: bool = False) -> None:
        """Note it."""
        self.wakes.append((queue, list(run_ids), ingest))


class SimpleWorker:
    """What Celery says that is being started."""

    def __init__(self) -> None:
        self.app = Celery("starting", set_as_current=False)


# The task


def test_the_task_is_acknowledged_early_and_keeps_no_result() -> None:
    assert work_on.name == TASK
    assert work_on.acks_late is False
    assert work_on.ignore_result is True


@pytest.fixture
def recorder(settings: Any) -> type[Recorder]:
    """The driver in force, which only notes what it is told."""
    settings.DURABLE = {"DRIVER": f"{__name__}.Recorder"}
    Recorder.wakes.clear()
    return Recorder


def test_a_worker_that_was_told_to_stop_hands_on_what_a_message_asks_for(
    recorder: type[Recorder], transactional_db: None
) -> None:
    run = uuid4()
    signals.worker_shutting_down.send(None)
    try:
        work_on("mail", [str(run)], True)
    finally:
        signals.worker_init.send(SimpleWorker())

    assert recorder.wakes == [("mail", [run], True)]


@pytest.mark.parametrize(
    "arguments",
    [
        ("celery", ["no id"], True),
        ("celery", [7], True),
        ("celery", "no list", False),
        ("celery", None, False),
        ({"queue": 1}, [], True),
        ("cel\0ery", [], True),
        ("", [], True),
        (None, [], True),
    ],
)
def test_a_message_that_is_not_a_hint_is_ignored(
    arguments: tuple[Any, Any, Any], caplog: pytest.LogCaptureFixture, django_assert_num_queries: Any, db: None
) -> None:
    with django_assert_num_queries(0):
        work_on(*arguments)

    (record,) = caplog.records
    assert "A message is not a hint and was ignored" in record.getMessage()
    assert "no id" not in record.getMessage()


def test_a_message_makes_a_worker_look_at_a_hundred_runs_at_most(
    recorder: type[Recorder], transactional_db: None
) -> None:
    ids = [uuid4() for _ in range(3 * IDS_IN_A_MESSAGE)]
    with CaptureQueriesContext(connection) as queries:
        work_on("celery", [str(each) for each in ids], False)

    asked = "".join(query["sql"] for query in queries.captured_queries).replace("-", "")
    assert sum(each.hex in asked for each in ids) == IDS_IN_A_MESSAGE
    assert len(queries) <= 3


@pytest.mark.parametrize(("scheduler", "enabled"), [("worker", True), ("command", False)])
def test_a_worker_schedules_unless_the_settings_leave_that_to_the_command(
    settings: Any, scheduler: str, enabled: bool
) -> None:
    settings.DURABLE = {"SCHEDULER": scheduler}
    worker = SimpleWorker()

    signals.worker_init.send(worker)

    assert SchedulerStep in worker.app.steps["worker"]
    assert SchedulerStep(worker).enabled is enabled


# A soft time limit


@pytest.fixture
def of_a_pool() -> Iterator[None]:
    """Let this process take the signal of a soft time limit as one of the prefork pool does."""
    before = signal.signal(signal.SIGUSR1, soft_timeout_sighandler)
    yield
    signal.signal(signal.SIGUSR1, before)


def test_a_soft_time_limit_is_an_order_to_stop_and_raises_nothing(of_a_pool: None) -> None:
    with _soft_limit() as is_over:
        assert not is_over()
        signal.raise_signal(signal.SIGUSR1)
        assert is_over()

    with pytest.raises(SoftTimeLimitExceeded):
        signal.raise_signal(signal.SIGUSR1)


def test_outside_a_pools_process_the_signal_is_left_to_whoever_has_it() -> None:
    seen: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, frame: seen.append(number))
    try:
        with _soft_limit() as is_over:
            signal.raise_signal(signal.SIGUSR1)
            assert not is_over()
    finally:
        signal.signal(signal.SIGUSR1, before)

    assert seen == [signal.SIGUSR1]
