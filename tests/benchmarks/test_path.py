"""The way of an event through the package's files stays as short as it was measured to be."""

from __future__ import annotations

from functools import partial

import pytest

from benchmarks import path
from tests.engine.conftest import engine, on_postgresql

__all__ = ["engine", "on_postgresql"]


@pytest.mark.needs("postgresql")
@pytest.mark.usefixtures("engine", "on_postgresql")
def test_the_way_of_one_event_and_of_one_step_is_short() -> None:
    path.register()

    one, two = path.way_of(partial(path.send, 1)), path.way_of(partial(path.send, 2))

    assert one.calls <= 318
    assert one.moves <= 195
    assert one.files <= 49
    assert two.calls - one.calls <= 58
    assert two.moves - one.moves <= 29


def test_calls_of_the_package_are_counted_with_the_files_that_they_come_from() -> None:
    way = path.way_of(lambda: path.durable.EventType("shop/order.paid"))

    assert way.calls >= way.functions >= way.files >= 1
    assert way.moves >= 1, "the first call comes from outside"


def test_nothing_of_the_package_is_no_way() -> None:
    assert path.way_of(lambda: sorted([2, 1])) == path.Way(calls=0, functions=0, files=0, moves=0)
