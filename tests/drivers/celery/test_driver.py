from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any
from uuid import UUID, uuid4

import pytest
from billiard.pool import soft_timeout_sighandler
from celery import Celery, signals
from celery.exceptions import OperationalError, SoftTimeLimitExceeded
from django.db import connection
from django.test.utils import CaptureQueriesContext

from django_durable.drivers import base
from django_durable.drivers.celery.driver import (
    IDS_IN_A_MESSAGE,
    MOST_PENDING,
    TASK,
    CeleryDriver,
    Publisher,
    SchedulerStep,
    _soft_limit,
    embedded_worker,
    work_on,
)


def driver_on(broker: str | None, **configuration: Any) -> CeleryDriver:
    """Return a driver whose Celery app has this broker."""
    driver = CeleryDriver()
    driver.app = Celery("tests", broker=broker, set_as_current=False)
    driver.app.conf.update(configuration)
    return driver


class Broker:
    """Stands for a Celery app: takes messages, after it was down for some attempts and while it is not held up."""

    def __init__(self, failures: int = 0) -> None:
        self.messages: list[tuple[str, list[str], bool]] = []
        self.asked = threading.Semaphore(0)
        self.answers = threading.Event()
        self.answers.set()
        self._failures = failures

    def send_task(self, name: str, arguments: tuple[str, list[str], bool], **options: Any) -> None:
        """Take a message, or be down."""
        self.asked.release()
        self.answers.wait(30)
        if self._failures:
            self._failures -= 1
            raise OperationalError("connection refused")
        assert name == TASK
        assert options["queue"] == arguments[0]
        assert options["serializer"] == "json"
        self.messages.append(arguments)


class Recorder(base.BaseDriver):
    """Notes what it is told."""

    wakes: list[tuple[str, list[UUID], bool]] = []

    def wake(self, queue: str, run_ids: Sequence[UUID] = (), *, ingest: bool = False) -> None:
        """Note it."""
        self.wakes.append((queue, list(run_ids), ingest))


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


# Configuration


def test_the_default_queue_is_the_one_that_a_plain_worker_consumes() -> None:
    assert driver_on(None).default_queue() == "celery"
    assert driver_on(None, task_default_queue="mail").default_queue() == "mail"


def test_the_setting_queue_wins_over_celerys_default(settings: Any) -> None:
    settings.DURABLE = {"QUEUE": "durable"}

    assert driver_on(None, task_default_queue="mail").default_queue() == "durable"


def test_the_setting_celery_app_names_the_app(settings: Any) -> None:
    settings.DURABLE = {"CELERY_APP": f"{__name__}.named_app"}

    assert CeleryDriver().app is named_app


named_app = Celery("named", set_as_current=False)


def test_a_missing_broker_is_reported_with_what_to_start() -> None:
    (found,) = driver_on(None).check()

    assert found.id == "durable.W011"
    assert "manage.py durable dev" in str(found.hint)
    assert "celery -A <project> worker" in str(found.hint)


def test_a_redis_that_could_block_for_ever_is_reported() -> None:
    (found,) = driver_on("redis://127.0.0.1/0").check()

    assert found.id == "durable.W004"
    assert "socket_timeout" in str(found.hint)


@pytest.mark.parametrize(
    ("broker", "options"), [("redis://127.0.0.1/0", {"socket_timeout": 5}), ("amqp://guest@127.0.0.1//", {})]
)
def test_a_broker_that_is_configured_well_is_not_reported(broker: str, options: dict[str, Any]) -> None:
    assert driver_on(broker, broker_transport_options=options).check() == []


@pytest.mark.parametrize("accepted", [["json", "pickle"], ["application/x-python-serialize"]])
@pytest.mark.parametrize("broker", [None, "amqp://guest@127.0.0.1//"])
def test_an_app_that_reads_pickles_is_reported(accepted: list[str], broker: str | None) -> None:
    found = driver_on(broker, accept_content=accepted).check()[-1]

    assert found.id == "durable.W012"
    assert 'accept_content = ["json"]' in str(found.hint)


def test_celerys_own_choice_of_content_is_not_reported() -> None:
    assert "durable.W012" not in [found.id for found in driver_on(None).check()]


# Publishing


@pytest.mark.parametrize("broker", [None, "memory://"])
def test_nothing_is_published_where_nobody_can_receive_it(broker: str | None) -> None:
    before = threading.active_count()

    driver_on(broker).wake("celery", [uuid4()], ingest=True)

    assert threading.active_count() == before


def test_waking_waits_for_no_broker() -> None:
    broker = Broker()
    broker.answers.clear()
    publisher = Publisher(broker)
    began = time.monotonic()

    for _ in range(1_000):
        publisher.add("celery", [uuid4()], ingest=True)

    assert time.monotonic() - began < 1
    assert broker.messages == []
    broker.answers.set()


def test_hints_that_wait_for_the_broker_become_one_message_for_each_queue() -> None:
    broker, runs = Broker(), [uuid4() for _ in range(3)]
    broker.answers.clear()
    publisher = Publisher(broker)
    publisher.add("celery", [], ingest=False)
    assert broker.asked.acquire(timeout=10)

    publisher.add("celery", runs[:2], ingest=False)
    publisher.add("mail", [runs[2]], ingest=False)
    publisher.add("celery", runs[:1], ingest=True)
    broker.answers.set()
    publisher.flush(timeout=10)

    merged, mail = broker.messages[1:]
    assert (merged[0], set(merged[1]), merged[2]) == ("celery", {str(run) for run in runs[:2]}, True)
    assert mail == ("mail", [str(runs[2])], False)


