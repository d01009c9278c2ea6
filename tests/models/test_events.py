from __future__ import annotations

import pytest
from django.db import IntegrityError, transaction

from django_durable.core import clock
from django_durable.models import Event, EventId, EventKey, MatchPath
from tests.models.rows import make_event

pytestmark = pytest.mark.django_db


def test_events_sort_by_the_moment_of_their_ids_the_newest_first() -> None:
    first, second = make_event(), make_event()

    assert list(Event.objects.all()) == [second, first]


def test_one_event_has_one_key_for_a_path() -> None:
    event = make_event(ingested_at=clock.now())
    path = MatchPath.objects.create(name="shop/paid", path="data.id")
    key = {"path": path, "key": bytes(16), "ingested_at": event.ingested_at, "event": event}
    EventKey.objects.create(**key)

    with pytest.raises(IntegrityError), transaction.atomic():
        EventKey.objects.create(**key)


def test_a_path_is_stored_once_for_a_name() -> None:
    MatchPath.objects.create(name="shop/paid", path="data.id")

    with pytest.raises(IntegrityError), transaction.atomic():
        MatchPath.objects.create(name="shop/paid", path="data.id")
    MatchPath.objects.create(name="shop/*", path="data.id")


def test_what_is_stored_beside_an_event_goes_with_it() -> None:
    event = make_event()
    EventId.objects.create(digest=bytes(16), name="shop/paid", key="7", payload=bytes(16), event=event)
    path = MatchPath.objects.create(name="shop/paid", path="data.id")
    EventKey.objects.create(path=path, key=bytes(16), ingested_at=clock.now(), event=event)

    event.delete()

    assert not EventId.objects.exists()
    assert not EventKey.objects.exists()
