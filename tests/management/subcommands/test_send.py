"""``durable send``: an event from the command line."""

from __future__ import annotations

import pytest

from django_durable.models import Event, Run
from tests.management.conftest import Durable

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("shop")]


def test_send_prints_the_event_and_starts_functions(durable: Durable) -> None:
    answer = durable("send", "shop/order.paid", '{"seat": "b2"}', "--json")

    event = Event.objects.get()
    assert answer.code == 0
    assert answer.json == {"event": str(event.pk)}
    assert event.data == {"seat": "b2"}
    assert Run.objects.get().event == event


def test_send_prints_the_bare_id_for_people(durable: Durable) -> None:
    assert durable("send", "shop/other", "{}").stdout.strip() == str(Event.objects.get().pk)


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["shop/order.paid", '{"seat": }'], "line 1, column 10"),
        (["shop/order.paid", "[1]"], "is an object"),
        (["shop/order.paid", '{"total": NaN}'], "NaN is not JSON"),
        (["durable/order.paid", "{}"], "reserved"),
        (["", "{}"], "must be text"),
        ([], "NAME"),
    ],
)
def test_send_refuses_what_is_no_event(durable: Durable, arguments: list[str], hint: str) -> None:
    answer = durable("send", *arguments)

    assert answer.code == 2
    assert hint in answer.stderr
    assert not Event.objects.exists()


def test_send_is_refused_for_data_that_cannot_be_stored(durable: Durable) -> None:
    answer = durable("send", "shop/order.paid", '{"name": "\\u0000"}')

    assert answer.code == 1
    assert "NUL" in answer.stderr
