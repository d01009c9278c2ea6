"""A Celery worker inside this process."""

from __future__ import annotations

from typing import Any

import pytest

from django_durable.drivers.celery.embedded import embedded_worker


def test_an_embedded_worker_needs_the_driver_that_it_is_part_of(settings: Any) -> None:
    settings.DURABLE = {"DRIVER": "inline"}

    with pytest.raises(TypeError, match="DURABLE\\['DRIVER'\\] = 'celery', not 'inline'"), embedded_worker():
        pass
