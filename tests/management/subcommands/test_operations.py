"""``durable cancel``, ``replay``, ``resolve``, ``wake`` and ``retry``: the operations on runs."""

from __future__ import annotations

import sys
import uuid
from dataclasses import replace

import pytest
from django.core.management.base import CommandParser, OutputWrapper
from django.utils.translation import gettext_lazy

import django_durable
from django_durable.core.functions.functions import function
from django_durable.engine.runs.operations import OPERATIONS, TIME_OUT
from django_durable.management.outputs import Output
from django_durable.management.subcommands.operations import COMMANDS, OperationCommand
from django_durable.models import Run, Step
from tests.management.conftest import Durable, ordered

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("shop")]


def test_each_operation_is_a_sub_command() -> None:
    assert {*COMMANDS, "time_out"} == {*OPERATIONS}
    assert [command.HELP for command in COMMANDS.values()] == [str(OPERATIONS[name].summary) for name in COMMANDS]


def test_an_operation_without_arguments_of_its_own_needs_no_command_of_its_own(
    capsys: pytest.CaptureFixture[str],
) -> None:
    skip = replace(TIME_OUT, name="skip", done=gettext_lazy("skipped"))
    command, parser = OperationCommand(skip), CommandParser()
    command.add_arguments(parser)
    run = ordered()

    command.run(vars(parser.parse_args([str(run.pk), "packed"])), Output(OutputWrapper(sys.stdout), as_json=False))

    assert capsys.readouterr().out == f"Skipped. Run {run.pk} is completed.\n"


def test_cancel_ends_the_run(durable: Durable) -> None:
    run = ordered()

    answer = durable("cancel", run.pk, "--reason", "double order", "--json")

    assert answer.code == 0
    assert answer.json["status"] == "cancelled"
    assert answer.json["error"]["message"] == "double order"


def test_cancel_refuses_a_run_that_has_ended(durable: Durable) -> None:
    run = ordered(card="stolen")

    answer = durable("cancel", run.pk)

    assert answer.code == 1
    assert f"Run {run.pk} had ended already: it is failed" in answer.stderr


def test_replay_starts_a_new_run(durable: Durable) -> None:
    run = ordered(seat="b2")

    answer = durable("replay", run.pk, "--json")

    replay = Run.objects.get(replay_of=run)
    assert answer.code == 0
    assert answer.json["id"] == str(replay.pk)
    assert answer.json["event"] == str(run.event_id)


def test_a_replay_from_a_step_keeps_what_was_before(durable: Durable) -> None:
    run = ordered(seat="b2")

    answer = durable("replay", run.pk, "--from-step", "charge", "--data", '{"seat": "c3"}', "--json")

    assert answer.code == 0
    assert Step.objects.get(run_id=answer.json["id"], name="reserve").output == '"B2"'


def test_a_replay_takes_other_data(durable: Durable) -> None:
    run = ordered(seat="b2")

    new_id = durable("replay", run.pk, "--data", '{"seat": "c3"}', "--json").json["id"]

    assert Step.objects.get(run_id=new_id, name="reserve").output == '"C3"'


@pytest.mark.parametrize(
    ("arguments", "code", "hint"),
    [
        (["--from-step", "chrage"], 1, "has no step 'chrage'; its steps are 'reserve', 'charge', 'packed'"),
        (["--data", "{"], 2, "this is not JSON"),
    ],
)
def test_what_cannot_be_is_refused(durable: Durable, arguments: list[str], code: int, hint: str) -> None:
    answer = durable("replay", ordered().pk, *arguments)

    assert (answer.code, Run.objects.count()) == (code, 1)
    assert hint in answer.stderr


def test_a_function_that_asks_for_it_is_replayed_with_yes(durable: Durable) -> None:
    run_id = function("shop/pay-out", replay="confirm")(lambda event, step: None).start().id

    refused = durable("replay", run_id)
    assert (refused.code, Run.objects.count()) == (1, 1)
    assert "--yes" in refused.stderr

    assert durable("replay", run_id, "--yes").code == 0
    assert Run.objects.count() == 2


# By hand


def test_a_wait_is_answered(durable: Durable) -> None:
    run = ordered()

    answer = durable("resolve", run.pk, "packed", '{"by": "Ada"}', "--json")

    event = Step.objects.select_related("event").get(name="packed").event
    assert (answer.code, answer.json["status"], event and event.data) == (0, "completed", {"by": "Ada"})


def test_a_wait_times_out(durable: Durable) -> None:
    run = ordered()

    assert durable("resolve", run.pk, "packed", "--time-out").code == 0

    assert Step.objects.get(name="packed").event is None
    assert Run.objects.get().status == "completed"


def test_a_wait_is_settled_once(durable: Durable) -> None:
    function("shop/slow", trigger="shop/order.paid")(lambda event, step: _wait_twice(step))
    run = Run.objects.get(event_id=django_durable.send_event("shop/order.paid", {}), function="shop/slow")
    durable("resolve", run.pk, "first")

    answer = durable("resolve", run.pk, "first")

    assert answer.code == 1
    assert f"Step 'first' was settled already; run {run.pk} is waiting" in answer.stderr


def _wait_twice(step: django_durable.Step) -> None:
    step.wait_for_event("first", "shop/never", timeout="1d")
    step.wait_for_event("second", "shop/never", timeout="1d")


@pytest.mark.parametrize(
    ("step", "hint"),
    [("pakced", "has no step 'pakced'; its steps are"), ("reserve", "was settled already")],
)
def test_a_step_that_does_not_wait_is_refused(durable: Durable, step: str, hint: str) -> None:
    answer = durable("resolve", ordered().pk, step)

    assert answer.code == 1
    assert hint in answer.stderr


def test_data_and_a_time_out_exclude_one_another(durable: Durable) -> None:
    assert durable("resolve", uuid.uuid4(), "packed", "{}", "--time-out").code == 2


def test_a_sleep_ends(durable: Durable) -> None:
    run_id = function("shop/nap")(lambda event, step: step.sleep("nap", "1d")).start().id

    answer = durable("wake", run_id, "--json")

    assert (answer.code, answer.json["status"]) == (0, "completed")


def test_the_next_attempt_starts_now(durable: Durable) -> None:
    run_id = function("shop/broken", retries=1)(lambda event, step: step.run("work", int, "no number")).start().id

    answer = durable("retry", run_id, "--json")

    assert (answer.code, answer.json["status"]) == (0, "failed")


@pytest.mark.parametrize("subcommand", ["wake", "retry"])
def test_a_run_that_does_not_wait_is_refused(durable: Durable, subcommand: str) -> None:
    run_id = function("shop/quick")(lambda event, step: None).start().id

    answer = durable(subcommand, run_id)

    assert answer.code == 1
    assert f"Run {run_id} does not wait: it is completed" in answer.stderr


@pytest.mark.parametrize("subcommand", ["wake", "retry"])
def test_a_run_that_waits_for_something_else_is_refused(durable: Durable, subcommand: str) -> None:
    answer = durable(subcommand, ordered().pk)

    assert answer.code == 1
    assert "it waits for event: event shop/order.packed" in answer.stderr
