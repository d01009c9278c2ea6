"""The Django project under test, as docs/installation.md sets one up."""

from .celery import app as celery_app

__all__ = ["celery_app"]
