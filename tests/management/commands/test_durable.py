"""``manage.py durable``: what people type, what is printed, and the exit codes."""

from __future__ import annotations

import uuid

import pytest
from django.core.management import call_command
from django.db import connection

from django_durable.models import Run
from tests.management.conftest import Durable

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("shop")]


@pytest.mark.parametrize("subcommand", ["show", "cancel", "replay", "wake", "retry", "export"])
def test_an_unknown_run_is_not_found(durable: Durable, subcommand: str) -> None:
    run_id = uuid.uuid4()

    answer = durable(subcommand, run_id, "--json")

    assert answer.code == 1
    assert f"There is no run {run_id}" in answer.stderr
    assert answer.stdout == ""


@pytest.mark.parametrize("subcommand", ["show", "cancel", "replay", "wake", "retry", "export"])
def test_a_malformed_id_is_wrong_usage(durable: Durable, subcommand: str) -> None:
    answer = durable(subcommand, "0199a1b2")

    assert answer.code == 2
    assert "'0199a1b2' is not the id of a run" in answer.stderr


@pytest.mark.parametrize("arguments", [[], ["nothing"], ["runs", "--colour"]])
def test_wrong_usage_ends_with_two(durable: Durable, arguments: list[str]) -> None:
    assert durable(*arguments).code == 2


def test_djangos_own_options_may_stand_behind_the_sub_command(durable: Durable) -> None:
    assert durable("runs", "--json", "--settings", "tests.settings", "--no-color").code == 0


def test_missing_tables_are_explained(durable: Durable) -> None:
    with connection.schema_editor() as editor:
        editor.alter_db_table(Run, "django_durable_run", "hidden")
    try:
        answer = durable("runs")
    finally:
        with connection.schema_editor() as editor:
            editor.alter_db_table(Run, "hidden", "django_durable_run")

    assert answer.code == 1
    assert "Was 'manage.py migrate' run?" in answer.stderr


def test_it_can_be_called_from_python(capsys: pytest.CaptureFixture[str]) -> None:
    call_command("durable", "functions", json=True)

    assert '"shop/fulfil-order"' in capsys.readouterr().out
