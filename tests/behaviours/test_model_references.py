"""Model instances that steps return: loaded in every pass, and gone where their rows are."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import override_settings

import django_durable as durable
from django_durable.core.values.encoding import decode, encode
from django_durable.models import Step
from tests.engine.conftest import Engine, failure_of
from tests.testapp.models import Author


@pytest.fixture
def author(transactional_db: None) -> Author:
    """Store an author."""
    return Author.objects.create(name="Ada")


def test_a_step_returns_the_instance_in_every_pass(engine: Engine, author: Author) -> None:
    names = []

    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        names.append(step.run("author", Author.objects.get, pk=author.pk).name)
        step.sleep("nap", "1h")

    engine.start()
    Author.objects.update(name="Grace")
    run = engine.advance("1h")

    assert (run.status, names) == ("completed", ["Ada", "Grace"])


def test_a_row_that_is_gone_is_an_error_that_the_handler_can_catch(engine: Engine, author: Author) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> list[Any]:
        try:
            step.run("author", Author.objects.get, pk=author.pk)
        except durable.StaleReference as error:
            return [error.model, error.pk, error.database]
        step.sleep("nap", "1h")
        return []

    engine.start()
    Author.objects.all().delete()
    run = engine.advance("1h")

    assert (run.status, run.output) == ("completed", f'["testapp.author",{author.pk},"default"]')


def test_a_row_that_is_gone_fails_a_handler_that_does_not_catch_it(engine: Engine, author: Author) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        step.run("author", Author.objects.get, pk=author.pk)
        step.sleep("nap", "1h")

    with override_settings(DURABLE={"DRIVER": "inline", "RETRIES": 0}):
        engine.start()
        Author.objects.all().delete()
        run = engine.advance("1h")

    assert (run.status, failure_of(run).type) == ("failed", "django_durable.exceptions.StaleReference")
    assert (
        f"testapp.author {author.pk}, which a recorded value refers to, is not in the database"
        in failure_of(run).message
    )


def test_a_composite_key_comes_back(engine: Engine) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        step.run("a", lambda: 1)

    engine.start()
    step = Step.objects.get()

    assert decode(encode(step)) == step


def test_a_map_and_a_branch_return_instances(engine: Engine, author: Author) -> None:
    names: list[str] = []

    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        authors = [*step.map("authors", lambda pk: Author.objects.get(pk=pk), [author.pk])]
        authors += step.parallel(lambda: step.run("author", Author.objects.get, pk=author.pk))
        names.extend(each.name for each in authors)

    engine.start()
    run = engine.advance("1h")

    assert (run.status, names) == ("completed", ["Ada", "Ada"])


def test_a_branch_catches_that_a_row_is_gone(engine: Engine, author: Author) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> Any:
        def look() -> str:
            try:
                step.run("author", Author.objects.get, pk=author.pk)
            except durable.StaleReference:
                return "gone"
            step.sleep("nap", "1h")
            return "there"

        return step.parallel(look)

    engine.start()
    Author.objects.all().delete()
    run = engine.advance("1h")

    assert (run.status, run.output) == ("completed", '{"$":"tuple","v":["gone"]}')
