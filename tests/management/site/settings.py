"""The settings of the tests, with Celery's driver and no broker; SITE_DURABLE holds further ones as JSON."""

from __future__ import annotations

import json
import os

from tests.settings import *  # noqa: F403
from tests.settings import INSTALLED_APPS

DEBUG = True
DURABLE = {"DRIVER": "celery", **json.loads(os.environ.get("SITE_DURABLE", "{}"))}
INSTALLED_APPS = [*INSTALLED_APPS, "django.contrib.staticfiles", "tests.management.site"]
