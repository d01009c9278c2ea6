"""The activation email in real workers on real brokers, and in the embedded default."""

from __future__ import annotations

from typing import Any

import pytest

from .conftest import Start
from .workers import Project, Served, until

WELCOME, REMINDER = "send-welcome-email", "send-reminder-email"
USER, STRANGER = 7, 8


@pytest.fixture(
    params=[
        pytest.param("redis", marks=pytest.mark.needs("redis", "postgresql")),
        pytest.param("rabbitmq", marks=pytest.mark.needs("rabbitmq", "postgresql")),
        pytest.param(None, id="embedded"),
    ]
)
def project(request: pytest.FixtureRequest, project_on: Start) -> Project:
    """The project with a worker: ``celery -A project worker`` and nothing else, or the site's own."""
    project = project_on(request.param)
    if request.param:
        project.worker()
    return project


def waiting(site: Served, user: int) -> tuple[str, dict[str, Any]]:
    """Sign a user up; return the event and the run once it waits for the first post."""
    event = site("sign_up", user)
    until(lambda: (site("run_of", event) or {}).get("waiting_kind") == "event", "the run waits for an event")
    return event, site("run_of", event)


def ended(site: Served, event: str) -> dict[str, Any]:
    """Return the run once it has ended."""
    until(lambda: site("run_of", event)["status"] not in ("queued", "running", "waiting"), "the run ends")
    return site("run_of", event)


def test_a_post_in_time_spares_the_reminder(project: Project) -> None:
    site = project.site()
    event, run = waiting(site, USER)

    site("write_post", STRANGER)
    site("write_post", USER)

    assert ended(site, event)["status"] == "completed"
    assert project.bodies(run["id"]) == [WELCOME]


def test_without_a_post_the_reminder_is_sent_once(project: Project) -> None:
    site = project.site()
    event, run = waiting(site, USER)
    site("write_post", STRANGER)

    site("let_time_out", event)

    assert ended(site, event)["status"] == "completed"
    site("write_post", USER)
    site("hint", run["id"])
    other, _ = waiting(site, STRANGER)
    assert project.bodies(run["id"]) == [WELCOME, REMINDER]
    assert site("run_of", other)["status"] == "waiting"
