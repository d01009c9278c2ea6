from __future__ import annotations

import re
import uuid

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from django_durable.admin.runs.actions import MOST
from django_durable.core.functions.functions import function
from django_durable.core.functions.steps import Step
from django_durable.engine.runs.operations import OPERATIONS, Operation
from django_durable.models import Run
from tests.admin.conftest import Staff
from tests.admin.rows import make_run

pytestmark = pytest.mark.django_db

LIST = "/admin/django_durable/run/"
ONCE = re.compile(r'name="once" value="([^"]+)"')


def page_of(run: Run, action: str = "change") -> str:
    return reverse(f"admin:django_durable_run_{action}", args=[run.pk])


def status_of(run: Run) -> str:
    return Run.objects.get(pk=run.pk).status


@pytest.fixture
def known(empty_registry: None) -> None:
    """Put the function of the runs into the code."""

    @function("shop/fulfil-order")
    def fulfil_order(event: object, step: Step) -> None:
        pass


def test_cancelling_asks_first(admin_client: Client) -> None:
    run = make_run(status="waiting")

    html = admin_client.get(page_of(run, "cancel")).text

    assert "Cancel this run?" in html
    assert status_of(run) == "waiting"


def test_cancelling_ends_the_run_and_keeps_the_reason(admin_client: Client) -> None:
    run = make_run(status="waiting")

    answer = admin_client.post(page_of(run, "cancel"), {"reason": "double order"}, follow=True)

    assert status_of(run) == "cancelled"
    assert "double order" in answer.text
    assert answer.redirect_chain == [(page_of(run), 302)]


def test_cancelling_is_logged(admin_client: Client, admin_user: User) -> None:
    run = make_run(status="waiting")

    admin_client.post(page_of(run, "cancel"), {"reason": "double order"})

    entry = LogEntry.objects.get()
    assert entry.user == admin_user
    assert entry.object_id == str(run.pk)
    assert entry.get_change_message() == "Cancelled. double order"


def test_a_run_that_has_ended_meanwhile_is_not_cancelled(admin_client: Client) -> None:
    run = make_run(status="completed")

    answer = admin_client.post(page_of(run, "cancel"), follow=True)

    assert f"Run {run.pk} had ended already: it is completed" in answer.text
    assert not LogEntry.objects.exists()


@pytest.mark.usefixtures("known")
def test_replaying_starts_a_new_run_and_leads_to_it(admin_client: Client) -> None:
    run = make_run(status="failed")

    answer = admin_client.post(page_of(run, "replay"))

    replay = Run.objects.get(replay_of=run)
    assert answer.headers["Location"] == page_of(replay)
    assert LogEntry.objects.get().get_change_message() == f"Replayed as {replay.pk}."


@pytest.mark.usefixtures("known")
def test_a_double_click_replays_once(admin_client: Client) -> None:
    run = make_run(status="failed")
    asked = [admin_client.get(page_of(run, "replay")).text for _ in range(2)]
    once = [ONCE.findall(text)[0] for text in asked]

    answers = [admin_client.post(page_of(run, "replay"), {"once": each}) for each in (once[0], once[0], once[1])]

    assert once[0] != once[1]
    first, again, other = (answer.headers["Location"] for answer in answers)
    assert first == again != other
    assert Run.objects.filter(replay_of=run).count() == 2


@pytest.mark.usefixtures("known")
def test_a_double_click_replays_each_of_several_runs_once(admin_client: Client) -> None:
    chosen = [make_run(status="failed"), make_run(status="completed")]
    form = {"action": "replay_selected", "_selected_action": [run.pk for run in chosen]}
    once = ONCE.findall(admin_client.post(LIST, {**form, "index": "0"}).text)[0]

    for _ in range(2):
        admin_client.post(LIST, {**form, "confirmed": "yes", "once": once})

    assert Run.objects.filter(replay_of__in=chosen).count() == 2


def test_a_refused_replay_says_why(admin_client: Client) -> None:
    run = make_run("shop/forgotten", status="failed")

    answer = admin_client.post(page_of(run, "replay"), follow=True)

    assert "There is no durable function" in answer.text
    assert not LogEntry.objects.exists()


def test_buttons_are_those_that_are_of_use(admin_client: Client) -> None:
    waiting, failed = make_run(status="waiting"), make_run(status="failed")

    assert page_of(waiting, "cancel") in admin_client.get(page_of(waiting)).text
    assert page_of(failed, "cancel") not in admin_client.get(page_of(failed)).text
    assert page_of(failed, "replay") in admin_client.get(page_of(failed)).text


def test_an_unknown_run_is_said_to_be_gone(admin_client: Client) -> None:
    answer = admin_client.post(f"{LIST}{uuid.uuid4()}/cancel/", follow=True)

    assert "There is no run" in answer.text


