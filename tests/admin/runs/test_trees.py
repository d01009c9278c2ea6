"""A run's page shows groups, their branches, and what these did, as a tree."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from pytest_django import DjangoAssertNumQueries

import django_durable
from django_durable.admin.runs.trees import Group, as_tree, depth
from django_durable.core.events.events import Event
from django_durable.core.functions.functions import function
from django_durable.core.functions.steps import Step
from django_durable.engine.runs.ending import cancel
from django_durable.models import Run

real_run = pytest.mark.usefixtures("empty_registry", "transactional_db")


def run_of(handler: Callable[[Step], Any]) -> Run:
    """Return the run of a handler, as far as it comes by itself."""

    def handle(event: Event, step: Step) -> Any:
        return handler(step)

    return Run.objects.get(pk=function("shop/branches", retries=0)(handle).start().id)


def lines(client: Client, run: Run) -> list[Any]:
    """Return the lines of the run's page."""
    answer = client.get(reverse("admin:django_durable_run_change", args=[run.pk]))
    return list(answer.context["steps"])


def shown(client: Client, run: Run) -> list[tuple[int, str]]:
    """Return how far each line is indented, and its title."""
    return [(line.depth, line.title) for line in lines(client, run)]


def row(key: bytes, parent_key: bytes | None = None) -> dict[str, Any]:
    return {"key": key, "parent_key": parent_key}


def test_what_is_inside_something_stands_below_it() -> None:
    rows = [row(b"group"), row(b"one", b"group"), row(b"two", b"group"), row(b"later"), row(b"step", b"one")]

    assert [each["key"] for each in as_tree(rows)] == [b"group", b"one", b"step", b"two", b"later"]


def test_what_is_inside_something_of_another_page_is_shown_all_the_same() -> None:
    rows = [row(b"step", b"elsewhere"), row(b"below", b"step")]

    assert as_tree(rows) == rows


def test_deep_nesting_is_indented_no_further_than_the_page_is_wide() -> None:
    assert depth({"branch": ">".join(["a#0/0"] * 20), "kind": "run"}) == 8


@pytest.mark.parametrize(
    ("group", "text"),
    [
        (Group("parallel", False, None, 1, 3), "parallel, 1 of 3 branches done"),
        (Group("race", False, None, 0, 2), "race, 0 of 2 branches done"),
        (Group("race", True, 0, 1, 2), "race of 2 branches, #0 won"),
    ],
)
def test_a_group_says_how_far_it_is(group: Group, text: str) -> None:
    assert group.text == text


@real_run
def test_branches_stand_below_their_group_in_their_order(admin_client: Client) -> None:
    run = run_of(
        lambda step: step.parallel(
            lambda: step.run("pack", str.upper, "a"), label=lambda: step.run("print", str.upper, "b"), id="ship"
        )
    )

    assert shown(admin_client, run) == [(0, "ship"), (1, "ship 0"), (2, "pack"), (1, "ship label"), (2, "print")]


@real_run
def test_a_group_inside_a_branch_stands_below_it(admin_client: Client) -> None:
    run = run_of(lambda step: step.parallel(lambda: step.race(lambda: step.run("pack", str.upper, "a"))))

    assert shown(admin_client, run) == [(0, "parallel"), (1, "parallel 0"), (2, "race"), (3, "race 0"), (4, "pack")]


@real_run
def test_items_of_a_map_are_numbered(admin_client: Client) -> None:
    run = run_of(lambda step: step.map("resize", str.upper, ["a", "b"]))

    assert shown(admin_client, run) == [(0, "resize"), (1, "resize#0"), (1, "resize#1")]
    assert lines(admin_client, run)[0].input == "map, 2 of 2 branches done"


@real_run
def test_what_lost_a_race_says_so(admin_client: Client) -> None:
    run = run_of(lambda step: step.race(lambda: step.sleep("nap", "1d"), lambda: step.run("quick", str.upper, "a")))

    group, loser, nap, winner, _ = lines(admin_client, run)
    assert group.input == "race of 2 branches, #1 won"
    assert "durable-cancelled" in loser.status
    assert "⊘</span> Lost the race" in loser.status
    assert "⊘</span> Closed" in nap.status
    assert "Completed" in winner.status


@real_run
def test_the_branches_of_a_cancelled_run_lost_no_race(admin_client: Client) -> None:
    run = run_of(lambda step: step.race(lambda: step.sleep("nap", "1d"), lambda: step.sleep("sleep", "1d")))
    cancel(run.pk)

    _, branch, *_ = lines(admin_client, run)

    assert "Cancelled" in branch.status


@real_run
def test_a_group_counts_the_branches_that_are_done(admin_client: Client) -> None:
    run = run_of(lambda step: step.parallel(lambda: step.sleep("nap", "1d"), lambda: step.run("quick", str.upper, "a")))

    assert lines(admin_client, run)[0].input == "parallel, 1 of 2 branches done"


@real_run
def test_a_step_that_waits_for_a_signal_is_shown_and_can_be_answered(admin_client: Client) -> None:
    run = run_of(lambda step: step.wait_for_signal("approval", "approve-7", timeout="3d"))
    page = reverse("admin:django_durable_run_change", args=[run.pk])

    html = admin_client.get(page).text
    admin_client.post(f"{page.removesuffix('change/')}resolve/", {"step": "approval", "data": '{"by": "Ada"}'})

    run.refresh_from_db()
    assert ">Resolve</a>" in html
    assert "<td>approve-7</td>" in html
    assert run.output == '{"by":"Ada"}'


@real_run
def test_a_wait_for_one_of_several_events_is_one_row(admin_client: Client) -> None:
    run = run_of(lambda step: step.wait_for_event("wait", ["shop/paid", "shop/cancelled"], timeout="3d"))

    assert (
        "shop/paid or shop/cancelled"
        in admin_client.get(reverse("admin:django_durable_run_change", args=[run.pk])).text
    )


@real_run
def test_a_branch_that_is_tried_again_can_be_tried_now(admin_client: Client) -> None:
    def handle(event: Event, step: Step) -> None:
        step.map("work", int, ["no number"])

    run = Run.objects.get(pk=function("shop/branches", retries=1)(handle).start().id)
    page = reverse("admin:django_durable_run_change", args=[run.pk])

    html = admin_client.get(page).text
    admin_client.post(f"{page.removesuffix('change/')}retry/")

    run.refresh_from_db()
    assert ">Retry</a>" in html
    assert run.status == "failed"


@real_run
def test_the_page_needs_no_more_queries_for_more_groups(
    admin_client: Client, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    def many(step: Step) -> None:
        for number in range(10):
            step.map(f"map-{number}", str.upper, ["a", "b", "c"])

    run = run_of(many)

    with django_assert_max_num_queries(15):
        assert len(lines(admin_client, run)) == 40


@real_run
def test_the_list_shows_what_a_run_says_of_itself(admin_client: Client) -> None:
    run_of(lambda step: step.summary("order 7, <3> lines"))

    assert "order 7, &lt;3&gt; lines" in admin_client.get("/admin/django_durable/run/").text


@real_run
def test_the_waits_list_shows_signals(admin_client: Client) -> None:
    run_of(lambda step: step.wait_for_signal("approval", "approve-7", timeout="3d"))

    html = admin_client.get("/admin/django_durable/wait/?q=approve-7").text

    assert "Signal" in html
    assert "shop/branches" in html
    assert django_durable.send_signal("approve-7")
    assert "shop/branches" not in admin_client.get("/admin/django_durable/wait/?q=approve-7").text
