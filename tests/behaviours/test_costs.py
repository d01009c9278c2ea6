"""What a run costs on PostgreSQL: statements, commits and messages are counted, never timed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import connection
from django.test import override_settings

import django_durable as durable
from django_durable.drivers.inline import InlineDriver
from django_durable.engine.workers.ingest import ingest_events
from django_durable.engine.workers.work import work
from django_durable.models import Run
from tests.engine.conftest import Engine

pytestmark = pytest.mark.needs("postgresql")


class Count:
    """Statements from the claim of a run to its end, and the transaction ids that they used."""

    def __init__(self) -> None:
        self.statements: list[str] = []
        self.commits = 0

    def matching(self, text: str) -> int:
        """Return how many statements hold that text."""
        return sum(text in statement for statement in self.statements)


TABLES = ("run", "step", "stepattempt", "wait", "event", "eventid", "eventkey", "matchpath", "lock", "function")


@pytest.fixture(autouse=True)
def noted_transactions(transactional_db: None) -> Iterator[None]:
    """Have every table note the ids of the transactions that write to it: other sessions use up ids of the server."""
    with connection.cursor() as cursor:
        cursor.execute("CREATE UNLOGGED TABLE noted (xid bigint)")
        cursor.execute(
            """
            CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN INSERT INTO noted VALUES (pg_current_xact_id()::text::bigint); RETURN NULL; END $$
            """
        )
        for table in TABLES:
            changes = f"INSERT OR UPDATE OR DELETE ON django_durable_{table}"
            cursor.execute(f"CREATE TRIGGER note AFTER {changes} FOR EACH ROW EXECUTE FUNCTION note()")
    yield
    with connection.cursor() as cursor:
        cursor.execute("DROP FUNCTION note CASCADE")
        cursor.execute("DROP TABLE noted")


@contextmanager
def counted() -> Iterator[Count]:
    """Count the statements of this connection, and the transactions that wrote."""
    count = Count()

    def wrapper(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        count.statements.append(sql)
        return execute(sql, params, many, context)

    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE noted")
    with connection.execute_wrapper(wrapper):
        yield count
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(DISTINCT xid) FROM noted")
        count.commits = cursor.fetchone()[0]


def from_claim_to_end(count: Count) -> list[str]:
    """Return the statements from the first claim that found a run to the statement that ended it."""
    first = next(i for i, sql in enumerate(count.statements) if "WITH candidate" in sql)
    last = max(i for i, sql in enumerate(count.statements) if "finished_at = (statement" in sql and "UPDATE" in sql)
    return count.statements[first : last + 1]


@pytest.fixture
def loop(engine: Engine) -> None:
    """Register a function of n steps."""

    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        for number in range(event.data["n"]):
            step.run("step", int, number)


@contextmanager
def sent_hints() -> Iterator[list[str]]:
    """Record the hints of a driver that only keeps them."""
    hints: list[str] = []

    class Recorder(InlineDriver):
        def wake(self, queue: str, run_ids: Any = (), *, ingest: bool = False) -> None:
            hints.append(queue)

    globals()["Recorder"] = Recorder
    with override_settings(DURABLE={"DRIVER": f"{__name__}.Recorder", "TURN_BUDGET": "1h"}):
        yield hints


@pytest.mark.parametrize("n", [1, 10, 100])
def test_n_steps_in_one_turn_cost_n_plus_2_commits_and_n_plus_4_statements(engine: Engine, loop: None, n: int) -> None:
    with sent_hints():
        durable.send_event("test/start", {"n": n})
        list(ingest_events())
        with counted() as count:
            work(None)

    assert engine.run().status == "completed"
    assert n < len(from_claim_to_end(count)) <= n + 4
    assert n < count.commits <= n + 2


@pytest.mark.parametrize("n", [1, 10])
def test_from_its_event_to_its_end_a_run_of_n_steps_costs_n_plus_3_commits(engine: Engine, loop: None, n: int) -> None:
    with sent_hints():
        durable.send_event("test/start", {"n": 1})
        work("default", ingest=True)  # What is learnt once is no part of it.
        with counted() as count:
            durable.send_event("test/start", {"n": n})
            sent = len(count.statements)
            work("default", ingest=True)

    assert engine.run().status == "completed"
    assert (sent, count.commits) == (1, n + 3)
    assert len(count.statements) <= n + 11


def test_from_an_event_to_the_end_of_the_run_that_waited_for_it_cost_4_commits(engine: Engine) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        step.wait_for_event("reply", "test/reply", match="data.n", timeout="1d")
        step.run("thank", int)

    with sent_hints():
        for number in range(2):
            durable.send_event("test/start", {"n": number})
            work("default", ingest=True)
        durable.send_event("test/reply", {"n": 0})
        work("default", ingest=True)
        with counted() as count:
            durable.send_event("test/reply", {"n": 1})
            work("default", ingest=True)

    assert engine.run().status == "completed"
    assert count.commits == 4
    assert len(count.statements) <= 16


def test_the_memo_is_read_in_one_query_in_a_later_turn(engine: Engine) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        for number in range(50):
            step.run("step", int, number)
        step.sleep("nap", "1h")
        step.run("last", int, 1)

    engine.start()
    with counted() as count:
        engine.advance("1h")

    assert engine.run().status == "completed"
    assert count.matching("FROM django_durable_step step LEFT JOIN") == 1


def test_each_further_turn_costs_2_commits_and_3_statements_more(engine: Engine, loop: None) -> None:
    def cost(checkpoint: bool) -> tuple[int, int]:
        settings = {"DRIVER": "inline", "CHECKPOINT": checkpoint, "TURN_BUDGET": "1h"}
        with sent_hints():
            durable.send_event("test/start", {"n": 11})
            list(ingest_events())
        with override_settings(DURABLE=settings), counted() as count:
            work(None)
        assert engine.run().status == "completed"
        return count.commits, len(from_claim_to_end(count))

    commits, statements = cost(checkpoint=True)
    many_commits, many_statements = cost(checkpoint=False)

    # With checkpoint=False each of the 11 steps has a turn of its own; the last turn also ends the run.
    assert many_commits - commits == 10 * 2
    assert many_statements - statements == 10 * 3


def test_a_run_of_1000_steps_sends_at_most_2_messages(engine: Engine, loop: None) -> None:
    with sent_hints() as hints:
        durable.send_event("test/start", {"n": 1000})
        work("default", ingest=True)

    assert engine.run().status == "completed"
    assert len(hints) <= 2


def test_the_end_of_a_run_claims_the_next_one_in_its_commit(engine: Engine, loop: None) -> None:
    with sent_hints():
        durable.send_events(durable.Event("test/start", {"n": 1}) for _ in range(10))
        list(ingest_events())

        with counted() as count:
            work("default")

    assert Run.objects.filter(status="completed").count() == 10
    assert count.commits == 1 + 10 * 2
    assert len(from_claim_to_end(count)) == 2 + 10 * 2
