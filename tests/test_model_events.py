from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core import serializers
from django.db import connection, connections, transaction
from django.db.backends.sqlite3.base import DatabaseWrapper
from django.db.models import F
from django.db.models.signals import m2m_changed
from django.dispatch import Signal
from django.test.utils import CaptureQueriesContext

from django_durable import model_events
from django_durable.core.functions import registry
from django_durable.core.functions.functions import function
from django_durable.core.functions.triggers import OnModel, OnSignal, Trigger
from django_durable.exceptions import ConfigurationError, InvalidEvent
from django_durable.models import Event, Run
from tests.testapp.models import Author, Draft, Post, Review, Tag

pytestmark = pytest.mark.django_db(transaction=True)

Data = dict[str, Any]


@pytest.fixture(autouse=True)
def _no_other_functions() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "_functions", {})
        yield
    model_events.connect()


@pytest.fixture
def author() -> Author:
    return Author.objects.create(name="Ann")


@pytest.fixture
def post(author: Author) -> Post:
    return Post.objects.create(author=author, title="Old", views=3)


def start_on(*triggers: Trigger, id: str = "listener") -> None:
    @function(id, trigger=triggers)
    def handler(event: Any, step: Any) -> None:
        """Do nothing: the events are what these tests look at."""

    model_events.connect()


def sent() -> list[tuple[str, Data]]:
    events = Event.objects.filter(source__in=["model", "signal"]).order_by("id")
    return [(event.name, event.data) for event in events]


def sent_data() -> list[Data]:
    return [data for name, data in sent()]


def test_a_created_row_sends_its_key_and_fields(author: Author) -> None:
    start_on(OnModel(Post, "created", fields=["title", "views"]))

    post = Post.objects.create(author=author, title="Hello", views=3)

    assert sent() == [("testapp/post.created", {"id": post.pk, "title": "Hello", "views": 3})]


def test_an_updated_row_sends_its_new_values(post: Post) -> None:
    start_on(OnModel("testapp.Post", "updated", fields=["title"]))

    post.title = "New"
    post.save()

    assert sent() == [("testapp/post.updated", {"id": post.pk, "title": "New"})]


def test_a_deleted_row_sends_its_last_values(post: Post) -> None:
    start_on(OnModel(Post, "deleted", fields=["title"]))
    key = post.pk

    post.delete()

    assert sent() == [("testapp/post.deleted", {"id": key, "title": "Old"})]


def test_rows_deleted_by_a_queryset_or_a_cascade_send_their_values_too(post: Post) -> None:
    start_on(OnModel(Post, "deleted", fields=["title"]))

    Author.objects.all().delete()

    assert sent_data() == [{"id": post.pk, "title": "Old"}]


def test_a_deleted_row_sends_fields_that_its_instance_had_not_loaded(post: Post) -> None:
    start_on(OnModel(Post, "deleted", fields=["title"]))

    Post.objects.only("id").get().delete()

    assert sent_data() == [{"id": post.pk, "title": "Old"}]


def test_a_change_that_no_function_asks_for_sends_nothing(post: Post) -> None:
    start_on(OnModel(Post, "created"))

    post.save()
    post.delete()

    assert sent() == []


def test_an_event_says_that_a_model_sent_it(author: Author) -> None:
    start_on(OnModel(Author, "updated"))

    author.save()

    assert Event.objects.get().source == "model"


def test_a_rolled_back_row_sends_nothing(author: Author) -> None:
    start_on(OnModel(Post, "created"))

    with transaction.atomic():
        Post.objects.create(author=author, title="Hello")
        transaction.set_rollback(True)

    assert sent() == []


def test_an_event_is_stored_in_the_transaction_of_the_save(author: Author) -> None:
    start_on(OnModel(Post, "created"))

    with transaction.atomic():
        Post.objects.create(author=author, title="Hello")
        assert len(sent()) == 1


def test_a_fixture_sends_nothing(author: Author) -> None:
    start_on(OnModel(Author, "created"), OnModel(Author, "updated", changed=["name"]))
    fixture = serializers.serialize("json", [author, Author(pk=author.pk + 1, name="Bob")])

    for loaded in serializers.deserialize("json", fixture.replace("Ann", "Anna")):
        loaded.save()

    assert (Author.objects.count(), sent()) == (2, [])


