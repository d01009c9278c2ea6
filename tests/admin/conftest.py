"""People who look at the admin."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client

from django_durable.core.functions import registry
from django_durable.engine.runs import catalog

Staff = Callable[..., Client]


@pytest.fixture
def staff(db: None) -> Staff:
    """Return a function that logs somebody in who has just these permissions of the app."""

    def log_in(*codenames: str) -> Client:
        user = User.objects.create_user("staff", is_staff=True)
        found = Permission.objects.filter(content_type__app_label="django_durable", codename__in=codenames)
        user.user_permissions.set(found)
        assert len(found) == len(codenames)
        client = Client()
        client.force_login(user)
        return client

    return log_in


@pytest.fixture
def empty_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the code without durable functions."""
    monkeypatch.setattr(registry, "_functions", {})
    monkeypatch.setattr(catalog, "_stored", set())
