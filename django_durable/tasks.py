"""The name that Celery's autodiscovery looks for."""

from .drivers.celery.driver import work_on

__all__ = ["work_on"]
