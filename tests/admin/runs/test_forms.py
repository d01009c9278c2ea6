"""What staff fill in: a replay from a step or with other data, an answer to a wait; and what is settled by hand."""

from __future__ import annotations

import html
import json
from dataclasses import replace
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client
from django.urls import reverse

from django_durable.admin.runs.forms import OperationForm, StepForm, form_of
from django_durable.core.functions.functions import function
from django_durable.core.functions.steps import Step as StepObject
from django_durable.core.replay.operations import step_key
from django_durable.engine.runs.operations import TIME_OUT, WAKE
from django_durable.models import Run, Step
from tests.admin.conftest import Staff
from tests.admin.rows import make_event, make_run, make_step, make_wait

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("known")]

LIST = "/admin/django_durable/run/"
ACTIONS = ["resolve", "time_out", "wake", "retry"]


@pytest.fixture
def known(empty_registry: None) -> None:
    """Put the function of the runs into the code, and one that moves money."""
    function("shop/fulfil-order")(_nothing)
    function("shop/pay-out", replay="confirm")(lambda event, step: None)


def _nothing(event: object, step: StepObject) -> None:
    """Do nothing."""


def page_of(run: Run, action: str = "change") -> str:
    return reverse(f"admin:django_durable_run_{action}", args=[run.pk])


def text_of(client: Client, address: str) -> str:
    return html.unescape(client.get(address).text)


def waiting(kind: str, name: str = "pause", **values: Any) -> Run:
    """Return a run that waits in a step of that kind."""
    run = make_run(status="waiting", waiting_kind=values.pop("waiting_kind", kind))
    make_step(run, name, status="waiting", kind=kind, **values)
    if kind in ("wait", "invoke"):
        make_wait(run, key=step_key("", name, 0), kind={"wait": "event"}.get(kind, kind))
    return run


def ended(**values: Any) -> Run:
    """Return a failed run with two recorded steps."""
    run = make_run(status="failed", steps=2, **values)
    make_step(run, "reserve", seq=1)
    make_step(run, "charge", seq=2, status="failed")
    return run


def log() -> str:
    return LogEntry.objects.get().get_change_message()


def test_an_operation_without_arguments_of_its_own_needs_no_form_of_its_own() -> None:
    assert form_of(replace(WAKE, name="pause")) is OperationForm
    assert form_of(replace(TIME_OUT, name="skip")) is StepForm


# Replay


def test_a_replay_offers_the_steps_and_shows_the_data(admin_client: Client) -> None:
    shown = text_of(admin_client, page_of(ended(event=make_event(data={"order_id": 7})), "replay"))

    assert [f'<option value="{step}"' in shown for step in ("", "reserve", "charge")] == [True] * 3
    assert '{"order_id": 7}' in shown


def test_a_replay_from_a_step_keeps_what_was_before(admin_client: Client) -> None:
    run = ended()

    admin_client.post(page_of(run, "replay"), {"from_step": "charge", "reason": "fixed"})

    replay = Run.objects.get(replay_of=run)
    assert list(Step.objects.filter(run=replay).values_list("name", flat=True)) == ["reserve"]
    assert log() == f"Replayed as {replay.pk}. From step charge. fixed"


def test_a_replay_takes_other_data(admin_client: Client) -> None:
    run = ended(event=make_event())

    admin_client.post(page_of(run, "replay"), {"data": '{"order_id": 8}'})

    replay = Run.objects.get(replay_of=run)
    assert (json.loads(replay.input or ""), replay.event_id) == ({"order_id": 8}, run.event_id)
    assert log() == f"Replayed as {replay.pk}. With other data."


@pytest.mark.parametrize("data", ['{"order_id": 7}', '{ "order_id":7 }', ""])
def test_data_that_nobody_changed_stays_that_of_the_event(admin_client: Client, data: str) -> None:
    run = ended(event=make_event(data={"order_id": 7}))

    admin_client.post(page_of(run, "replay"), {"data": data})

    assert Run.objects.get(replay_of=run).input is None


def test_values_with_a_tag_come_back_as_they_were(admin_client: Client) -> None:
    price = {"$": "decimal", "v": "9.90"}
    run = ended(input=json.dumps({"price": price, "n": 1}))
    assert json.dumps(price) in text_of(admin_client, page_of(run, "replay"))

    admin_client.post(page_of(run, "replay"), {"data": json.dumps({"price": price, "n": 2})})

    assert json.loads(Run.objects.get(replay_of=run).input or "") == {"price": price, "n": 2}


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"data": "{"}, "Enter a valid JSON"),
        ({"data": '{"$": "no-tag", "v": 1}'}, "cannot be read back"),
        ({"from_step": "nothing"}, "Select a valid choice"),
    ],
)
def test_what_cannot_be_is_said_on_the_form(admin_client: Client, given: dict[str, str], problem: str) -> None:
    run = ended()

    answer = admin_client.post(page_of(run, "replay"), given)

    assert (answer.status_code, Run.objects.count()) == (200, 1)
    assert problem in html.unescape(answer.text)


@pytest.mark.parametrize("data", ["[" * 100_000, "1" * 5_000], ids=["deep", "long"])
def test_json_that_python_cannot_read_is_an_error_of_the_form(admin_client: Client, data: str) -> None:
    run = ended()

    answer = admin_client.post(page_of(run, "replay"), {"data": data})

    assert (answer.status_code, Run.objects.count()) == (200, 1)
    assert "Enter a valid JSON" in html.unescape(answer.text)


