"""Connections kept from one message to the next: the same one as long as it is good, and no other's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from django.db import connection, connections, transaction

from django_durable.engine.store import connections as kept
from django_durable.engine.store.connections import idle_connections, kept_connection

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def nothing_kept() -> Iterator[None]:
    """Keep none from one test to the next."""
    idle_connections().close()
    yield
    idle_connections().close()


def driver_used() -> Any:
    """Return the driver's connection that a message is worked on with."""
    with kept_connection(), connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        return connection.connection


def test_a_message_is_worked_on_with_the_connection_of_the_one_before() -> None:
    first = driver_used()
    connections.close_all()  # as Celery does after each task

    assert driver_used() is first


def test_others_in_the_thread_do_not_see_the_kept_connection() -> None:
    first = driver_used()

    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")

    assert connection.connection is not first


def used_beside_another() -> tuple[Any, Any]:
    """Return the driver's connections of a message, and of one that is worked on meanwhile, as in another thread."""
    with kept_connection():
        first = connections["default"]
        del connections["default"]
        try:
            second = driver_used()
        finally:
            connections["default"].close()
            connections["default"] = first
        return first.connection, second


def test_two_messages_at_the_same_time_have_a_connection_each() -> None:
    driver_used()

    first, second = used_beside_another()

    assert first is not second


@pytest.mark.needs("postgresql")
@pytest.mark.parametrize("how", ["long idle", "after an error"])
def test_a_connection_that_was_lost_meanwhile_is_opened_anew(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    first = driver_used()
    first.close()
    if how == "long idle":
        monkeypatch.setattr(kept, "FRESH", 0)
    else:
        idle_connections()._idle[-1].connection.errors_occurred = True

    assert driver_used() is not first


def test_a_connection_with_an_open_transaction_is_closed() -> None:
    with kept_connection():
        connection.set_autocommit(False)
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        left = connection.connection

    assert driver_used() is not left
    assert connection.get_autocommit()


def test_a_connection_that_others_did_without_for_long_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    used_beside_another()
    idle = [each.connection for each in idle_connections()._idle]
    monkeypatch.setattr(kept, "LONGEST_IDLE", 0)

    driver_used()

    assert len(idle) == 2
    assert [each.connection is None for each in idle] == [True, False]


def test_with_djangos_own_pool_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(connection.settings_dict["OPTIONS"], "pool", True)

    with kept_connection():
        pass

    assert idle_connections()._idle == []


def test_inside_a_transaction_of_the_caller_its_connection_is_used() -> None:
    driver_used()
    with transaction.atomic():
        outer = connection.connection
        with kept_connection():
            assert connection.connection is outer


def test_a_fork_does_not_use_the_connections_of_its_parent() -> None:
    driver_used()
    reader, writer = os.pipe()
    if not (child := os.fork()):
        with suppress(BaseException):
            os.write(writer, str(len(idle_connections()._idle)).encode())
        os._exit(0)
    os.waitpid(child, 0)

    assert os.read(reader, 10) == b"0"
    os.close(reader)
    os.close(writer)
