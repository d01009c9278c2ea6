"""Which store the engine works with."""

from __future__ import annotations

import pytest
from django.db import connection
from django.test import override_settings

from django_durable.engine.store.stores import get_store


def test_the_database_decides_which_store_works_on_it() -> None:
    name = "PostgreSQLStore" if connection.vendor == "postgresql" else "PortableStore"
    assert type(get_store()).__name__ == name


def test_the_store_is_made_once() -> None:
    assert get_store() is get_store()


@pytest.mark.django_db
def test_another_database_has_a_store_of_its_own(other_database: str) -> None:
    with override_settings(DURABLE={"DATABASE": other_database}):
        store = get_store()
    assert (store.alias, type(store).__name__) == ("other", "PortableStore")
