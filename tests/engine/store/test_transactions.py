"""Transactions of the engine: they write first, run at READ COMMITTED, and are tried again."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import DatabaseError, IntegrityError, OperationalError, connection, connections, transaction
from django.test import override_settings

import django_durable as durable
from django_durable.core import clock
from django_durable.core.durations import parse_duration
from django_durable.engine.store.stores import get_store
from django_durable.engine.store.transactions import atomic, retried
from django_durable.engine.workers.ingest import ingest_events
from django_durable.engine.workers.work import work
from django_durable.models import Event, Lock, Run, Step
from tests.behaviours.racing import PATIENCE, Track, wait_until
from tests.engine.conftest import Engine, RecordingDriver

postgresql = pytest.mark.needs("postgresql")


@pytest.fixture
def track(engine: Engine) -> Iterator[Track]:
    """Give two threads to race on."""
    track = Track(2)
    try:
        yield track
    finally:
        track.close()


@pytest.fixture
def on_sqlite(engine: Engine) -> None:
    """Skip on other databases."""
    if connection.vendor != "sqlite":
        pytest.skip("runs on SQLite only")


def add_one() -> None:
    """Read a row and write what follows from it."""
    with atomic():
        row = Lock.objects.get(name="counter")
        Lock.objects.filter(name="counter").update(owner=str(int(row.owner) + 1))


# SQLite


def test_a_transaction_takes_the_write_lock_of_sqlite_at_once(on_sqlite: None) -> None:
    other = sqlite3.connect(connection.settings_dict["NAME"], timeout=0)
    try:
        with atomic():
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                other.execute("BEGIN IMMEDIATE")
            other.execute("SELECT count(*) FROM django_durable_run")
        other.execute("BEGIN IMMEDIATE")
    finally:
        other.close()


def test_threads_that_read_and_then_write_do_not_fail_on_sqlite(on_sqlite: None, track: Track) -> None:
    Lock.objects.create(name="counter", owner="0")

    for _ in range(50):
        track.race(add_one, add_one)

    assert Lock.objects.get(name="counter").owner == "100"


def test_senders_of_idempotent_events_do_not_fail_on_sqlite(on_sqlite: None, track: Track) -> None:
    def send() -> None:
        for number in range(50):
            durable.send_event("test/nobody", id=f"{threading.get_ident()} {number}")

    track.race(send, send)

    assert Event.objects.count() == 100


def test_a_database_that_was_busy_for_a_while_is_asked_again(on_sqlite: None, track: Track) -> None:
    locked, tries = threading.Event(), []

    def hold() -> None:
        with atomic():
            locked.set()
            wait_until(lambda: len(tries) > 1)

    @retried
    def write() -> None:
        assert locked.wait(PATIENCE)
        tries.append(1)
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA busy_timeout = 1")
        Lock.objects.create(name="late")

    track.race(hold, write)

    assert len(tries) > 1
    assert Lock.objects.filter(name="late").exists()


# Nested ones


def test_an_inner_transaction_that_fails_takes_only_its_own_writes_back(engine: Engine) -> None:
    with atomic():
        Lock.objects.create(name="outer")
        with pytest.raises(ZeroDivisionError), atomic():
            raise_after(lambda: Lock.objects.create(name="inner"))

    assert list(Lock.objects.values_list("name", flat=True)) == ["outer"]


def test_a_transaction_that_fails_takes_its_writes_back(engine: Engine) -> None:
    with pytest.raises(ZeroDivisionError), atomic():
        raise_after(lambda: Lock.objects.create(name="outer"))

    assert not Lock.objects.exists()


def raise_after(write: Callable[[], object]) -> None:
    """Write, and fail."""
    write()
    raise ZeroDivisionError


# What is tried again


@pytest.mark.parametrize("error", [IntegrityError("no"), OperationalError("no such table"), ValueError("no")])
def test_an_error_that_another_try_cannot_help_is_raised_at_once(engine: Engine, error: Exception) -> None:
    connection.ensure_connection()
    tries = []

    @retried
    def fail() -> None:
        tries.append(1)
        raise error

    with pytest.raises(type(error)):
        fail()

    assert len(tries) == 1


def test_inside_an_open_transaction_nothing_is_tried_again(engine: Engine) -> None:
    tries = []

    @retried
    def fail() -> None:
        tries.append(1)
        raise OperationalError("database is locked")

    with pytest.raises(OperationalError), atomic():
        fail()

    assert len(tries) == 1


def test_what_never_passes_is_raised_in_the_end(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django_durable.engine.store.transactions._LONGEST_PAUSE", 0.001)
    tries = []

    @retried
    def fail() -> None:
        tries.append(1)
        raise OperationalError("database is locked")

    with pytest.raises(OperationalError):
        fail()

    assert len(tries) == 8


@postgresql
def test_the_victim_of_a_deadlock_tries_again(track: Track) -> None:
    Lock.objects.bulk_create([Lock(name="a", owner="0"), Lock(name="b", owner="0")])
    both, tries = threading.Barrier(2, timeout=PATIENCE), []

    def lock_both(first: str, second: str) -> Callable[[], None]:
        @retried
        def lock() -> None:
            tries.append(first)
            with atomic() as database, database.cursor() as cursor:
                cursor.execute("SET LOCAL deadlock_timeout = '10ms'")
                cursor.execute("UPDATE django_durable_lock SET owner = owner || '+' WHERE name = %s", [first])
                if tries.count(first) == 1:
                    both.wait()
                cursor.execute("UPDATE django_durable_lock SET owner = owner || '+' WHERE name = %s", [second])

        return lock

    track.race(lock_both("a", "b"), lock_both("b", "a"))

    assert sorted(tries) in (["a", "a", "b"], ["a", "b", "b"])
    assert set(Lock.objects.values_list("owner", flat=True)) == {"0++"}


@postgresql
def test_a_serialization_failure_is_tried_again(track: Track) -> None:
    Lock.objects.create(name="counter", owner="0")
    both, tries = threading.Barrier(2, timeout=PATIENCE), []

    @retried
    def add_one_serializably() -> None:
        tries.append(threading.get_ident())
        with transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")
            row = Lock.objects.get(name="counter")
            if tries.count(threading.get_ident()) == 1:
                both.wait()
            Lock.objects.filter(name="counter").update(owner=str(int(row.owner) + 1))

    track.race(add_one_serializably, add_one_serializably)

    assert len(tries) == 3
    assert Lock.objects.get(name="counter").owner == "2"


@postgresql
@pytest.mark.parametrize("limit", ["lock_timeout", "statement_timeout"])
def test_a_limit_that_the_project_sets_to_statements_costs_no_body(
    engine: Engine, recorder: RecordingDriver, track: Track, limit: str
) -> None:
    bodies, refused, locked = [], [], [threading.Event(), threading.Event()]

    def hold() -> None:
        assert locked[0].wait(PATIENCE)
        with atomic():
            Run.objects.select_for_update().get()
            locked[1].set()
            wait_until(lambda: refused)

    def body() -> None:
        bodies.append(1)
        locked[0].set()
        assert locked[1].wait(PATIENCE)
        with connection.cursor() as cursor:
            cursor.execute(f"SET {limit} = '200ms'")

    def refusals(run: Callable[..., Any], sql: str, *rest: Any) -> Any:
        try:
            return run(sql, *rest)
        except OperationalError:
            refused.append(sql)
            raise

    def turn() -> None:
        with connection.execute_wrapper(refusals):
            work(None)

    engine.function()(lambda event, step: step.run("body", body))
    durable.send_event("test/start")
    list(ingest_events())

    track.race(hold, turn)

    assert refused
    assert (engine.run().status, engine.run().fence, bodies) == ("completed", 2, [1])


# Isolation


@pytest.fixture(params=["django's option", "the server's default"])
def strict(engine: Engine, request: pytest.FixtureRequest) -> Iterator[None]:
    """Let the project's own transactions be SERIALIZABLE or REPEATABLE READ."""
    options = {"isolation_level": 4}
    if request.param == "the server's default":
        options = {"options": "-c default_transaction_isolation=serializable"}
    given = connection.settings_dict["OPTIONS"]
    connection.close()
    connection.settings_dict["OPTIONS"] = given | options
    try:
        yield
    finally:
        connection.close()
        connection.settings_dict["OPTIONS"] = given