def test_of_events_in_quick_succession_the_first_is_told_at_once_and_the_others_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("django_durable.drivers.celery.driver.INGEST_PAUSE", 0.5)
    broker, began = Broker(), time.monotonic()
    publisher = Publisher(broker)
    publisher.add("celery", [], ingest=True)
    assert broker.asked.acquire(timeout=10)
    assert time.monotonic() - began < 0.5

    for _ in range(50):
        publisher.add("celery", [], ingest=True)
    publisher.flush(timeout=10)

    assert time.monotonic() - began >= 0.5
    assert broker.messages == [("celery", [], True)] * 2


def test_a_run_that_is_ready_does_not_wait_for_events_to_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django_durable.drivers.celery.driver.INGEST_PAUSE", 60.0)
    broker, run = Broker(), uuid4()
    publisher = Publisher(broker)
    publisher.add("celery", [], ingest=True)
    assert broker.asked.acquire(timeout=10)

    publisher.add("celery", [], ingest=True)
    publisher.add("celery", [run], ingest=False)
    publisher.flush(timeout=10)

    assert broker.messages[1:] == [("celery", [str(run)], True)]


def test_many_ids_are_spread_over_messages_of_which_one_asks_for_ingest() -> None:
    broker, runs = Broker(), [uuid4() for _ in range(2 * IDS_IN_A_MESSAGE + 1)]
    publisher = Publisher(broker)

    publisher.add("celery", runs, ingest=True)
    publisher.flush(timeout=10)

    assert [len(ids) for _, ids, _ in broker.messages] == [IDS_IN_A_MESSAGE, IDS_IN_A_MESSAGE, 1]
    assert [ingest for _, _, ingest in broker.messages] == [True, False, False]
    assert {run_id for _, ids, _ in broker.messages for run_id in ids} == {str(run) for run in runs}


def test_what_waits_for_a_silent_broker_is_bounded() -> None:
    broker = Broker()
    broker.answers.clear()
    publisher = Publisher(broker)
    publisher.add("celery", [], ingest=False)
    assert broker.asked.acquire(timeout=10)

    for _ in range(3):
        publisher.add("celery", [uuid4() for _ in range(MOST_PENDING)], ingest=False)
    broker.answers.set()
    publisher.flush(timeout=10)

    assert sum(len(ids) for _, ids, _ in broker.messages) == MOST_PENDING


def test_a_hint_is_published_once_the_broker_is_back_and_its_absence_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    broker, run = Broker(failures=2), uuid4()
    publisher = Publisher(broker)

    publisher.add("celery", [run], ingest=True)
    publisher.flush(timeout=10)

    assert broker.messages == [("celery", [str(run)], True)]
    assert [record.getMessage() for record in caplog.records] == [
        "The broker cannot be reached; runs go on when it can: connection refused"
    ]


def test_a_broker_may_be_away_for_days(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django_durable.drivers.celery.driver.LONGEST_PAUSE", 0.0)
    broker, run = Broker(failures=2_000), uuid4()
    publisher = Publisher(broker)

    publisher.add("celery", [run], ingest=False)
    publisher.flush(timeout=60)

    assert broker.messages == [("celery", [str(run)], False)]


def test_flushing_gives_up_in_time() -> None:
    broker = Broker()
    broker.answers.clear()
    publisher = Publisher(broker)
    publisher.add("celery", [uuid4()], ingest=False)
    began = time.monotonic()

    publisher.flush(timeout=0.05)

    assert 0.05 <= time.monotonic() - began < 1
    broker.answers.set()


# Working


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
def test_a_message_that_is_no_hint_is_ignored(
    arguments: tuple[Any, Any, Any], caplog: pytest.LogCaptureFixture, django_assert_num_queries: Any, db: None
) -> None:
    with django_assert_num_queries(0):
        work_on(*arguments)

    (record,) = caplog.records
    assert "A message is no hint and was ignored" in record.getMessage()
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


class SimpleWorker:
    """What Celery says that is being started."""

    def __init__(self) -> None:
        self.app = Celery("starting", set_as_current=False)


@pytest.mark.parametrize(("scheduler", "enabled"), [("worker", True), ("command", False)])
def test_a_worker_schedules_unless_the_settings_leave_that_to_the_command(
    settings: Any, scheduler: str, enabled: bool
) -> None:
    settings.DURABLE = {"SCHEDULER": scheduler}
    worker = SimpleWorker()

    signals.worker_init.send(worker)

    assert SchedulerStep in worker.app.steps["worker"]
    assert SchedulerStep(worker).enabled is enabled


def test_an_embedded_worker_needs_the_driver_that_it_is_part_of(settings: Any) -> None:
    settings.DURABLE = {"DRIVER": "inline"}

    with pytest.raises(TypeError, match="DURABLE\\['DRIVER'\\] = 'celery', not 'inline'"), embedded_worker():
        pass
