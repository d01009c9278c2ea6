"""Pages of a project that encrypts: people see payloads, and a missing key is no error page."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from cryptography.fernet import Fernet
from django.test import Client, override_settings

from django_durable.core.values.errors import encode_error
from django_durable.models import Event, Run, StepAttempt
from tests.admin.conftest import Staff
from tests.admin.rows import make_event, make_run, make_step

pytestmark = pytest.mark.django_db
KEY, OTHER = (Fernet.generate_key().decode() for _ in range(2))
RUNS, EVENTS = "/admin/django_durable/run/", "/admin/django_durable/event/"


def encrypted(key: str) -> override_settings:
    """Return the settings of a project that encrypts with the key."""
    codec = "django_durable.encryption.FernetCodec"
    return override_settings(
        DURABLE={"DRIVER": "inline", "CODEC": codec, "ENCRYPTION_KEYS": [key], "MATCH_KEYS": ["matching"]}
    )


@pytest.fixture
def run() -> Iterator[Run]:
    """Store a run whose payloads are encrypted, and go on with the key."""
    with encrypted(KEY):
        error = encode_error(ValueError("about somebody"))
        run = make_run(
            status="failed", event=make_event(data={"who": "Ada Lovelace"}), error=error, output='{"of":"output"}'
        )
        make_step(run, "charge", output=json.dumps("x" * 5_000), input="charge(1009)")
        StepAttempt.objects.create(
            run=run, number=1, status="failed", error=error, started_at=run.created_at, finished_at=run.created_at
        )
        yield run


def page(client: Client, path: str) -> str:
    """Return a page's text."""
    response = client.get(path)

    assert response.status_code == 200
    return response.content.decode()


def test_the_page_of_a_run_shows_its_payloads_decrypted(staff: Staff, run: Run) -> None:
    text = page(staff("view_run"), f"{RUNS}{run.pk}/change/")

    assert "about somebody" in text
    assert "&quot;of&quot;: &quot;output&quot;" in text
    assert "&quot;who&quot;: &quot;Ada Lovelace&quot;" in text
    assert "charge(1009)" in text


def test_a_long_payload_is_cut_after_it_is_decrypted(staff: Staff, run: Run) -> None:
    text = page(staff("view_run"), f"{RUNS}{run.pk}/change/")

    assert "x" * 3_999 in text
    assert "x" * 4_000 not in text
    assert "1,002" in text or "1002" in text


def test_the_list_of_runs_shows_the_error(staff: Staff, run: Run) -> None:
    assert "ValueError: about somebody" in page(staff("view_run"), RUNS)


def test_the_page_of_an_event_shows_its_data(staff: Staff, run: Run) -> None:
    event = Event.objects.get()

    assert "&quot;who&quot;: &quot;Ada Lovelace&quot;" in page(staff("view_event"), f"{EVENTS}{event.pk}/change/")


@pytest.mark.parametrize("settings_without_the_key", [{"DRIVER": "inline"}, None])
def test_without_the_key_pages_show_what_is_stored(
    staff: Staff, run: Run, settings_without_the_key: dict[str, str] | None
) -> None:
    client, event = staff("view_run", "view_event"), Event.objects.get()

    with override_settings(DURABLE=settings_without_the_key) if settings_without_the_key else encrypted(OTHER):
        texts = [
            page(client, path) for path in (RUNS, f"{RUNS}{run.pk}/change/", EVENTS, f"{EVENTS}{event.pk}/change/")
        ]

    assert "Ada Lovelace" not in "".join(texts)  # with a blank, which no sealed text has
    assert "gAAAA" in texts[1]
    assert "gAAAA" in texts[3]