def isolation() -> str:
    """Return the isolation level of the current transaction."""
    with connection.cursor() as cursor:
        cursor.execute("SHOW transaction_isolation")
        return str(cursor.fetchone()[0])


@postgresql
def test_the_engine_reads_what_is_committed_whatever_the_project_set(strict: None) -> None:
    with transaction.atomic():
        assert isolation() == "serializable"

    with atomic():
        assert isolation() == "read committed"
        with atomic():
            assert isolation() == "read committed"

    with transaction.atomic():
        assert isolation() == "serializable"


@postgresql
def test_runs_go_on_at_any_isolation_level(strict: None, engine: Engine) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> int:
        step.atomic("write", Lock.objects.create, name="x").name  # noqa: B018
        return step.run("one", int, 1)

    engine.function("waits")(lambda event, step: bool(step.wait_for_event("wait", "test/reply", timeout="1h")))
    durable.send_event("test/start")
    durable.send_event("test/reply")

    assert set(Run.objects.values_list("status", flat=True)) <= {"completed", "failed"}
    assert Run.objects.get(function__slug="waits").output == "true"


# Reading elsewhere


class Replica:
    """Sends reads to a database that has none of the rows, as a replica that is behind."""

    def db_for_read(self, model: type, **hints: Any) -> str:
        """Name the replica."""
        return "other"

    def db_for_write(self, model: type, **hints: Any) -> str:
        """Name the database."""
        return "default"


