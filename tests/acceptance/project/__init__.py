"""A small Django project with durable functions, for workers in processes of their own."""

from .celery import app as celery_app

__all__ = ["celery_app"]
