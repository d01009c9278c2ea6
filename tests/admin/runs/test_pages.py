from __future__ import annotations

import datetime
import json

import pytest
from django.test import Client
from django.urls import reverse
from pytest_django import DjangoAssertNumQueries

import django_durable
from django_durable.core import clock
from django_durable.core.events.events import Event
from django_durable.core.functions.functions import function
from django_durable.core.functions.steps import Step
from django_durable.engine.scheduler.scheduler import Scheduler
from django_durable.models import Run
from tests.admin.rows import error_text, make_attempt, make_event, make_function, make_run, make_step, make_wait

pytestmark = pytest.mark.django_db

LIST = "/admin/django_durable/run/"


def page_of(run: Run) -> str:
    return reverse("admin:django_durable_run_change", args=[run.pk])


def test_the_list_shows_status_function_and_trigger(admin_client: Client) -> None:
    run = make_run(status="running", event=make_event("shop/order.paid"))

    html = admin_client.get(LIST).text

    assert "Running" in html
    assert "shop/fulfil-order" in html
    assert "shop/order.paid" in html
    assert page_of(run) in html


def test_the_list_shows_what_a_run_waits_for(admin_client: Client) -> None:
    make_run(status="waiting", waiting_for="event shop/order.packed match data.order_id")

    assert "event shop/order.packed match data.order_id" in admin_client.get(LIST).text


def test_the_list_shows_why_a_run_failed_in_one_line(admin_client: Client) -> None:
    make_run(status="failed", error=error_text("shop.errors.CardError", "do not\nhonour", "Traceback: secret frames"))

    html = admin_client.get(LIST).text

    assert "CardError: do not honour" in html
    assert "secret frames" not in html


def test_the_list_shows_which_limit_holds_a_queued_run(admin_client: Client) -> None:
    make_run(held_by="customer 7")

    assert "held by customer 7" in admin_client.get(LIST).text


def test_the_list_reads_no_payload(admin_client: Client, django_assert_max_num_queries: DjangoAssertNumQueries) -> None:
    make_run(status="completed", input='"in"', output='"out"')

    with django_assert_max_num_queries(6) as queries:
        admin_client.get(LIST)

    assert not [query for query in queries if '"output"' in query["sql"] or '"input"' in query["sql"]]


def test_the_list_needs_no_more_queries_for_more_runs(
    admin_client: Client, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    for number in range(60):
        make_run(f"shop/function-{number % 10}", event=make_event())

    with django_assert_max_num_queries(6):
        admin_client.get(LIST)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("status=failed", {"failed"}),
        ("function=shop/other", {"waiting"}),
        ("q=shop/other", {"waiting"}),
        ("q=other", {"waiting"}),
        ("q=shop/order.", {"failed"}),
        ("q=nothing", set()),
    ],
)
def test_the_list_can_be_narrowed(admin_client: Client, query: str, found: set[str]) -> None:
    make_run(status="failed", event=make_event("shop/order.paid"))
    make_run("shop/other", status="waiting")

    rows = admin_client.get(f"{LIST}?{query}").context["cl"].result_list

    assert {run.status for run in rows} == found


def test_the_list_finds_a_run_by_its_id_and_by_its_event(admin_client: Client) -> None:
    event = make_event()
    run, _ = make_run(event=event), make_run()

    for id in (run.id, event.id):
        assert list(admin_client.get(LIST, {"q": str(id)}).context["cl"].result_list) == [run]


def test_the_page_shows_input_output_and_times(admin_client: Client) -> None:
    run = make_run(status="completed", event=make_event(data={"order_id": 1009}), output='{"label": "L-1"}')

    html = admin_client.get(page_of(run)).text

    assert "&quot;order_id&quot;: 1009" in html
    assert "&quot;label&quot;: &quot;L-1&quot;" in html
    assert f'<time datetime="{run.created_at.isoformat()}"' in html


def test_the_page_prefers_a_runs_own_input_to_its_events_data(admin_client: Client) -> None:
    run = make_run(event=make_event(data={"order_id": 1009}), input='{"order_id": 2}')

    html = admin_client.get(page_of(run)).text

    assert "&quot;order_id&quot;: 2" in html
    assert "1009" not in html


def test_the_page_shows_values_as_people_write_them(admin_client: Client) -> None:
    run = make_run(status="completed", output='{"$": "decimal", "v": "9.90"}')

    assert "<pre>&quot;9.90&quot;</pre>" in admin_client.get(page_of(run)).text


def test_the_page_lists_steps_in_order(admin_client: Client) -> None:
    run = make_run(status="completed")
    make_step(run, "charge", planned_at=run.created_at + datetime.timedelta(seconds=1))
    make_step(run, "reserve", output='["seat 12"]')
    make_step(run, "reserve", 1, planned_at=run.created_at + datetime.timedelta(seconds=2))

    page = admin_client.get(page_of(run))

    assert [step.title for step in page.context["steps"]] == ["reserve", "charge", "reserve#1"]
    assert "seat 12" in page.text


def test_the_page_shows_when_a_sleeping_step_goes_on(admin_client: Client) -> None:
    run = make_run(status="waiting")
    make_step(
        run, "pause", status="waiting", kind="sleep", next_at=clock.now() + datetime.timedelta(hours=3, seconds=5)
    )

    assert "in 3h" in admin_client.get(page_of(run)).text


