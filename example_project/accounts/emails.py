"""The e-mails of the example."""

from __future__ import annotations

from django.core.mail import send_mail
from django.template.loader import render_to_string

SUBJECTS = {"welcome": "Welcome to Inkwell", "reminder": "Your first post is waiting"}


def send_email(to: str, *, template: str) -> None:
    """Send the e-mail of that name: its text is ``emails/<template>.txt``."""
    body = render_to_string(f"emails/{template}.txt", {"email": to})
    send_mail(SUBJECTS[template], body, "Inkwell <hello@inkwell.example>", [to])
