"""What a run carries stands in its rows, and nowhere else: not in the log, not in messages."""

from __future__ import annotations

import logging

import pytest
from django.db import connection

import django_durable as durable
from django_durable.models import Run
from tests.engine.conftest import Engine, RecordingDriver, failing

SECRET = "s3cret"


def test_no_payload_stands_in_the_log(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    def charge(card: str) -> str:
        raise ValueError(f"cannot take {card}")

    @engine.function(retries=1, backoff=1)
    def fn(event: durable.Event, step: durable.Step) -> str:
        card = event.data["card"]
        step.run("keep", lambda: card)
        came = step.wait_for_event("wait", "test/reply", if_="int(async.data.card) > event.data.card", timeout="1h")
        try:
            step.run("charge", charge, card)
        except durable.StepError:
            raise RuntimeError(f"lost {card}, {came}") from None

    engine.start({"card": SECRET}, user={"name": SECRET}, id="1")
    durable.send_event("test/start", {"card": f"{SECRET} changed"}, id="1")
    durable.send_event("test/reply", {"card": SECRET})
    with connection.execute_wrapper(failing("django_durable_step", times=2)):
        engine.start({"card": SECRET})
    for _ in range(6):
        engine.advance("1h")

    assert {run.status for run in Run.objects.all()} == {"failed"}
    assert "came again with id '1'" in caplog.text
    assert "could not go on" in caplog.text
    assert SECRET not in caplog.text


def test_a_hint_names_a_queue_and_runs_and_nothing_else(engine: Engine, recorder: RecordingDriver) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        step.invoke("child", "child", {"card": SECRET})

    durable.function("child", queue="slow")(lambda event, step: step.sleep("nap", "1h"))
    durable.send_event("test/start", {"card": SECRET})
    engine.settle()
    engine.advance("1h")

    hints = recorder.taken()
    runs = {run.id for run in Run.objects.all()}
    assert {queue for queue, _, _ in hints} == {"default", "slow"}
    assert {run_id for _, run_ids, _ in hints for run_id in run_ids} <= runs
    assert SECRET not in str(hints)
