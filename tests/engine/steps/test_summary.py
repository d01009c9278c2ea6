"""step.summary: what lists say that a run is about."""

from __future__ import annotations

import pytest

import django_durable as durable
from tests.engine.conftest import Engine, failure_of


def test_a_run_says_what_it_is_about(engine: Engine) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        step.summary("order 7")
        step.sleep("nap", "1h")
        step.summary("order 7, sent")

    assert engine.start().summary == "order 7"
    assert engine.advance("1h").summary == "order 7, sent"


def test_an_earlier_summary_does_not_come_back_when_it_is_replayed(engine: Engine) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        step.summary("first")
        step.summary("second")
        step.sleep("nap", "1h")

    engine.start()

    assert engine.advance("1h").summary == "second"


@pytest.mark.parametrize(("text", "kept"), [("x" * 300, "x" * 200), ("a\0b", "ab"), ("a\ud800b", "a?b"), ("", "")])
def test_a_summary_is_made_fit_to_be_shown(engine: Engine, text: str, kept: str) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        step.summary(text)

    assert engine.start().summary == kept


def test_a_summary_is_text(engine: Engine) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        step.summary(7)  # type: ignore[arg-type]

    assert "a summary is text, not 7" in failure_of(engine.start()).message


def test_a_branch_says_what_its_run_is_about(engine: Engine) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        step.parallel(lambda: step.summary("from a branch"))

    assert engine.start().summary == "from a branch"
