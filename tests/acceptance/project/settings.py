"""Settings from the environment: each test names its database and broker, and what it wants to be otherwise.

Servers are shared, so a test also gives its queue, and its keys in Redis, a name of their own.
"""

from __future__ import annotations

import json
import os

from tests.databases import settings_of

DATABASES = {"default": settings_of(os.environ["DURABLE_TEST_DATABASE_URL"])}
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes", "django_durable", "project"]
SECRET_KEY = "tests"
USE_TZ = True

DURABLE = json.loads(os.environ.get("DURABLE_TEST_DURABLE", "{}"))
CELERY_BROKER_URL = os.environ.get("DURABLE_TEST_BROKER_URL")
globals().update({f"CELERY_{name}": value for name, value in json.loads(os.environ["DURABLE_TEST_CELERY"]).items()})