@pytest.mark.parametrize("action", ["cancel", "replay"])
@pytest.mark.parametrize("method", ["get", "post"])
def test_looking_is_no_permission_to_act(staff: Staff, action: str, method: str) -> None:
    run, client = make_run(status="waiting"), staff("view_run")

    assert page_of(run, action) not in client.get(page_of(run)).text
    assert getattr(client, method)(page_of(run, action)).status_code == 403
    assert status_of(run) == "waiting"


def test_permission_to_cancel_is_none_to_replay(staff: Staff) -> None:
    run, client = make_run(status="waiting"), staff("view_run", "cancel_run")

    assert client.post(page_of(run, "replay")).status_code == 403
    client.post(page_of(run, "cancel"))
    assert status_of(run) == "cancelled"


def test_who_may_not_look_may_not_act(staff: Staff) -> None:
    run = make_run(status="waiting")

    assert staff("cancel_run").post(page_of(run, "cancel")).status_code == 403
    assert status_of(run) == "waiting"


def test_nothing_happens_without_the_csrf_token(admin_user: User) -> None:
    run, client = make_run(status="waiting"), Client(enforce_csrf_checks=True)
    client.force_login(admin_user)

    assert client.post(page_of(run, "cancel")).status_code == 403
    assert status_of(run) == "waiting"


def test_selected_runs_are_cancelled_after_asking(admin_client: Client) -> None:
    chosen, left = [make_run(status="waiting"), make_run()], make_run()
    form = {"action": "cancel_selected", "_selected_action": [run.pk for run in chosen]}

    asked = admin_client.post(LIST, {**form, "index": "0"})
    assert "Cancel these 2 runs?" in asked.text
    assert {status_of(run) for run in chosen} == {"waiting", "queued"}

    answer = admin_client.post(LIST, {**form, "confirmed": "yes"}, follow=True)
    assert "2 runs were cancelled" in answer.text
    assert {status_of(run) for run in chosen} == {"cancelled"}
    assert status_of(left) == "queued"
    assert LogEntry.objects.count() == 2


@pytest.mark.usefixtures("known")
def test_selected_runs_are_replayed_after_asking(admin_client: Client) -> None:
    chosen = [make_run(status="failed"), make_run(status="completed")]
    form = {"action": "replay_selected", "_selected_action": [run.pk for run in chosen]}

    assert "Replay these 2 runs?" in admin_client.post(LIST, {**form, "index": "0"}).text
    admin_client.post(LIST, {**form, "confirmed": "yes"})

    assert Run.objects.filter(replay_of__in=chosen).count() == 2


def test_actions_are_offered_to_those_who_may(staff: Staff) -> None:
    make_run()
    html = staff("view_run", "cancel_run").get(LIST).text

    assert "cancel_selected" in html
    assert "replay_selected" not in html
    assert "delete_selected" not in html


def test_an_action_on_the_list_needs_its_permission(staff: Staff) -> None:
    run = make_run(status="waiting")
    form = {"action": "cancel_selected", "_selected_action": [run.pk], "confirmed": "yes"}

    staff("view_run").post(LIST, form)

    assert status_of(run) == "waiting"


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=lambda operation: operation.name)
def test_each_operation_has_a_page_for_those_who_may(staff: Staff, operation: Operation) -> None:
    page = page_of(make_run(status="waiting"), operation.name)
    needed = operation.permission.removeprefix("django_durable.")

    assert staff("view_run", needed).get(page).status_code == 200


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=lambda operation: operation.name)
def test_no_other_permission_opens_the_page_of_an_operation(staff: Staff, operation: Operation) -> None:
    page = page_of(make_run(status="waiting"), operation.name)
    others = {each.permission.removeprefix("django_durable.") for each in OPERATIONS.values()}

    client = staff("view_run", *(others - {operation.permission.removeprefix("django_durable.")}))

    assert client.get(page).status_code == 403


def test_each_operation_that_needs_no_step_is_an_action_of_the_list(admin_client: Client) -> None:
    make_run()

    offered = re.findall(r'<option value="(\w+)_selected"', admin_client.get(LIST).text)

    assert offered == [operation.name for operation in OPERATIONS.values() if not operation.takes_step]


def test_more_runs_than_a_list_shows_are_refused_at_once(admin_client: Client) -> None:
    runs = [make_run() for _ in range(MOST + 1)]
    form = {"action": "cancel_selected", "_selected_action": [runs[0].pk], "select_across": "1", "confirmed": "yes"}

    answer = admin_client.post(LIST, form, follow=True)

    assert f"Select at most {MOST} runs" in answer.text
    assert {status_of(run) for run in runs} == {"queued"}
