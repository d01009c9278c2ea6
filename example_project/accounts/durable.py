"""What happens after a sign-up: a welcome, and a reminder for those who write nothing."""

from __future__ import annotations

from django.conf import settings

import django_durable as durable
from django_durable import Event, Step

from .emails import send_email


@durable.function("activation-email", trigger="app/user.created")
def activation_email(event: Event, step: Step) -> None:
    """Welcome a new user, and remind them if they write no post in time."""
    email = event.user["email"]
    step.run("send-welcome-email", send_email, email, template="welcome")

    post = step.wait_for_event(
        "wait-for-post-creation",
        event="app/post.created",
        match="data.user.id",
        timeout=settings.ACTIVATION_WAIT,
    )
    if post is None:
        step.run("send-reminder-email", send_email, email, template="reminder")
