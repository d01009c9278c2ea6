"""Model instances in steps' values: references that are loaded afresh."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.sessions.models import Session
from django.db import connection, models
from django.db.models.manager import EmptyManager
from django.test.utils import CaptureQueriesContext, isolate_apps
from django.utils.functional import SimpleLazyObject

from django_durable.core.values.encoding import decode, encode, event_data, plain, to_json
from django_durable.exceptions import EncodingError
from tests.testapp.models import Author, Draft, Post, Review


@pytest.fixture
def author(transactional_db: None) -> Author:
    """Store an author."""
    return Author.objects.create(name="Ada")


def back(value: Any) -> Any:
    """Return what a value is when it has been stored."""
    return decode(encode(value, hint=lambda: None))


# The value


def test_an_instance_is_stored_as_model_key_and_database(author: Author) -> None:
    assert to_json(author) == {"$": "model", "m": "testapp.author", "pk": author.pk, "db": "default"}


def test_an_instance_is_loaded_afresh(author: Author) -> None:
    text = encode(author)
    Author.objects.update(name="Grace")

    assert decode(text).name == "Grace"


def test_instances_come_back_wherever_they_lie(author: Author) -> None:
    value = {"a": [author, (author,)], author: {author}}

    assert back(value) == value


@pytest.mark.parametrize("model", [Post, Draft, Review])
def test_proxies_and_models_with_a_parent_come_back_as_what_they_were(author: Author, model: type[Post]) -> None:
    post = model.objects.create(author=author, title="A")

    loaded = back(post)

    assert (type(loaded), loaded.pk) == (model, post.pk)


def test_an_instance_with_deferred_fields_comes_back_with_all(author: Author) -> None:
    loaded = back(Author.objects.only("pk").get())

    assert loaded.get_deferred_fields() == set()


def test_a_lazy_object_comes_back_as_what_it_stands_for(author: Author) -> None:
    assert type(back(SimpleLazyObject(lambda: author))) is Author


def test_keys_of_other_types_come_back(transactional_db: None) -> None:
    session = Session.objects.create(session_key="abc", session_data="", expire_date="2030-01-01T00:00Z")

    assert back(session) == session


@pytest.fixture
def keyed(transactional_db: None) -> Iterator[type[models.Model]]:
    """Give a model whose primary key is a UUID."""
    with isolate_apps("tests.testapp"):

        class Keyed(models.Model):
            id = models.UUIDField(primary_key=True, default=uuid.uuid4)

            class Meta:
                app_label = "testapp"

            def __str__(self) -> str:
                return str(self.id)

        with connection.schema_editor() as editor:
            editor.create_model(Keyed)
        yield Keyed
        with connection.schema_editor() as editor:
            editor.delete_model(Keyed)


def test_a_uuid_goes_through_the_same_encoding(keyed: Any) -> None:
    instance = keyed.objects.create()

    assert to_json(instance)["pk"] == {"$": "uuid", "v": str(instance.pk)}


def test_rows_are_read_past_the_models_own_manager(author: Author, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(Author._meta.__dict__, "default_manager", EmptyManager(Author))

    assert not Author._default_manager.exists()
    assert back(author) == author


def test_loading_takes_one_query(author: Author) -> None:
    text = encode(author)

    with CaptureQueriesContext(
        connection,
    ) as queries:
        decode(text)

    assert len(queries) == 1


def test_people_see_the_reference(author: Author) -> None:
    assert plain(to_json(author)) == {"m": "testapp.author", "pk": author.pk, "db": "default"}


# What is refused


@pytest.mark.parametrize("deleted", [False, True])
def test_an_instance_that_is_not_in_the_database_is_refused_with_its_path(author: Author, deleted: bool) -> None:
    instance = author if deleted else Author(pk=77, name="unsaved")
    if deleted:
        author.delete()

    with pytest.raises(EncodingError) as refused:
        encode([instance])

    assert str(refused.value) == (
        "result[0]: the testapp.author has not been saved. Save it first, or return its values"
    )


def test_a_queryset_is_refused(author: Author) -> None:
    with pytest.raises(EncodingError, match="Return a list of primary keys"):
        encode(Author.objects.all())


def test_an_instance_in_event_data_is_refused_with_the_remedy(author: Author) -> None:
    with pytest.raises(EncodingError) as refused:
        event_data({"author": author})

    assert refused.value.path == 'data["author"]'
    assert "value.pk" in refused.value.remedy


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ('"m":"testapp.gone","pk":1,"db":"default"', "this project has no such model"),
        ('"m":"os.path","pk":1,"db":"default"', "this project has no such model"),
        ('"m":"gone","pk":1,"db":"default"', "this project has no such model"),
        ('"m":"testapp.author","pk":1,"db":"elsewhere"', "is in the unknown database 'elsewhere'"),
        ('"m":"testapp.author","pk":"x","db":"default"', "has no primary keys such as 'x' any more"),
        ('"m":"testapp.author","pk":{"a":1},"db":"default"', "has no primary keys such as {'a': 1} any more"),
        ('"m":"django_durable.run","pk":"x","db":"default"', "has no primary keys such as 'x' any more"),
        ('"m":7,"pk":1,"db":"default"', "this project has no such model"),
        ('"m":"testapp.author","pk":1,"db":["default"]', "is in the unknown database"),
        ('"m":"testapp.author","pk":1', "a reference lacks 'db'"),
        ('"pk":1,"db":"default"', "a reference lacks 'm'"),
    ],
)
def test_a_reference_that_the_project_cannot_follow_is_refused(
    transactional_db: None, fields: str, problem: str
) -> None:
    with pytest.raises(EncodingError) as refused:
        decode(f'{{"$":"model",{fields}}}')

    assert problem in str(refused.value)


def test_an_error_of_the_database_is_passed_on(author: Author) -> None:
    text = encode(author)

    def away(*args: Any) -> None:
        raise ConnectionError("away")

    with connection.execute_wrapper(away), pytest.raises(ConnectionError):
        decode(text)
