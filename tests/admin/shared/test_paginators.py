from __future__ import annotations

import pytest
from django.db import connection
from django.test import Client
from pytest_django import DjangoAssertNumQueries

from django_durable.admin.shared.paginators import EstimatingPaginator
from django_durable.models import Event, MatchPath
from tests.admin.rows import make_event

pytestmark = pytest.mark.django_db


@pytest.fixture
def many_events() -> None:
    """Insert 10,500 events."""
    first = make_event("first")
    rows = [
        Event(name="many", ts=first.ts, received_at=first.ts, ingest_at=first.ts, ingested_at=first.ts)
        for _ in range(10_500)
    ]
    Event.objects.bulk_create(rows, batch_size=2_000)


def count_text(**filters: str) -> str:
    return EstimatingPaginator(Event.objects.filter(**filters), 100).count_text


def test_few_rows_are_counted() -> None:
    make_event()

    assert count_text() == "1"


@pytest.mark.usefixtures("many_events")
def test_counting_filtered_rows_stops_at_ten_thousand() -> None:
    paginator = EstimatingPaginator(Event.objects.filter(name="many"), 100)

    assert paginator.count == 10_001
    assert paginator.count_text == "more than 10,000"


@pytest.mark.usefixtures("many_events")
def test_counting_reads_no_more_rows_than_the_cap(django_assert_num_queries: DjangoAssertNumQueries) -> None:
    with django_assert_num_queries(1) as queries:
        assert count_text(name="many")

    assert "LIMIT 10001" in queries[0]["sql"]


@pytest.mark.needs("postgresql")
def test_postgresql_estimates_a_whole_table(django_assert_num_queries: DjangoAssertNumQueries) -> None:
    # What ANALYZE writes outlives the test's transaction, so this is a table that no list counts.
    MatchPath.objects.bulk_create(MatchPath(name="many", path=str(number)) for number in range(10_500))
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE django_durable_matchpath")

    with django_assert_num_queries(1) as queries:
        assert EstimatingPaginator(MatchPath.objects.order_by("id"), 100).count_text == "about 10,500"

    assert "COUNT" not in queries[0]["sql"]


@pytest.mark.usefixtures("many_events")
def test_a_list_says_that_its_count_is_capped(admin_client: Client) -> None:
    html = admin_client.get("/admin/django_durable/event/?q=many").text

    assert "more than 10,000 events" in html
    assert "10001" not in html
