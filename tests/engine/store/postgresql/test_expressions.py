"""What statements read and what becomes of it agree, because both are made of the values' own fields."""

from __future__ import annotations

from django_durable.engine.store.postgresql import lookup_sql, run_sql
from django_durable.engine.store.postgresql.expressions import EVENT, LIVE, MEMO, RUN, SETTLED, columns
from django_durable.engine.store.rows import Claim, EventRow
from django_durable.models import Event, Run, Step


def test_columns_are_named_with_their_table() -> None:
    assert columns(("id", "user"), "event") == 'event."id", event."user"'


def test_the_columns_that_are_read_are_columns_of_the_tables() -> None:
    for names, model in ((RUN, Run), (EVENT, Event), (MEMO, Step)):
        assert set(names) <= {field.attname for field in model._meta.concrete_fields}


def test_an_event_is_read_with_all_that_its_value_has() -> None:
    assert tuple(EventRow.__slots__) == EVENT
    statements = (run_sql.CLAIM, run_sql.MEMOS, lookup_sql.DUE_EVENTS, lookup_sql.OPEN_WAITS, lookup_sql.STORED_UNDER)
    assert all(columns(EVENT, "event") in sql for sql in statements)


def test_a_claim_is_read_with_all_that_its_run_has() -> None:
    assert {*RUN, "run_id"} - {"id"} == set(Claim.__slots__) - {"now", "event", "key", "path"}


def test_statuses_are_listed_as_text() -> None:
    assert (SETTLED, LIVE) == ("('completed', 'failed')", "('queued', 'running', 'waiting')")
