from __future__ import annotations

import pytest
from django.test import Client

from tests.admin.rows import make_function, make_run

pytestmark = pytest.mark.django_db

LIST = "/admin/django_durable/run/"


def test_each_known_function_is_a_choice_also_without_runs(admin_client: Client) -> None:
    make_run("shop/fulfil-order")
    make_function("shop/pay-out")

    html = admin_client.get(LIST).text

    assert "?function=shop%2Ffulfil-order" in html
    assert "?function=shop%2Fpay-out" in html


def test_the_runs_of_the_chosen_function_are_shown(admin_client: Client) -> None:
    chosen, left = make_run("shop/pay-out"), make_run("shop/fulfil-order")

    html = admin_client.get(LIST, {"function": "shop/pay-out"}).text

    assert str(chosen.pk) in html
    assert str(left.pk) not in html


def test_no_choice_leaves_all_runs(admin_client: Client) -> None:
    runs = [make_run("shop/pay-out"), make_run("shop/fulfil-order")]

    html = admin_client.get(LIST).text

    assert all(str(run.pk) in html for run in runs)


def test_a_function_that_nobody_knows_has_no_runs(admin_client: Client) -> None:
    run = make_run()

    assert str(run.pk) not in admin_client.get(LIST, {"function": "shop/nothing"}).text
