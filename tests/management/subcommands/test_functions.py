"""``durable functions``: the functions of the code."""

from __future__ import annotations

import pytest

from tests.management.conftest import Durable

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("shop")]


def test_functions_lists_the_code(durable: Durable) -> None:
    [document] = durable("functions", "--json").json

    assert document["id"] == "shop/fulfil-order"
    assert document["triggers"] == [{"event": "shop/order.paid", "if": None}]
    assert (document["retries"], document["queue"]) == (0, "default")


def test_functions_prints_a_table_for_people(durable: Durable) -> None:
    line = durable("functions").stdout.splitlines()[2]

    assert line.split() == ["shop/fulfil-order", "shop/order.paid", "0", "default"]
