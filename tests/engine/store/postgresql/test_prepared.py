"""The engine's hot statements are prepared on a direct connection, and only those."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import ProgrammingError, connection

from django_durable.engine.store.postgresql.prepared import hot_cursor
from tests.engine.conftest import Engine

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.needs("postgresql")]


def prepared() -> list[str]:
    """Return the statements that the server has prepared for this connection."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT statement FROM pg_prepared_statements")
        return [row[0] for row in cursor.fetchall()]


def execute(sql: str, times: int = 1) -> None:
    """Execute a statement as the engine executes its hot ones."""
    for _ in range(times):
        hot_cursor(connection).execute(sql, {"number": 1})


@pytest.fixture(autouse=True)
def new_connection() -> None:
    """Begin with a connection that has prepared nothing."""
    connection.close()


def test_a_connection_of_one_statement_is_not_looked_at() -> None:
    connection.ensure_connection()
    statements: list[str] = []

    def note(execute: Any, sql: str, *rest: Any) -> Any:
        statements.append(sql)
        return execute(sql, *rest)

    with connection.execute_wrapper(note):
        execute("SELECT %(number)s::int")
        assert statements == ["SELECT %(number)s::int"]
        execute("SELECT %(number)s::int")

    assert statements[1:] == ["SELECT pg_backend_pid()", "SELECT %(number)s::int"]


def test_a_statement_is_prepared_when_it_comes_again() -> None:
    execute("SELECT 1")
    execute("SELECT %(number)s::int + 1")
    assert prepared() == []

    execute("SELECT %(number)s::int + 1")
    assert prepared() == ["SELECT $1::int + 1"]


def test_the_projects_own_statements_are_not_prepared() -> None:
    execute("SELECT %(number)s::int", times=3)
    for _ in range(10):
        with connection.cursor() as cursor:
            cursor.execute("SELECT %s::text", ["a"])

    assert prepared() == ["SELECT $1::int"]
    assert connection.connection.prepare_threshold is None


def test_behind_a_pooler_nothing_is_prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    connection.ensure_connection()
    raw: Any = connection.connection
    # A pooler greets its clients with a process id of its own.
    monkeypatch.setattr(type(raw.info), "backend_pid", property(lambda self: 1))

    execute("SELECT %(number)s::int", times=3)

    assert prepared() == []


def test_a_lost_connection_begins_anew() -> None:
    execute("SELECT %(number)s::int", times=3)
    connection.close()

    execute("SELECT %(number)s::int", times=3)

    assert prepared() == ["SELECT $1::int"]


def test_the_statements_of_a_run_are_prepared(engine: Engine) -> None:
    def handler(event: Any, step: Any) -> None:
        for number in range(3):
            step.run(f"step-{number}", int)

    engine.function()(handler)

    assert engine.start().status == "completed"
    assert any("INSERT INTO django_durable_step " in statement for statement in prepared())


def test_errors_of_a_hot_statement_are_djangos() -> None:
    with pytest.raises(ProgrammingError):
        execute("SELECT %(number)s::int FROM nowhere")
    execute("SELECT %(number)s::int")
