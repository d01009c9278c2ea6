"""The Django project of the soak: functions that play random programs, and tell what they do."""

from .celery import app as celery_app

__all__ = ["celery_app"]
