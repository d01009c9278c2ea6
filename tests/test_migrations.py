"""The migrations say what the models say."""

from __future__ import annotations

import pytest
from django.core.management import call_command

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("default_auto_field", ["AutoField", "BigAutoField", "SmallAutoField"])
def test_no_migration_is_missing_whatever_the_default_key_of_a_project(settings, default_auto_field: str) -> None:
    settings.DEFAULT_AUTO_FIELD = f"django.db.models.{default_auto_field}"

    call_command("makemigrations", "django_durable", check_changes=True, dry_run=True, verbosity=3)
