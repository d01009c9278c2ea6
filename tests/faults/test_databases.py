"""The database restarts, its answer to a commit is lost, and PgBouncer stands before it (faults 21, 22 and 69)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import closing

import pytest
from django.db import connection

from tests.acceptance.workers import until
from tests.databases import settings_of
from tests.postgresql import Server, server

from .servers import Proxy, pgbouncer, statistics_of
from .stage import Stage, Tale, fault, lines_of

pytestmark = pytest.mark.timeout(180)

DELIVERED = ["long", "next", "last"]


# The server ends at once, and is back


@pytest.fixture
def own_server(stage: Stage) -> Iterator[Server]:
    """Give the stage a PostgreSQL of its own; its tables are made."""
    with server() as own:
        # A commit that is answered outlives the restart, whatever the suite's PGOPTIONS say.
        durably = {"options": "-c synchronous_commit=on"}
        stage.database = {**settings_of(own.url), "NAME": "postgres", "OPTIONS": durably}
        stage.site("migrate")
        yield own
        stage.end()


def crash(own: Server) -> None:
    """Restart it as ``pg_ctl restart -m immediate`` does."""
    own.stop(immediately=True)
    own.start()


@pytest.mark.stages("prefork", "threads", "solo", "rabbitmq")
def test_21_a_body_that_outlasts_a_restart_of_the_database_is_recorded_and_not_repeated(
    stage: Stage, own_server: Server
) -> None:
    stage.work()
    tale = Tale(stage, "delivery", stage.site("send", "app/delivery.asked", {}))
    until(lambda: stage.ledger(step="long"), "the body begins")
    connected = stage.site("backend")

    crash(own_server)
    stage.say("go")
    tale.finish()

    assert stage.site("backend") != connected
    assert lines_of(tale.bodies()) == {"last": 1, "long": 1, "next": 1}
    assert (tale.run["failed_attempts"], tale.run["crashes"]) == (0, 0)
    stage.assert_invariants({tale.run["id"]: DELIVERED})


@pytest.mark.stages("prefork", "threads", "solo")
def test_21_a_restart_inside_an_atomic_step_writes_its_rows_once(stage: Stage, own_server: Server) -> None:
    stage.work(fault("in book", "hold"))
    tale = Tale(stage, "booking", stage.site("send", "app/booking.asked", {}))
    stage.until_happened(fault("in book", "hold"))

    crash(own_server)
    stage.say("go")
    tale.until(lambda run: run["waiting_kind"] == "retry", "the attempt failed")
    tale.finish()

    assert lines_of(tale.bodies()) == {"book": 2}
    assert stage.site("counts")["bookings"] == 1
    stage.assert_invariants({tale.run["id"]: "booked"})


# The answer to a commit is lost


@pytest.fixture
def cut(request: pytest.FixtureRequest, stage: Stage) -> Iterator[Proxy]:
    """Have the workers reach the database through a proxy that loses the answer after these texts."""
    with closing(Proxy(connection.settings_dict, request.param)) as proxy:
        assert stage.site("backend")
        stage.database = {"HOST": "127.0.0.1", "PORT": proxy.port, "OPTIONS": {"sslmode": "disable"}}
        yield proxy


@pytest.mark.stages("prefork", "threads", "solo")
@pytest.mark.parametrize("cut", [[b'"next"']], indirect=True, ids=["memo"])
def test_22_a_memo_whose_commit_was_not_answered_is_found_and_its_body_not_repeated(stage: Stage, cut: Proxy) -> None:
    stage.say("go")
    stage.work()
    tale = Tale(stage, "delivery", stage.site("send", "app/delivery.asked", {}))

    tale.finish()

    assert cut.has_cut.is_set()
    assert lines_of(tale.bodies()) == {"last": 1, "long": 1, "next": 1}
    assert (tale.run["failed_attempts"], tale.run["crashes"]) == (0, 0)
    stage.assert_invariants({tale.run["id"]: DELIVERED})


@pytest.mark.stages("prefork", "threads", "solo")
@pytest.mark.parametrize("cut", [[b'"booked"', b"COMMIT"]], indirect=True, ids=["atomic"])
def test_22_an_atomic_step_whose_commit_was_not_answered_has_written_once(stage: Stage, cut: Proxy) -> None:
    stage.work()
    tale = Tale(stage, "booking", stage.site("send", "app/booking.asked", {}))

    tale.finish()

    assert cut.has_cut.is_set()
    assert lines_of(tale.bodies()) == {"book": 1}
    assert stage.site("counts")["bookings"] == 1
    stage.assert_invariants({tale.run["id"]: "booked"})


@pytest.mark.stages("prefork", "threads")
def test_22_a_connection_that_is_lost_between_two_steps_is_opened_again(stage: Stage) -> None:
    stage.say("go")
    stage.work(fault("step.before_commit", "cut", 2))
    tale = Tale(stage, "delivery", stage.site("send", "app/delivery.asked", {}))

    tale.finish()

    assert stage.ledger("faults")
    assert lines_of(tale.bodies()) == {"last": 1, "long": 1, "next": 1}
    assert (tale.run["failed_attempts"], tale.run["crashes"]) == (0, 0)
    stage.assert_invariants({tale.run["id"]: DELIVERED})


# PgBouncer


@pytest.mark.stages("prefork", "threads")
def test_69_through_pgbouncer_in_transaction_mode_everything_works(stage: Stage) -> None:
    with pgbouncer(connection.settings_dict, pool_size=3) as port:
        stage.database = {
            "HOST": "127.0.0.1",
            "PORT": port,
            "OPTIONS": {"sslmode": "disable"},
            "DISABLE_SERVER_SIDE_CURSORS": True,
        }
        stage.work(**{"--concurrency": 4})
        begun = [("app/journey.begun", {"journey": number}) for number in range(8)]
        events = stage.site("send_pairs", begun)
        tales = [Tale(stage, "journey", event, number) for number, event in enumerate(events)]
        for tale in tales:
            tale.finish()

        assert (statistics_of(port) or {})[connection.settings_dict["NAME"]] > 8
        once = Counter({"one": 1, "two": 1, "three": 1, "four": 1})
        assert [tale.bodies() for tale in tales] == [once] * 8
        stage.assert_invariants({tale.run["id"]: ["one", "two", "three", tale.number, "four"] for tale in tales})
        stage.end()