def test_data_too_long_to_be_shown_is_kept(admin_client: Client) -> None:
    run = ended(event=make_event(data={"text": "x" * 30_000}))

    assert "Too long to be shown" in text_of(admin_client, page_of(run, "replay"))
    admin_client.post(page_of(run, "replay"), {"data": ""})

    assert Run.objects.get(replay_of=run).input is None


def test_a_function_that_asks_for_it_is_replayed_after_a_confirmation(admin_client: Client) -> None:
    run = ended(function="shop/pay-out")

    assert "does no harm" in text_of(admin_client, page_of(run, "replay"))
    admin_client.post(page_of(run, "replay"), {})
    assert Run.objects.count() == 1

    admin_client.post(page_of(run, "replay"), {"sure": "on"})
    assert Run.objects.count() == 2


def test_a_selection_with_such_a_function_asks_for_it_too(admin_client: Client) -> None:
    chosen = [ended(), ended(function="shop/pay-out")]
    form = {"action": "replay_selected", "_selected_action": [run.pk for run in chosen], "confirmed": "yes"}

    assert "does no harm" in html.unescape(admin_client.post(LIST, form).text)
    assert Run.objects.count() == 2

    admin_client.post(LIST, {**form, "sure": "on"})
    assert Run.objects.count() == 4


# By hand


@pytest.mark.parametrize(
    ("run", "offered"),
    [
        (lambda: waiting("wait"), ["resolve", "time_out"]),
        (lambda: waiting("invoke"), ["resolve", "time_out"]),
        (lambda: waiting("sleep"), ["wake"]),
        (lambda: waiting("run", waiting_kind="retry"), ["retry"]),
        (lambda: waiting("atomic", waiting_kind="retry"), ["retry"]),
        (lambda: make_run(status="waiting", waiting_kind="retry"), ["retry"]),
        (lambda: make_run(status="waiting", waiting_kind="code"), ["wake"]),
        (lambda: make_run(status="queued"), []),
        (lambda: ended(), []),
    ],
    ids=["wait", "invoke", "sleep", "step", "atomic step", "handler", "code", "queued", "ended"],
)
def test_a_page_offers_what_its_run_waits_for(admin_client: Client, run: Any, offered: list[str]) -> None:
    shown = run()
    page = admin_client.get(page_of(shown)).text

    assert [action for action in ACTIONS if page_of(shown, action) in page] == offered


def test_a_wait_is_answered_with_data(admin_client: Client) -> None:
    run = waiting("wait", "approval")

    answer = admin_client.post(page_of(run, "resolve"), {"step": "approval", "data": '{"by": "Ada"}'}, follow=True)

    step = Step.objects.select_related("event").get(run=run)
    assert (step.status, step.event and step.event.data) == ("completed", {"by": "Ada"})
    assert "The wait was resolved" in answer.text
    assert log() == "Resolved. Step approval."


def test_a_refused_answer_says_why(admin_client: Client) -> None:
    run = waiting("wait", "approval")

    answer = admin_client.post(page_of(run, "resolve"), {"step": "approval", "data": "[1]"}, follow=True)

    assert "an event's data is a dictionary" in html.unescape(answer.text)
    assert (Step.objects.get().status, LogEntry.objects.count()) == ("waiting", 0)


def test_a_wait_times_out(admin_client: Client) -> None:
    run = waiting("invoke", "call")

    admin_client.post(page_of(run, "time_out"), {"step": "call"})

    assert Step.objects.get().status == "failed"
    assert log() == "Timed out. Step call."


def test_a_wait_that_was_settled_meanwhile_is_no_choice(admin_client: Client) -> None:
    run = waiting("wait", "approval")
    admin_client.post(page_of(run, "time_out"), {"step": "approval"})

    answer = admin_client.post(page_of(run, "resolve"), {"step": "approval"}, follow=True)

    assert "Select a valid choice" in answer.text
    assert LogEntry.objects.count() == 1


def test_a_sleep_ends(admin_client: Client) -> None:
    run = waiting("sleep")

    admin_client.post(page_of(run, "wake"), {"reason": "spring"})

    assert Step.objects.get().status == "completed"
    assert log() == "Woken. spring"


def test_waking_a_run_that_does_not_wait_says_so(admin_client: Client) -> None:
    run = make_run()

    answer = admin_client.post(page_of(run, "wake"), follow=True)

    assert f"Run {run.pk} does not wait: it is queued" in answer.text


def test_selected_runs_are_tried_again_after_asking(admin_client: Client) -> None:
    chosen = [waiting("run", waiting_kind="retry"), make_run(status="waiting", waiting_kind="retry")]
    form = {"action": "retry_selected", "_selected_action": [run.pk for run in chosen]}

    assert "Retry these 2 runs?" in admin_client.post(LIST, {**form, "index": "0"}).text
    assert {run.status for run in Run.objects.all()} == {"waiting"}
    admin_client.post(LIST, {**form, "confirmed": "yes"})

    assert {run.status for run in Run.objects.all()} == {"queued"}
    assert LogEntry.objects.count() == 2


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("method", ["get", "post"])
def test_settling_by_hand_needs_a_permission_of_its_own(staff: Staff, action: str, method: str) -> None:
    run, client = waiting("wait"), staff("view_run", "cancel_run", "replay_run")

    assert getattr(client, method)(page_of(run, action), {"step": "pause"}).status_code == 403
    assert page_of(run, action) not in client.get(page_of(run)).text
    assert Step.objects.get().status == "waiting"
