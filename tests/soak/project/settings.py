"""Settings of the soak; the environment names the database and the broker."""

from __future__ import annotations

import os

from tests.databases import settings_of

DATABASES = {"default": settings_of(os.environ["SOAK_DATABASE_URL"])}
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes", "django_durable", "tests.soak.project"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
SECRET_KEY = "soak"
USE_TZ = True

LEASE = 2.0  #: seconds, short, so that many recoveries fit into a minute
DURABLE = {
    "LEASE": LEASE,
    "REHINT": 1.0,
    "TURN_BUDGET": 1.0,
    "MIDDLEWARE": ["tests.soak.project.bodies.Watch"],
}
CELERY_BROKER_URL = os.environ.get("SOAK_BROKER_URL")
if CELERY_BROKER_URL and CELERY_BROKER_URL.startswith("redis"):
    CELERY_BROKER_TRANSPORT_OPTIONS = {"socket_timeout": 5}
