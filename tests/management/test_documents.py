"""Runs and steps as JSON, also where a row holds what nobody can read."""

from __future__ import annotations

import json
import uuid

import pytest

from django_durable.exceptions import RunNotFound
from django_durable.management.documents import error_line, find_run, run_document, step_document
from tests.admin.rows import error_text, make_event, make_run, make_step

pytestmark = pytest.mark.django_db


def test_a_run_is_found_by_its_id() -> None:
    run = make_run()

    assert find_run(run.pk) == run


def test_no_run_is_found_by_another_id() -> None:
    with pytest.raises(RunNotFound):
        find_run(uuid.uuid4())


def test_values_are_written_as_people_read_them() -> None:
    run = make_run(output='{"price": {"$": "decimal", "v": "9.90"}}', event=make_event())

    document = run_document(run)

    assert document["output"] == {"price": "9.90"}
    assert document["event"] == str(run.event_id)
    assert json.dumps(document)


@pytest.mark.parametrize("text", ["{", '{"$": "decimal"}'])
def test_a_value_that_cannot_be_read_is_shown_as_it_is_stored(text: str) -> None:
    assert run_document(make_run(output=text))["output"] == text


def test_an_error_has_its_cause() -> None:
    cause = json.loads(error_text("shop.CardError", "declined"))
    error = json.loads(error_text("django_durable.exceptions.StepError", "failed")) | {"cause": cause}

    document = step_document(make_step(make_run(), "charge", status="failed", error=json.dumps(error)))

    assert document["error"]["cause"]["message"] == "declined"
    assert error_line(document["error"]) == "StepError: failed"


def test_an_error_that_cannot_be_read_is_a_message() -> None:
    assert run_document(make_run(error="boom"))["error"]["message"] == "boom"


def test_no_error_is_an_empty_line() -> None:
    assert error_line(None) == ""
