"""step.atomic: what a function writes and the memo of its step, in one transaction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction

import django_durable as durable
from django_durable.models import Run, Step, StepAttempt
from tests.engine.conftest import Engine
from tests.testapp.models import Author, Post


def nothing() -> None:
    """Do nothing."""


def stolen() -> None:
    raise ValueError("the card was stolen")


def write_author(name: str, after: Callable[[], object] = nothing) -> int:
    author = Author.objects.create(name=name)
    after()
    return author.pk


def authors() -> list[str]:
    return list(Author.objects.values_list("name", flat=True))


def test_an_atomic_step_writes_and_records_in_one_transaction(engine: Engine) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> int:
        assert not connection.in_atomic_block
        value = step.atomic("write", lambda: write_author("Ada", after=lambda: seen.append(connection.in_atomic_block)))
        assert not connection.in_atomic_block
        return value

    seen: list[bool] = []

    assert engine.start().status == "completed"
    assert (authors(), seen) == (["Ada"], [True])
    assert engine.step("write").kind == "atomic"


def test_a_failed_atomic_step_leaves_neither_write_nor_memo(engine: Engine) -> None:
    ways: list[Callable[[], object]] = [stolen, nothing]

    @engine.function(backoff="1m")
    def fn(event: durable.Event, step: durable.Step) -> None:
        step.atomic("write", lambda: write_author("Ada", after=ways.pop(0)))

    engine.start()
    assert authors() == []
    assert engine.step("write").status == "waiting"

    assert engine.advance("1m").status == "completed"
    assert authors() == ["Ada"]


def test_a_value_that_cannot_be_stored_takes_the_writes_with_it(engine: Engine) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        step.atomic("write", lambda: [write_author("Ada"), stolen])

    assert engine.start().status == "failed"
    assert authors() == []


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Author.objects.create(pk=Author.objects.get().pk, name="Twin"),
        lambda: Post.objects.create(author_id=999_999, title="nobody's"),
    ],
    ids=["in the body", "at the commit"],
)
def test_a_broken_constraint_rolls_everything_back_and_is_the_steps_error(
    engine: Engine, wrong: Callable[[], object]
) -> None:
    @engine.function(retries=0)
    def fn(event: durable.Event, step: durable.Step) -> Any:
        try:
            step.atomic("write", lambda: write_author("Ada", after=wrong) and None)
        except durable.StepError as error:
            return error.is_a(IntegrityError)

    assert engine.start().output == "true"
    assert authors() == []


def test_a_body_that_asks_for_a_rollback_fails_its_attempt(engine: Engine) -> None:
    @engine.function(retries=0)
    def fn(event: durable.Event, step: durable.Step) -> None:
        step.atomic("write", lambda: write_author("Ada", after=lambda: transaction.set_rollback(True)))

    assert engine.start().status == "failed"
    assert authors() == []
    assert engine.step("write").status == "failed"


def test_what_is_to_happen_on_commit_happens_once_the_step_is_recorded(engine: Engine) -> None:
    seen = []

    def body() -> None:
        transaction.on_commit(lambda: seen.append(Step.objects.filter(name="write", status="completed").exists()))

    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        step.atomic("write", body)

    engine.start()

    assert seen == [True]


def test_writes_that_come_after_the_run_was_taken_over_are_rolled_back_and_their_value_is_discarded(
    engine: Engine,
) -> None:
    names = iter(("Ada", "Bob"))

    def body() -> int:
        name = next(names)
        if name == "Ada":
            Run.objects.update(fence=99)  # in the same transaction, as if somebody had taken the run over
        return write_author(name)

    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        step.atomic("write", body)

    engine.start()

    assert authors() == ["Bob"]
    assert StepAttempt.objects.get().status == "discarded"
