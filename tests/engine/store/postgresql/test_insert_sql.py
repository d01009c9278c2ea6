"""What inserts rows. That rows come to be as the ORM would insert them stands in portable/test_changes.py."""

from __future__ import annotations

import datetime
import re

from django.db import connection
from django.test import override_settings

from django_durable.core import clock
from django_durable.core.replay.operations import StepStatus
from django_durable.engine.store.postgresql import insert_sql
from django_durable.engine.store.rows import AttemptRow, StepRow
from django_durable.managers import DatabaseNow
from django_durable.models import Event

from ..conftest import step_row


def event(**values: object) -> Event:
    """Return an event that is not stored."""
    return Event(name="a/b", data={}, ts=clock.now(), received_at=DatabaseNow(), ingest_at=DatabaseNow(), **values)


def test_a_column_without_a_value_is_left_out() -> None:
    sql, values = insert_sql.statement(event(), connection, ignore_conflicts=False)
    assert "ingested_at" not in values
    assert set(re.findall(r"%\((\w+)\)s", sql)) == {*values, "shift"}


def test_a_moment_of_the_database_is_added_to_its_time() -> None:
    later = datetime.timedelta(hours=1)
    row = event()
    row.ingest_at = DatabaseNow(later)
    sql, values = insert_sql.statement(row, connection, ignore_conflicts=False)
    assert values["ingest_at"] == later
    assert "(statement_timestamp() + %(shift)s) + %(ingest_at)s" in sql


def test_conflicts_are_ignored_where_the_caller_asks_for_it() -> None:
    statements = [insert_sql.statement(event(), connection, ignore_conflicts=ignored)[0] for ignored in (False, True)]
    assert ["ON CONFLICT DO NOTHING" in sql for sql in statements] == [False, True]


def test_a_step_binds_no_parameter_for_a_column_without_a_value() -> None:
    sql = insert_sql.step_part(("key", "name", "status"))
    assert re.findall(r"%\((\w+)\)s", sql) == ["step_key", "step_name", "step_status"]


def test_every_column_of_a_step_is_written_but_those_of_branches() -> None:
    assert set(StepRow.__slots__) - set(insert_sql.STEP) == {"path", "open"}


def test_parameters_are_named_after_their_rows_and_choices_are_text() -> None:
    now = clock.now()
    attempt = AttemptRow(key=None, name="s", number=1, status="failed", started_at=now, finished_at=now)
    values = insert_sql.parameters(step_row("s", StepStatus.WAITING), None, attempt)
    assert (values["step_name"], values["attempt_number"]) == ("s", 1)
    assert [type(values[name]) for name in ("step_kind", "step_status", "attempt_status")] == [str, str, str]


def test_payloads_are_sealed_where_the_project_has_a_codec() -> None:
    with override_settings(DURABLE={"CODEC": "tests.test_codecs.Reversing"}):
        values = insert_sql.parameters(step_row("s", output='"secret"'))
    assert values["step_output"] == 'codec:"terces"'
    assert (values["step_error"], values["step_input"]) == (None, "")