def test_functions_that_listen_to_the_same_change_share_one_event_with_all_their_fields(author: Author) -> None:
    start_on(OnModel(Post, "created", fields=["title"]), id="one")
    start_on(OnModel(Post, "created", fields=["views", "title"]), id="two")

    post = Post.objects.create(author=author, title="Hello")

    assert sent_data() == [{"id": post.pk, "title": "Hello", "views": 0}]


def test_connecting_twice_sends_once(author: Author) -> None:
    start_on(OnModel(Author, "updated"))
    model_events.connect()

    author.save()

    assert len(sent()) == 1


def test_a_foreign_key_is_sent_as_a_key_under_both_of_its_names(author: Author) -> None:
    start_on(OnModel(Post, "created", fields=["author", "author_id"]))

    Post.objects.create(author=author, title="Hello")

    [data] = sent_data()
    assert (data["author"], data["author_id"]) == (author.pk, author.pk)


def test_times_are_sent_with_their_type(author: Author) -> None:
    start_on(OnModel(Post, "created", fields=["published"]))

    Post.objects.create(author=author, title="Hello", published=datetime(2030, 1, 31, tzinfo=UTC))

    assert sent_data()[0]["published"] == {"$": "datetime", "v": "2030-01-31T00:00:00+00:00"}


def test_a_value_is_sent_as_its_field_stores_it_not_as_it_was_assigned(author: Author) -> None:
    start_on(OnModel(Post, "created", fields=["views"]))

    Post.objects.create(author=author, title="Hello", views="7")

    assert sent_data()[0]["views"] == 7


def test_a_value_that_the_database_computes_is_sent_as_a_number(post: Post) -> None:
    start_on(OnModel(Post, "updated", fields=["views"]))

    post.views = F("views") + 1
    post.save()

    assert sent_data()[0]["views"] == 4


def test_a_generated_field_is_sent_as_the_database_makes_it(post: Post) -> None:
    start_on(OnModel(Post, "updated", fields=["slug"]))

    post.title = "New"
    post.save()

    assert sent_data()[0]["slug"] == "new"


def test_a_field_that_was_not_saved_is_sent_as_its_row_has_it(post: Post) -> None:
    start_on(OnModel(Post, "updated", fields=["title", "views"]))

    post.title, post.views = "New", 99
    post.save(update_fields=["title"])

    assert sent_data() == [{"id": post.pk, "title": "New", "views": 3}]


@pytest.mark.parametrize("cls", [Draft, Review])
def test_a_row_saved_through_a_proxy_or_a_child_counts_as_one_of_the_model(cls: type[Post], author: Author) -> None:
    start_on(OnModel(Post, "created", fields=["title"]))

    post = cls.objects.create(author=author, title="Hello")

    assert sent() == [("testapp/post.created", {"id": post.pk, "title": "Hello"})]


@pytest.mark.parametrize("cls", [Draft, Review])
def test_a_row_deleted_through_a_proxy_or_a_child_is_sent_once(cls: type[Post], author: Author) -> None:
    start_on(OnModel(Post, "deleted"))
    post = cls.objects.create(author=author, title="Hello")
    key = post.pk

    post.delete()

    assert sent() == [("testapp/post.deleted", {"id": key})]


def test_a_row_saved_under_the_model_itself_is_none_of_its_proxy(author: Author) -> None:
    start_on(OnModel(Draft, "created"))

    Post.objects.create(author=author, title="Hello")

    assert sent() == []


def test_a_row_of_a_proxy_is_sent_for_the_model_and_for_the_proxy(author: Author) -> None:
    start_on(OnModel(Post, "created"), OnModel(Draft, "created", fields=["title"]))
    start_on(OnModel(Post, "updated", changed=["views"]), OnModel(Draft, "updated", changed=["title"]), id="changes")

    draft = Draft.objects.create(author=author, title="Hello")
    draft.title = "New"
    draft.save()

    assert sorted(sent()) == [
        ("testapp/draft.created", {"id": draft.pk, "title": "Hello"}),
        ("testapp/draft.updated", {"id": draft.pk, "changed_fields": ["title"]}),
        ("testapp/post.created", {"id": draft.pk}),
    ]


def test_watched_fields_send_only_when_they_changed(post: Post) -> None:
    start_on(OnModel(Post, "updated", changed=["title", "body"]))

    post.views = 4
    post.save()
    assert sent() == []

    post.title = "New"
    post.save()
    assert sent_data() == [{"id": post.pk, "changed_fields": ["title"]}]


