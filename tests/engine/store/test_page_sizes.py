"""Pages of rows hold as much as fits into memory, whatever senders put into each."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

import django_durable as durable
from django_durable.engine.events import index
from django_durable.engine.steps import wait_for_event
from django_durable.engine.store import page_sizes
from django_durable.engine.store.stores import get_store
from django_durable.models import Event, EventKey, Run
from tests.engine.conftest import Engine


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let ten thousand characters fit; note how many rows each page has."""
    pages: list[int] = []

    def note(rows: object, *columns: str, page: int) -> tuple[list[object], bool]:
        found, more = page_sizes.first_page(rows, *columns, page=page)
        pages.append(len(found))
        return found, more

    def noting(read_page: Callable[..., tuple[Sequence[object], bool]]) -> Callable[..., object]:
        def call(*args: object, **kwargs: object) -> object:
            found, more = read_page(*args, **kwargs)
            pages.append(len(found))
            return found, more

        return call

    monkeypatch.setattr(page_sizes, "MOST", 10_000)
    for module in (wait_for_event, index):
        monkeypatch.setattr(module, "first_page", note)
    store = type(get_store())
    for name in ("open_waits", "stored_under"):
        monkeypatch.setattr(store, name, noting(getattr(store, name)))
    return pages


def send(count: int, size: int) -> None:
    durable.send_events(durable.Event("test/large", {"n": number, "text": "x" * size}) for number in range(count))


@pytest.mark.parametrize(
    ("given", "limit", "expected"),
    [
        ([], 20, (0, False)),
        ([10] * 7, 20, (7, False)),
        ([10] * 8, 20, (8, False)),
        ([10] * 30, 20, (20, True)),
        ([10] * 20, 20, (20, True)),
        ([2_400] * 30, 20, (4, True)),
        ([20_000] * 9, 20, (1, True)),
        ([10] * 10 + [20_000] * 5, 20, (10, True)),
    ],
)
def test_a_page_has_the_rows_that_fit_and_one_at_least(
    engine: Engine, read: list[int], given: list[int], limit: int, expected: tuple[int, bool]
) -> None:
    durable.send_events(durable.Event("test/large", {"text": "x" * size}) for size in given)

    page, more = page_sizes.first_page(Event.objects.order_by("id"), "data", "user", page=limit)

    assert (len(page), more) == expected
    assert page == list(Event.objects.order_by("id")[: len(page)])


def test_a_few_rows_cost_one_query(engine: Engine) -> None:
    send(5, 10)

    with CaptureQueriesContext(connection) as queries:
        page_sizes.first_page(Event.objects.order_by("id"), "data", "user", page=500)

    assert len(queries) == 1


def test_an_event_resolves_waits_of_runs_with_large_triggers_page_by_page(engine: Engine, read: list[int]) -> None:
    @engine.function(trigger="test/large")
    def fn(event: durable.Event, step: durable.Step) -> None:
        step.wait_for_event("wait", "test/go", timeout="1h")

    send(20, 2_400)
    read.clear()
    durable.send_event("test/go")
    engine.settle()

    assert read[:5] == [4, 4, 4, 4, 4]
    assert set(Run.objects.values_list("status", flat=True)) == {"completed"}


@pytest.mark.parametrize("match", [{"if_": "async.data.n > 17"}, {"match": "data.n"}], ids=["read", "indexed"])
def test_a_look_back_at_large_events_reads_them_page_by_page(
    engine: Engine, read: list[int], match: dict[str, str]
) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> int:
        step.sleep("nap", "1h")
        came = step.wait_for_event("wait", "test/large", timeout="1h", **match)  # type: ignore[arg-type]
        assert came is not None
        return int(came.data["n"])

    engine.start({"n": 18})
    send(20, 2_400)
    read.clear()
    run = engine.advance("1h")

    assert run.output == "18"
    assert max(read) <= 4
    assert EventKey.objects.count() == (20 if "match" in match else 0)