def test_the_engine_reads_where_it_writes_whatever_a_router_says(engine: Engine, other_database: str) -> None:
    child = engine.function("child", trigger="test/never")(lambda event, step: step.run("one", int))

    @engine.function(retries=0)
    def fn(event: durable.Event, step: durable.Step) -> list[Any]:
        step.sleep("nap", "1h")
        step.atomic("write", lambda: Lock.objects.using("default").count())
        reply = step.wait_for_event("wait", "test/reply", match="data.id", timeout="1h")
        return [*step.map("each", str, [1, 2]), step.invoke("child", child), reply and reply.data["id"]]

    runs = Run.objects.using("default")
    with override_settings(DATABASE_ROUTERS=[Replica()]):
        with pytest.raises(DatabaseError, match="no such table"):
            Run.objects.count()
        durable.send_event("test/start", {"id": 7}, id="once")
        clock.move(parse_duration("1h"))
        engine.settle()
        durable.send_event("test/reply", {"id": 7})
        engine.settle()

    run = runs.get(parent=None)
    assert (run.status, run.output) == ("completed", '["1","2",0,7]')


# Connections that are lost


def lose_connection() -> None:
    """Have the server end this thread's connection."""
    pid = connection.connection.info.backend_pid
    other = connections.create_connection("default")
    try:
        with other.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(%s, 10000)", [pid])
    finally:
        other.close()


def losing(text: str, *, after: bool) -> Callable[..., Any]:
    """Return a wrapper that loses the connection once, before or after the first statement with *text*."""
    left = [text]

    def execute(run: Callable[..., Any], sql: str, params: Any, many: bool, context: dict[str, Any]) -> Any:
        if text not in sql or not left:
            return run(sql, params, many, context)
        left.pop()
        if after:
            run(sql, params, many, context)
        lose_connection()
        return run("SELECT 1", None, many, context)

    return execute


@postgresql
@pytest.mark.parametrize("after", [False, True], ids=["before the statement", "after its commit"])
@pytest.mark.parametrize("text", ["INSERT INTO django_durable_step ", "WITH candidate", "waits AS"])
def test_a_run_survives_the_loss_of_its_connection(
    engine: Engine, recorder: RecordingDriver, text: str, after: bool
) -> None:
    calls = []
    engine.function()(lambda event, step: step.run("body", calls.append, 1))
    durable.send_event("test/start")
    list(ingest_events())

    with connection.execute_wrapper(losing(text, after=after)):
        work(None)
    engine.advance("20s")
    work(None)

    run = engine.run()
    assert (run.status, calls) == ("completed", [1])
    assert Step.objects.count() == 1


@postgresql
def test_a_write_of_unknown_outcome_is_looked_up(engine: Engine, recorder: RecordingDriver) -> None:
    engine.function()(lambda event, step: step.run("body", time.time) and step.run("next", int))
    durable.send_event("test/start")
    list(ingest_events())

    with connection.execute_wrapper(losing("INSERT INTO django_durable_step ", after=True)):
        work(None)

    assert (engine.run().status, engine.run().fence) == ("completed", 2)


@postgresql
def test_a_lost_connection_is_opened_again_by_the_next_statement(engine: Engine) -> None:
    engine.function()(lambda event, step: None)
    run = engine.start()
    lose_connection()

    assert get_store().claim(run.id, owner="me", lease=parse_duration("15s")) is None


@postgresql
def test_a_transaction_of_a_lost_connection_is_not_half_done(engine: Engine) -> None:
    tries = []

    @retried
    def write_two() -> None:
        tries.append(1)
        with atomic():
            Lock.objects.create(name=f"first {len(tries)}")
            if len(tries) == 1:
                lose_connection()
            Lock.objects.create(name=f"second {len(tries)}")

    write_two()

    assert set(Lock.objects.values_list("name", flat=True)) == {"first 2", "second 2"}


@postgresql
def test_a_connection_lost_inside_a_users_transaction_is_their_error(engine: Engine) -> None:
    engine.function()(lambda event, step: None)

    with transaction.atomic():
        lose_connection()
        with pytest.raises(DatabaseError):
            durable.send_event("test/start")
        transaction.set_rollback(True)

    assert not Event.objects.exists()


# What is logged


def test_the_log_of_a_refused_write_leaves_the_row_out(
    engine: Engine, on_postgresql: None, caplog: pytest.LogCaptureFixture
) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> str:
        return step.run("step", lambda: "s3cret")

    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE django_durable_step ADD CONSTRAINT refuse CHECK (output IS NULL)")
    try:
        engine.start()
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE django_durable_step DROP CONSTRAINT refuse")

    assert "could not go on" in caplog.text
    assert "DETAIL: left out" in caplog.text
    assert "s3cret" not in caplog.text
