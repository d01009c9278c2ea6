from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from django_durable.core import clock, ids
from django_durable.core.ids import uuid7


def milliseconds(id: uuid.UUID) -> int:
    return id.int >> 80


def test_an_id_is_a_uuid_of_version_7() -> None:
    id = uuid7()

    assert (id.version, id.variant) == (7, uuid.RFC_4122)


def test_an_id_begins_with_the_time_in_milliseconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ids, "_last", 0)  # other tests may have moved time ahead
    before = int(clock.now().timestamp() * 1000)
    id = uuid7()

    assert before <= milliseconds(id) <= int(clock.now().timestamp() * 1000)


def test_ids_follow_one_another_also_within_a_millisecond() -> None:
    made = [uuid7() for _ in range(10_000)]

    assert made == sorted(set(made))
    assert [id.bytes for id in made] == sorted(id.bytes for id in made)
    assert [str(id) for id in made] == sorted(str(id) for id in made)


def test_ids_of_several_threads_differ() -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: uuid7(), range(10_000)))

    assert len(set(made)) == len(made)


def test_ids_go_on_while_the_clock_steps_back(monkeypatch: pytest.MonkeyPatch) -> None:
    before = uuid7()
    monkeypatch.setattr(clock, "shifted_by", timedelta(hours=-1))

    assert uuid7() > before


def test_each_millisecond_counts_from_a_number_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ids, "_last", 0)
    counts = set()
    for seconds in range(10):
        monkeypatch.setattr(clock, "shifted_by", timedelta(seconds=seconds))
        counts.add(uuid7().int >> 48 & 0x3FFF)

    assert len(counts) > 1


def test_ids_of_one_millisecond_end_in_chance() -> None:
    """Two processes that count alike still differ."""
    assert len({uuid7().int & 0xFFFFFFFFFFFF for _ in range(100)}) == 100
