"""``manage.py durable``: what people type, what is printed, and the exit codes."""

from __future__ import annotations

import uuid

import pytest
from django.core.management import call_command
from django.db import connection

import django_durable
from django_durable.models import Event, Run
from tests.management.conftest import Durable

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("shop")]

RUN_KEYS = {"id", "function", "status", "waiting_for", "event", "output", "error", "created_at", "finished_at"}
STEP_KEYS = {"id", "ordinal", "kind", "status", "attempt", "unused", "output", "error"}


def started(**data: object) -> Run:
    """Send an order; return the run that it started and that went as far as it can now."""
    event_id = django_durable.send_event("shop/order.paid", data)
    return Run.objects.get(event_id=event_id)


def test_send_prints_the_event_and_starts_functions(durable: Durable) -> None:
    answer = durable("send", "shop/order.paid", '{"seat": "b2"}', "--json")

    event = Event.objects.get()
    assert answer.code == 0
    assert answer.json == {"event": str(event.pk)}
    assert event.data == {"seat": "b2"}
    assert Run.objects.get().event == event


def test_send_prints_the_bare_id_for_people(durable: Durable) -> None:
    assert durable("send", "shop/other", "{}").stdout.strip() == str(Event.objects.get().pk)


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["shop/order.paid", '{"seat": }'], "line 1, column 10"),
        (["shop/order.paid", "[1]"], "is an object"),
        (["shop/order.paid", '{"total": NaN}'], "NaN is no JSON"),
        (["durable/order.paid", "{}"], "reserved"),
        (["", "{}"], "must be text"),
        ([], "NAME"),
    ],
)
def test_send_refuses_what_is_no_event(durable: Durable, arguments: list[str], hint: str) -> None:
    answer = durable("send", *arguments)

    assert answer.code == 2
    assert hint in answer.stderr
    assert not Event.objects.exists()


def test_send_is_refused_for_data_that_cannot_be_stored(durable: Durable) -> None:
    answer = durable("send", "shop/order.paid", '{"name": "\\u0000"}')

    assert answer.code == 1
    assert "NUL" in answer.stderr


def test_runs_lists_the_newest_first(durable: Durable) -> None:
    first, second = started(), started(card="stolen")

    documents = durable("runs", "--json").json

    assert [document["id"] for document in documents] == [str(second.pk), str(first.pk)]
    assert set(documents[0]) == RUN_KEYS
    assert documents[0]["error"]["cause"]["message"] == "the card is stolen"
    assert documents[0]["finished_at"] is not None
    assert "shop/order.packed" in documents[1]["waiting_for"]
    assert documents[1]["event"] == str(first.event_id)


@pytest.mark.parametrize(
    ("arguments", "statuses"),
    [
        (["--status", "failed"], ["failed"]),
        (["--limit", "1"], ["failed"]),
        (["--function", "shop/fulfil-order"], ["failed", "waiting"]),
    ],
)
def test_runs_can_be_narrowed(durable: Durable, arguments: list[str], statuses: list[str]) -> None:
    started()
    started(card="stolen")

    assert [document["status"] for document in durable("runs", "--json", *arguments).json] == statuses


def test_runs_prints_a_table_for_people(durable: Durable) -> None:
    run = started(card="stolen")

    lines = durable("runs").stdout.splitlines()

    assert lines[0].split() == ["RUN", "FUNCTION", "STATUS", "CREATED", "WAITING", "FOR", "/", "ERROR"]
    assert lines[2].startswith(f"{run.pk}  shop/fulfil-order  failed")
    assert lines[2].endswith("the card is stolen")


def test_runs_of_no_function_is_an_empty_list(durable: Durable) -> None:
    assert durable("runs", "--json").json == []


@pytest.mark.parametrize(
    ("arguments", "code", "hint"),
    [
        (["--function", "shop/nothing"], 1, "no function 'shop/nothing'"),
        (["--status", "lost"], 2, "invalid choice"),
        (["--limit", "0"], 2, "number from 1"),
        (["--limit", "many"], 2, "number from 1"),
    ],
)
def test_runs_refuses_what_it_does_not_know(durable: Durable, arguments: list[str], code: int, hint: str) -> None:
    answer = durable("runs", *arguments)

    assert answer.code == code
    assert hint in answer.stderr


def test_show_prints_the_run_and_its_steps(durable: Durable) -> None:
    run = started(seat="b2")

    document = durable("show", run.pk, "--json").json

    assert set(document) == RUN_KEYS | {"steps"}
    assert document["status"] == "waiting"
    assert [(step["id"], step["kind"], step["status"]) for step in document["steps"]] == [
        ("reserve", "run", "completed"),
        ("charge", "run", "completed"),
        ("packed", "wait", "waiting"),
    ]
    assert set(document["steps"][0]) == STEP_KEYS
    assert document["steps"][0]["output"] == "B2"


def test_show_prints_a_table_of_steps_for_people(durable: Durable) -> None:
    text = durable("show", started(seat="b2").pk).stdout

    assert "waiting for  event shop/order.packed" in text
    assert text.isascii()
    assert any(line.split() == ["reserve", "run", "completed", "0", '"B2"'] for line in text.splitlines())


def test_a_run_shows_its_output_once_it_is_done(durable: Durable) -> None:
    run = started(seat="b2")
    django_durable.send_event("shop/order.packed", {})

    document = durable("show", run.pk, "--json").json

    assert (document["status"], document["output"], document["waiting_for"]) == ("completed", "seat B2", None)


def test_cancel_ends_the_run(durable: Durable) -> None:
    run = started()

    answer = durable("cancel", run.pk, "--reason", "double order", "--json")

    assert answer.code == 0
    assert answer.json["status"] == "cancelled"
    assert answer.json["error"]["message"] == "double order"


def test_cancel_refuses_a_run_that_has_ended(durable: Durable) -> None:
    run = started(card="stolen")

    answer = durable("cancel", run.pk)

    assert answer.code == 1
    assert f"Run {run.pk} had ended already: it is failed" in answer.stderr


def test_replay_starts_a_new_run(durable: Durable) -> None:
    run = started(seat="b2")

    answer = durable("replay", run.pk, "--json")

    replay = Run.objects.get(replay_of=run)
    assert answer.code == 0
    assert answer.json["id"] == str(replay.pk)
    assert answer.json["event"] == str(run.event_id)


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
    assert "'0199a1b2' is no id of a run" in answer.stderr


def test_functions_lists_the_code(durable: Durable) -> None:
    [document] = durable("functions", "--json").json

    assert document["id"] == "shop/fulfil-order"
    assert document["triggers"] == [{"event": "shop/order.paid", "if": None}]
    assert (document["retries"], document["queue"]) == (0, "default")


def test_functions_prints_a_table_for_people(durable: Durable) -> None:
    line = durable("functions").stdout.splitlines()[2]

    assert line.split() == ["shop/fulfil-order", "shop/order.paid", "0", "default"]


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