def test_a_second_save_of_the_same_value_has_changed_nothing(post: Post) -> None:
    start_on(OnModel(Post, "updated", changed=["title"]))

    post.title = "New"
    post.save()
    post.save()

    assert len(sent()) == 1


def test_a_watched_field_that_is_not_saved_has_not_changed(post: Post) -> None:
    start_on(OnModel(Post, "updated", changed=["title"]))

    post.title = "New"
    post.save(update_fields=["body"])

    assert sent() == []


@pytest.mark.parametrize("saved", ["author", "author_id"])
def test_a_watched_foreign_key_is_recognised_when_saved_by_either_name(saved: str, post: Post) -> None:
    start_on(OnModel(Post, "updated", changed=["author"]))

    post.author = Author.objects.create(name="Bob")
    post.save(update_fields=[saved])

    assert sent_data()[0]["changed_fields"] == ["author"]


def test_the_row_decides_what_changed_not_what_an_instance_was_loaded_with(post: Post) -> None:
    start_on(OnModel(Post, "updated", changed=["title"]))
    Post.objects.update(title="Newer")

    post.refresh_from_db()
    post.save()
    assert sent() == []

    post.title = "Old"
    post.save()
    assert len(sent()) == 1


def test_a_row_saved_by_an_instance_that_never_read_it_shows_what_changed(post: Post) -> None:
    start_on(OnModel(Post, "updated", changed=["title", "views"]))

    Post(pk=post.pk, author_id=post.author_id, title="New", views=3).save()

    assert sent_data()[0]["changed_fields"] == ["title"]


def test_a_column_that_an_instance_did_not_load_has_not_changed(post: Post) -> None:
    start_on(OnModel(Post, "updated", changed=["title"]))

    Post.objects.defer("title").get().save()

    assert sent() == []


def test_a_watched_field_that_the_database_computes_counts_by_its_value(post: Post) -> None:
    start_on(OnModel(Post, "updated", changed=["views"]))

    post.views = F("views") + 0
    post.save()

    assert sent() == []


def reads_of_posts(queries: CaptureQueriesContext) -> list[str]:
    return [query["sql"] for query in queries if query["sql"].startswith("SELECT") and "testapp_post" in query["sql"]]


def test_a_save_that_writes_no_watched_field_reads_no_row(post: Post) -> None:
    start_on(OnModel(Post, "updated", changed=["title"]))

    with CaptureQueriesContext(connection) as queries:
        post.save(update_fields=["views"])

    assert reads_of_posts(queries) == []


def test_values_that_the_instance_has_are_not_read_again(author: Author) -> None:
    start_on(OnModel(Post, "created", fields=["title", "author"]))

    with CaptureQueriesContext(connection) as queries:
        Post.objects.create(author=author, title="Hello")

    assert reads_of_posts(queries) == []


def test_a_function_starts_only_on_changes_of_its_own_fields(post: Post) -> None:
    start_on(OnModel(Post, "updated"), id="every")
    start_on(OnModel(Post, "updated", changed=["title"]), id="titles")
    start_on(OnModel(Post, "updated", changed=["views"], if_="event.data.id > 0"), id="views")
    start_on(OnModel(Post, "updated", changed=["views"], if_="event.data.id < 0"), id="refused")

    post.views = 4
    post.save()

    assert set(Run.objects.values_list("function_id", flat=True)) == {"project/every", "project/views"}


def test_rows_of_another_database_send_when_that_database_commits(other_database: str) -> None:
    start_on(OnModel(Author, "created", fields=["name"]))

    with transaction.atomic(using=other_database):
        Author.objects.using(other_database).create(name="Ann")
        assert sent() == []

    assert [data["name"] for data in sent_data()] == ["Ann"]


def test_rows_rolled_back_in_another_database_send_nothing(other_database: str) -> None:
    start_on(OnModel(Author, "created"))

    with transaction.atomic(using=other_database):
        Author.objects.using(other_database).create(name="Ann")
        transaction.set_rollback(True, using=other_database)

    assert sent() == []


def test_a_signal_about_rows_of_another_database_sends_when_that_database_commits(other_database: str) -> None:
    start_on(OnSignal(m2m_changed, data=lambda sender, **kwargs: {"tags": "changed"}))

    with transaction.atomic(using=other_database):
        m2m_changed.send(Post.tags.through, using=other_database)
        assert sent() == []

    assert sent_data() == [{"tags": "changed"}]


