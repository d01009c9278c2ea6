"""Columns of hashes, names and payloads."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection, models
from django.test import override_settings

from django_durable.core import clock
from django_durable.fields import PayloadField, PayloadJSONField
from django_durable.models import Event, EventId, Function, MatchPath, Run, Step, StepAttempt

pytestmark = pytest.mark.django_db


class Reversing:
    """A codec that anybody can read backwards."""

    def encode(self, text: str) -> str:
        return text[::-1]

    def decode(self, text: str) -> str:
        if text == "broken":
            raise ValueError("no key")
        return text[::-1]


CODEC = {"DRIVER": "inline", "CODEC": f"{__name__}.Reversing"}


def raw(table: str, column: str) -> Any:
    """Return what the table holds."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {column} FROM django_durable_{table}")
        return cursor.fetchone()[0]


def make_run(**values: Any) -> Run:
    """Store a run that has ended."""
    now = clock.now()
    seen = {"slug": "b", "first_seen": now, "last_seen": now}
    function = Function.objects.get_or_create(id="a/b", defaults=seen)[0]
    return Run.objects.create(function=function, status="completed", created_at=now, finished_at=now, **values)


def make_event(**values: Any) -> Event:
    """Store an event."""
    now = clock.now()
    return Event.objects.create(name="a/b", ts=now, received_at=now, ingest_at=now, **values)


@override_settings(DURABLE=CODEC)
def test_a_text_is_sealed_when_it_is_written_and_opened_when_it_is_read() -> None:
    run = make_run(output="[1,2]")
    assert raw("run", "output") == "codec:]2,1["

    Run.objects.update(output="[3,4]")
    assert raw("run", "output") == "codec:]4,3["

    run.refresh_from_db()
    assert run.output == Run.objects.values_list("output", flat=True).get() == "[3,4]"


@override_settings(DURABLE=CODEC)
def test_a_structure_is_sealed_when_it_is_written_and_opened_when_it_is_read() -> None:
    event = make_event(data={"a": 1})

    assert raw("event", "data") in ('{"$": "codec", "v": "}1:\\"a\\"{"}', {"$": "codec", "v": '}1:"a"{'})
    assert raw("event", '"user"' if connection.vendor != "mysql" else "`user`") is None
    event.refresh_from_db()
    assert (event.data, event.user) == ({"a": 1}, None)


def test_what_cannot_be_opened_is_given_as_it_is_stored() -> None:
    with override_settings(DURABLE=CODEC):
        make_run(output="codec:broken", error="[1]")

        run = Run.objects.get()
        assert (run.output, run.error) == ("codec:broken", "[1]")
    assert Run.objects.get().error == "codec:]1["


@override_settings(DURABLE=CODEC)
def test_the_data_of_events_cannot_be_searched_through_a_codec() -> None:
    make_event(data={"user": 7})

    assert not Event.objects.filter(data__user=7).exists()


def test_every_text_and_structure_of_runs_steps_and_events_is_a_column_of_payloads() -> None:
    others = [
        f"{model.__name__}.{field.name}"
        for model in (Event, Run, Step, StepAttempt)
        for field in model._meta.fields
        if isinstance(field, models.TextField | models.JSONField)
        and not isinstance(field, PayloadField | PayloadJSONField)
    ]

    assert others == []


def test_a_column_is_one_of_djangos_own_for_migrations() -> None:
    assert Run._meta.get_field("output").deconstruct()[1] == "django.db.models.TextField"
    assert Event._meta.get_field("data").deconstruct()[1] == "django.db.models.JSONField"


@pytest.mark.parametrize("name", ["shop/Paid", "shop/paid", "shop/pa\u00efd", "shop/\U0001f600"])
def test_a_name_is_found_as_it_is_written_and_by_no_other_spelling(name: str) -> None:
    for other in ("shop/Paid", "shop/paid", "shop/pa\u00efd", "shop/\U0001f600"):
        MatchPath.objects.create(name=other, path="data.id")

    assert MatchPath.objects.get(name=name).name == name


def test_a_hash_is_found_by_its_bytes_and_read_as_bytes() -> None:
    event = make_event()
    for digest in (b"A" * 16, b"a" * 16, bytes(range(240, 256)), bytes(16)):
        EventId.objects.create(digest=digest, name="a/b", key="7", payload=digest, event=event)

    for digest in (b"A" * 16, b"a" * 16, bytes(range(240, 256)), bytes(16)):
        stored = EventId.objects.get(digest=digest)
        assert (type(stored.payload), stored.payload) == (bytes, digest)


def test_no_hash_is_read_where_none_is_stored() -> None:
    assert make_run(start_key=None).start_key is None
    assert Run.objects.values_list("start_key", flat=True).get() is None