def test_the_page_links_the_event_that_resolved_a_wait(admin_client: Client) -> None:
    run, event = make_run(status="completed"), make_event("shop/order.packed")
    make_step(run, "packed", kind="wait", event=event)

    assert reverse("admin:django_durable_event_change", args=[event.pk]) in admin_client.get(page_of(run)).text


def test_the_page_lists_failed_attempts_with_their_tracebacks(admin_client: Client) -> None:
    run = make_run(status="waiting")
    make_step(run, "charge", status="waiting", attempt=2)
    for number in (1, 2):
        make_attempt(run, "charge", number, error=error_text("shop.CardError", f"refused {number}", f"frame {number}"))

    page = admin_client.get(page_of(run))

    assert [attempt.number for attempt in page.context["attempts"]] == [1, 2]
    assert "frame 1" in page.text
    assert "refused 2" in page.text


def test_the_page_shows_a_discarded_value(admin_client: Client) -> None:
    run = make_run(status="cancelled")
    make_attempt(run, "charge", status="discarded", error=None, output='"charged late"')

    html = admin_client.get(page_of(run)).text

    assert "Discarded" in html
    assert "charged late" in html


def test_the_page_shows_an_error_with_its_causes(admin_client: Client) -> None:
    cause = {"type": "builtins.KeyError", "message": "'card'", "traceback": "KeyError frames"}
    error = {"type": "shop.CardError", "message": "refused", "traceback": "CardError frames", "cause": cause}
    run = make_run(status="failed", error=json.dumps(error))

    html = admin_client.get(page_of(run)).text

    assert "CardError frames" in html
    assert "KeyError frames" in html


def test_the_page_lists_open_waits_children_and_replays(admin_client: Client) -> None:
    run = make_run(status="waiting")
    make_wait(run, "shop/order.packed")
    child, replay = make_run("shop/notify", parent=run), make_run(replay_of=run)

    html = admin_client.get(page_of(run)).text

    assert "shop/order.packed" in html
    assert page_of(child) in html
    assert page_of(replay) in html
    assert page_of(run) in admin_client.get(page_of(child)).text
    assert page_of(run) in admin_client.get(page_of(replay)).text


def test_the_page_needs_no_more_queries_for_more_steps(
    admin_client: Client, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    run = make_run(status="completed", event=make_event())
    for number in range(500):
        make_step(run, f"page-{number}", seq=number, output=f'"value {number}"')

    with django_assert_max_num_queries(13):
        page = admin_client.get(page_of(run))

    assert len(page.context["steps"]) == 500
    assert "value 499" in page.text


def test_a_longer_run_is_shown_page_by_page(admin_client: Client) -> None:
    run = make_run(status="completed")
    for number in range(501):
        make_step(run, "page", number, planned_at=run.created_at + datetime.timedelta(milliseconds=number))

    first, second = admin_client.get(page_of(run)), admin_client.get(page_of(run), {"steps": "2"})

    assert "501 steps" in first.text
    assert [step.title for step in second.context["steps"]] == ["page#500"]


def test_a_huge_payload_is_cut_with_a_note(admin_client: Client) -> None:
    run = make_run(status="completed", output=json.dumps("x" * 1_000_000))

    html = admin_client.get(page_of(run)).text

    assert len(html) < 100_000
    assert "980002 more characters" in html
    assert f"manage.py durable show {run.pk} --json" in html


def test_a_run_that_is_gone_leads_back_with_a_message(admin_client: Client) -> None:
    answer = admin_client.get("/admin/django_durable/run/0199-gone/change/", follow=True)

    assert "There is no run 0199-gone" in answer.text


def test_the_page_draws_the_steps(admin_client: Client) -> None:
    run = make_run(status="completed")
    make_step(run, "charge")
    make_attempt(run, "charge")

    html = admin_client.get(page_of(run)).text

    assert 'role="img"' in html
    assert 'class="durable-bar durable-failed"' in html
    assert 'class="durable-bar durable-completed"' in html


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("empty_registry")
def test_a_real_run_is_shown_as_it_went(admin_client: Client) -> None:
    tries: list[int] = []

    def charge() -> None:
        tries.append(len(tries))
        raise ValueError(f"refused {len(tries)}")

    @function("shop/fulfil-order", trigger="shop/order.paid", retries=1, backoff=0)
    def fulfil_order(event: Event, step: Step) -> None:
        step.run("reserve", str.upper, "seat b2")
        step.run("charge", charge)

    django_durable.send_event("shop/order.paid", {"order_id": 1009})
    run = Run.objects.get()
    for _ in range(5):
        Scheduler().look()

    page = admin_client.get(page_of(run))

    assert Run.objects.get().status == "failed"
    assert [step.title for step in page.context["steps"]] == ["reserve", "charge"]
    assert [attempt.error.message for attempt in page.context["attempts"]] == ["refused 1", "refused 2"]
    assert "SEAT B2" in page.text
    assert "&quot;order_id&quot;: 1009" in page.text


def test_the_page_marks_steps_that_changed_code_did_not_ask_for(admin_client: Client) -> None:
    run = make_run(status="completed")
    make_step(run, "charge", unused=True)
    make_step(run, "pay")

    html = admin_client.get(page_of(run)).text

    assert html.count("charge (unused)") >= 2  # on the timeline and in the table
    assert "pay (unused)" not in html


def test_the_page_shows_the_version_of_the_last_turn_where_it_differs(admin_client: Client) -> None:
    make_function("shop/fulfil-order", code_version="v3")
    run = make_run(code_version="v1", last_code_version="v2")

    assert "v1 (last turn with v2; the code is v3 now)" in admin_client.get(page_of(run)).text
