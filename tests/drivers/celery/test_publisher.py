"""The thread that publishes hints."""

from __future__ import annotations

import threading
import time
from typing import Any
from uuid import uuid4

import pytest
from celery.exceptions import OperationalError

from django_durable.drivers.celery.publisher import IDS_IN_A_MESSAGE, MOST_PENDING, TASK, Publisher


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
    monkeypatch.setattr("django_durable.drivers.celery.publisher.INGEST_PAUSE", 60.0)
    broker, began = Broker(), time.monotonic()
    publisher = Publisher(broker)
    publisher.add("celery", [], ingest=True)
    assert broker.asked.acquire(timeout=10)

    monkeypatch.setattr("django_durable.drivers.celery.publisher.INGEST_PAUSE", 0.5)
    for _ in range(50):
        publisher.add("celery", [], ingest=True)
    publisher.flush(timeout=10)

    assert time.monotonic() - began >= 0.5
    assert broker.messages == [("celery", [], True)] * 2


def test_a_run_that_is_ready_does_not_wait_for_events_to_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django_durable.drivers.celery.publisher.INGEST_PAUSE", 60.0)
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
    monkeypatch.setattr("django_durable.drivers.celery.publisher.LONGEST_PAUSE", 0.0)
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
