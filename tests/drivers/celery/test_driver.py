"""The driver that publishes hints through Celery."""

from __future__ import annotations

import threading
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery

from django_durable.drivers.celery.driver import CeleryDriver
from django_durable.exceptions import ConfigurationError


def driver_on(broker: str | None, **configuration: Any) -> CeleryDriver:
    """Return a driver whose Celery app has this broker."""
    driver = CeleryDriver()
    driver.app = Celery("tests", broker=broker, set_as_current=False)
    driver.app.conf.update(configuration)
    return driver


def test_the_default_queue_is_the_one_that_a_plain_worker_consumes() -> None:
    assert driver_on(None).default_queue() == "celery"
    assert driver_on(None, task_default_queue="mail").default_queue() == "mail"


def test_the_setting_queue_wins_over_celerys_default(settings: Any) -> None:
    settings.DURABLE = {"QUEUE": "durable"}

    assert driver_on(None, task_default_queue="mail").default_queue() == "durable"


def test_the_setting_celery_app_names_the_app(settings: Any) -> None:
    settings.DURABLE = {"CELERY_APP": f"{__name__}.named_app"}

    assert CeleryDriver().app is named_app


named_app = Celery("named", set_as_current=False)


def test_a_setting_celery_app_that_names_nothing_is_refused_with_the_remedy(settings: Any) -> None:
    settings.DURABLE = {"CELERY_APP": "nowhere:app"}

    with pytest.raises(ConfigurationError) as refused:
        CeleryDriver()

    assert str(refused.value) == (
        "DURABLE['CELERY_APP']: 'nowhere:app' cannot be imported (No module named 'nowhere'); "
        "name the dotted path of a Celery app"
    )


def test_a_missing_broker_is_reported_with_what_to_start() -> None:
    (found,) = driver_on(None).check()

    assert found.id == "durable.W011"
    assert "manage.py durable dev" in str(found.hint)
    assert "celery -A <project> worker" in str(found.hint)


def test_a_redis_that_could_block_for_ever_is_reported() -> None:
    (found,) = driver_on("redis://127.0.0.1/0").check()

    assert found.id == "durable.W004"
    assert "socket_timeout" in str(found.hint)


@pytest.mark.parametrize(
    ("broker", "options"), [("redis://127.0.0.1/0", {"socket_timeout": 5}), ("amqp://guest@127.0.0.1//", {})]
)
def test_a_broker_that_is_configured_well_is_not_reported(broker: str, options: dict[str, Any]) -> None:
    assert driver_on(broker, broker_transport_options=options).check() == []


@pytest.mark.parametrize("accepted", [["json", "pickle"], ["application/x-python-serialize"]])
@pytest.mark.parametrize("broker", [None, "amqp://guest@127.0.0.1//"])
def test_an_app_that_reads_pickles_is_reported(accepted: list[str], broker: str | None) -> None:
    found = driver_on(broker, accept_content=accepted).check()[-1]

    assert found.id == "durable.W012"
    assert 'accept_content = ["json"]' in str(found.hint)


def test_celerys_own_choice_of_content_is_not_reported() -> None:
    assert "durable.W012" not in [found.id for found in driver_on(None).check()]


@pytest.mark.parametrize("broker", [None, "memory://"])
def test_nothing_is_published_where_nobody_can_receive_it(broker: str | None) -> None:
    before = threading.active_count()

    driver_on(broker).wake("celery", [uuid4()], ingest=True)

    assert threading.active_count() == before
