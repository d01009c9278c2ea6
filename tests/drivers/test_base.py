"""Which driver answers the call that wakes a worker."""

from __future__ import annotations

from typing import Any

import pytest

from django_durable.drivers.base import BaseDriver, get_driver
from django_durable.drivers.celery.driver import CeleryDriver
from django_durable.drivers.inline import InlineDriver
from django_durable.exceptions import ConfigurationError


class OwnDriver(BaseDriver):
    """A project's own driver."""


@pytest.mark.parametrize(
    ("name", "kind"), [("celery", CeleryDriver), ("inline", InlineDriver), (f"{__name__}.OwnDriver", OwnDriver)]
)
def test_a_driver_is_named_by_a_word_or_by_its_dotted_path(settings: Any, name: str, kind: type[BaseDriver]) -> None:
    settings.DURABLE = {"DRIVER": name}

    assert type(get_driver()) is kind
    assert get_driver() is get_driver()


def test_a_driver_that_cannot_be_imported_is_refused_with_the_remedy(settings: Any) -> None:
    settings.DURABLE = {"DRIVER": "rabbits"}

    with pytest.raises(ConfigurationError) as refused:
        get_driver()

    assert str(refused.value).startswith("DURABLE['DRIVER']: 'rabbits' cannot be imported")
    assert str(refused.value).endswith("; name 'celery', 'inline' or the dotted path of a driver")


def test_a_driver_of_its_own_needs_nothing_but_a_way_to_wake(settings: Any) -> None:
    settings.DURABLE = {}
    driver = OwnDriver()

    assert driver.default_queue() == "default"
    assert driver.check() == []
    assert not driver.keeps_timers
    driver.flush()
    with pytest.raises(NotImplementedError):
        driver.wake("default")


def test_the_setting_queue_is_the_queue_of_functions_that_name_none(settings: Any) -> None:
    settings.DURABLE = {"QUEUE": "durable"}

    assert OwnDriver().default_queue() == "durable"