@pytest.fixture
def other_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    settings = connections.settings["default"] | {"ENGINE": "django.db.backends.sqlite3", "OPTIONS": {}}
    connections["other"] = DatabaseWrapper(settings | {"NAME": str(tmp_path / "other.sqlite3")}, "other")
    with connections["other"].schema_editor() as editor:
        editor.create_model(Author)
    # Only now, because Django's test cases do not connect to other databases that the settings name.
    monkeypatch.setitem(connections.settings, "other", settings)
    yield "other"
    connections["other"].close()
    del connections["other"]


def test_a_model_that_is_not_installed_is_refused_with_a_suggestion() -> None:
    with pytest.raises(ConfigurationError) as refused:
        start_on(OnModel("testapp.Pots", "created"))

    assert "'project/listener'" in str(refused.value)
    assert str(refused.value).endswith("did you mean 'testapp.Post'?")


def test_a_user_model_that_the_project_replaced_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(User._meta, "swapped", "accounts.Member")

    with pytest.raises(ConfigurationError, match=r"name 'accounts\.Member'"):
        start_on(OnModel("auth.User", "created"))


@pytest.mark.parametrize("option", ["fields", "changed"])
def test_an_unknown_field_is_refused_with_a_suggestion(option: str) -> None:
    with pytest.raises(ConfigurationError, match=r"OnModel\('testapp\.Post'\): 'titel' .* did you mean 'title'\?"):
        start_on(OnModel(Post, "updated", **{option: ["titel"]}))


def test_a_field_without_a_column_is_refused_with_those_that_have_one() -> None:
    with pytest.raises(ConfigurationError, match=r"'tags' is not a field of the model .*; they are author"):
        start_on(OnModel(Post, "updated", fields=["tags"]))


def test_a_signal_sends_what_its_data_function_makes_of_it() -> None:
    packed = Signal()
    start_on(OnSignal(packed, data=lambda sender, order, **kwargs: {"order": order, "by": sender, "more": [*kwargs]}))

    packed.send("shop", order=7)

    assert sent() == [("signal/project/listener", {"order": 7, "by": "shop", "more": []})]
    assert Event.objects.get().source == "signal"


def test_a_signal_may_have_an_argument_of_any_name() -> None:
    packed = Signal()
    start_on(OnSignal(packed, data=lambda sender, data, function_id, **kwargs: {"order": data + function_id}))

    packed.send("shop", data=7, function_id=1)

    assert sent_data() == [{"order": 8}]


def test_a_data_function_that_returns_none_sends_nothing() -> None:
    packed = Signal()
    start_on(OnSignal(packed, data=lambda sender, **kwargs: None))

    packed.send("shop")

    assert sent() == []


def test_a_data_function_that_returns_no_dictionary_is_refused() -> None:
    packed = Signal()
    start_on(OnSignal(packed, data=lambda sender, **kwargs: 7))  # type: ignore[arg-type, return-value]

    with pytest.raises(InvalidEvent, match="an event's data is a dictionary, not int"):
        packed.send("shop")


def test_a_signal_sends_once_however_often_it_was_connected() -> None:
    packed = Signal()
    start_on(OnSignal(packed, data=lambda sender, **kwargs: {}))
    model_events.connect()

    packed.send("shop")

    assert len(sent()) == 1


def test_two_functions_on_one_signal_have_an_event_each() -> None:
    packed = Signal()
    start_on(OnSignal(packed, data=lambda sender, **kwargs: {"to": 1}), id="one")
    start_on(OnSignal(packed, data=lambda sender, **kwargs: {"to": 2}), id="two")

    packed.send("shop")

    assert sorted(sent()) == [("signal/project/one", {"to": 1}), ("signal/project/two", {"to": 2})]


def test_a_signal_about_rows_sends_in_their_transaction(post: Post) -> None:
    start_on(OnSignal(m2m_changed, data=lambda sender, action, pk_set, **kwargs: {"tags": sorted(pk_set)}))
    tag = Tag.objects.create(word="news")

    with transaction.atomic():
        post.tags.add(tag)
        transaction.set_rollback(True)
    assert sent() == []

    post.tags.add(tag)
    assert sent_data() == [{"tags": [tag.pk]}] * 2  # before and after the change
