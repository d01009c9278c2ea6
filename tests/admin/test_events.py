from __future__ import annotations

import pytest
from django.test import Client
from django.urls import reverse
from pytest_django import DjangoAssertNumQueries

from django_durable.core import clock
from django_durable.models import Event, MatchFailure
from tests.admin.rows import make_event, make_run, make_step

pytestmark = pytest.mark.django_db

LIST = "/admin/django_durable/event/"


def page_of(event: Event) -> str:
    return reverse("admin:django_durable_event_change", args=[event.pk])


def test_the_list_shows_which_runs_an_event_started(admin_client: Client) -> None:
    run = make_run(status="failed", event=make_event("shop/order.paid"))

    html = admin_client.get(LIST).text

    assert "shop/order.paid" in html
    assert reverse("admin:django_durable_run_change", args=[run.pk]) in html


def test_the_list_tells_events_that_wait_to_be_ingested(admin_client: Client) -> None:
    make_event(ingested_at=None)

    assert "Not yet" in admin_client.get(LIST).text


def test_the_list_reads_no_payload_and_needs_the_same_queries_for_more_rows(
    admin_client: Client, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    for _ in range(50):
        make_run(event=make_event())

    with django_assert_max_num_queries(6) as queries:
        admin_client.get(LIST)

    assert not [query for query in queries if '"data"' in query["sql"]]


@pytest.mark.parametrize(
    ("query", "names"),
    [("q=shop/", ["shop/order.paid"]), ("source=model", ["blog/post.created"]), ("q=order", [])],
)
def test_the_list_can_be_narrowed(admin_client: Client, query: str, names: list[str]) -> None:
    make_event("shop/order.paid")
    make_event("blog/post.created", source="model")

    assert [event.name for event in admin_client.get(f"{LIST}?{query}").context["cl"].result_list] == names


def test_an_event_is_found_by_its_id(admin_client: Client) -> None:
    event, _ = make_event(), make_event()

    assert list(admin_client.get(LIST, {"q": str(event.id)}).context["cl"].result_list) == [event]


def test_the_page_shows_data_and_user(admin_client: Client) -> None:
    html = admin_client.get(page_of(make_event(data={"order_id": 1009}, user={"id": 7}))).text

    assert "&quot;order_id&quot;: 1009" in html
    assert "&quot;id&quot;: 7" in html


def test_the_page_lists_runs_and_resolved_waits(admin_client: Client) -> None:
    event = make_event()
    started, resumed = make_run(event=event), make_run("shop/other", status="completed")
    make_step(resumed, "packed", kind="wait", event=event)

    html = admin_client.get(page_of(event)).text

    for run in (started, resumed):
        assert reverse("admin:django_durable_run_change", args=[run.pk]) in html
    assert "packed" in html


def test_the_page_lists_conditions_that_could_not_be_checked(admin_client: Client) -> None:
    event = make_event()
    MatchFailure.objects.create(
        event=event, run=make_run(), expression="async.data.total > 5", reason="no such key", created_at=clock.now()
    )

    html = admin_client.get(page_of(event)).text

    assert "async.data.total &gt; 5" in html
    assert "no such key" in html


def test_a_huge_event_is_cut(admin_client: Client) -> None:
    html = admin_client.get(page_of(make_event(data={"text": "x" * 500_000}))).text

    assert len(html) < 60_000
    assert "more characters" in html
