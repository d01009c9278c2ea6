from __future__ import annotations

import datetime

import pytest
from django.test import Client
from django.urls import reverse
from pytest_django import DjangoAssertNumQueries

from django_durable.core import clock
from tests.admin.rows import make_run, make_wait

pytestmark = pytest.mark.django_db

LIST = "/admin/django_durable/wait/"


def test_the_list_shows_who_waits_for_what_until_when(admin_client: Client) -> None:
    run = make_run("shop/fulfil-order", status="waiting")
    make_wait(run, "shop/order.packed", expires_at=clock.now() + datetime.timedelta(days=3, seconds=1))

    html = admin_client.get(LIST).text

    assert "shop/order.packed" in html
    assert "same data.order_id" in html
    assert reverse("admin:django_durable_run_change", args=[run.pk]) in html
    assert 'title="in 3d' in html


def test_the_list_needs_no_more_queries_for_more_waits(
    admin_client: Client, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    for _ in range(50):
        make_wait(make_run(status="waiting"))

    with django_assert_max_num_queries(5) as queries:
        admin_client.get(LIST)

    assert not [query for query in queries if '"input"' in query["sql"]]


def test_waits_are_found_by_name_and_by_run(admin_client: Client) -> None:
    wait = make_wait(make_run(status="waiting"), "shop/order.packed")
    make_wait(make_run(status="waiting"), "shop/order.packed.late")

    for term in ("shop/order.packed", str(wait.run_id)):
        assert list(admin_client.get(LIST, {"q": term}).context["cl"].result_list) == [wait]


def test_the_page_shows_the_whole_condition(admin_client: Client) -> None:
    expression = "async.data.total > 5 && " * 10 + "true"
    wait = make_wait(make_run(status="waiting"), expression=expression)

    html = admin_client.get(reverse("admin:django_durable_wait_change", args=[wait.pk])).text

    assert expression.replace("&", "&amp;").replace(">", "&gt;") in html
