"""The module that Celery's autodiscovery imports."""

from .drivers.celery.task import work_on

__all__ = ["work_on"]
