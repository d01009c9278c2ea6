from __future__ import annotations

from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from pytest_django import DjangoAssertNumQueries

from django_durable.core import clock
from tests.admin.rows import make_function, make_run

pytestmark = pytest.mark.django_db

LIST = "/admin/django_durable/function/"
CONFIG = {"triggers": [{"event": "shop/order.paid", "if": "event.data.total > 5"}], "retries": 7, "queue": "slow"}


def test_the_list_shows_triggers_and_options(admin_client: Client) -> None:
    make_function("shop/fulfil-order", config=CONFIG)

    html = admin_client.get(LIST).text

    assert "<code>shop/order.paid if event.data.total &gt; 5</code>" in html
    assert "slow" in html


def test_the_list_shows_the_defaults_in_force(admin_client: Client, settings: Any) -> None:
    settings.DURABLE = {"DRIVER": "inline", "RETRIES": 9, "QUEUE": "usual"}
    make_function("shop/fulfil-order")

    html = admin_client.get(LIST).text

    assert "9 (default)" in html
    assert "usual (default)" in html


@pytest.mark.parametrize(
    ("values", "state"),
    [({}, "Active"), ({"in_code": False}, "Not in code, 0 live runs"), ({"paused_at": clock.now()}, "Paused")],
)
def test_the_list_shows_the_state(admin_client: Client, values: dict[str, object], state: str) -> None:
    make_function("shop/fulfil-order", **values)

    assert f"</span> {state}</span>" in admin_client.get(LIST).text


def test_a_function_that_the_code_lost_shows_how_many_runs_wait_for_it(admin_client: Client) -> None:
    make_function("shop/old", in_code=False)
    for status in ("queued", "waiting", "completed", "failed"):
        make_run("shop/old", status=status)
    make_run("shop/other", status="waiting")

    assert "Not in code, 2 live runs" in admin_client.get(LIST).text
    page = admin_client.get(reverse("admin:django_durable_function_change", args=["shop_2Fold"])).text
    assert "Not in code, 2 live runs" in page


def test_the_list_needs_no_more_queries_for_more_functions(
    admin_client: Client, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    for number in range(50):
        make_function(f"shop/function-{number}", config=CONFIG)

    with django_assert_max_num_queries(5):
        admin_client.get(LIST)


def test_the_list_leads_to_a_functions_runs(admin_client: Client) -> None:
    run, _ = make_run("shop/fulfil-order"), make_run("shop/other")

    html = admin_client.get(LIST).text

    address = "/admin/django_durable/run/?function=shop%2Ffulfil-order"
    assert address in html
    assert list(admin_client.get(address).context["cl"].result_list) == [run]


def test_the_page_shows_configuration_and_latest_runs(admin_client: Client) -> None:
    run = make_run("shop/fulfil-order", status="waiting", waiting_for="event shop/order.packed")
    make_function("shop/fulfil-order")

    html = admin_client.get(reverse("admin:django_durable_function_change", args=["shop_2Ffulfil-order"])).text

    assert reverse("admin:django_durable_run_change", args=[run.pk]) in html
    assert "event shop/order.packed" in html
