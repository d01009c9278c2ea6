"""``durable runs``: the latest runs, narrowed."""

from __future__ import annotations

import pytest

from tests.management.conftest import Durable, ordered

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("shop")]

RUN_KEYS = {"id", "function", "status", "waiting_for", "event", "output", "error", "created_at", "finished_at"}


def test_runs_lists_the_newest_first(durable: Durable) -> None:
    first, second = ordered(), ordered(card="stolen")

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
    ordered()
    ordered(card="stolen")

    assert [document["status"] for document in durable("runs", "--json", *arguments).json] == statuses


def test_runs_prints_a_table_for_people(durable: Durable) -> None:
    run = ordered(card="stolen")

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
