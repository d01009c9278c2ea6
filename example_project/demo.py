"""Start the example: database, admin user, site, worker and scheduler in one process. ``scripts/demo`` runs this."""

from __future__ import annotations

import argparse
import errno
import os
import socket
import sys

import django
from django.core.management import call_command

from django_durable.core.durations import parse_wait
from django_durable.exceptions import InvalidDuration

HOST = "127.0.0.1"
TRY_THIS = """
Try this:
  1. Sign up at {site}/ and find the welcome e-mail below.
  2. Wait {wait}: the reminder follows, because there is no post.
  3. Sign up again and write a post in time at {site}/posts/: no reminder.
  4. Look inside at {site}/admin/ (user admin, password admin).
  5. Press Ctrl-C while a run waits, and start again: it goes on.
"""


def main() -> None:
    """Read the command line, prepare the database and serve until INT or TERM."""
    options = parser().parse_args()
    refuse_taken_port(options.port)
    os.environ |= {"DJANGO_SETTINGS_MODULE": "config.settings", "ACTIVATION_WAIT": options.wait}
    django.setup()
    call_command("migrate", verbosity=0)
    create_admin()
    print(TRY_THIS.format(site=f"http://{HOST}:{options.port}", wait=options.wait))
    call_command("durable", "dev", f"{HOST}:{options.port}")


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(prog="scripts/demo", description="Start the example project.", allow_abbrev=False)
    parser.add_argument("--port", type=port, default=8000, metavar="N", help="where the site listens (8000)")
    parser.add_argument(
        "--wait", type=wait, default="20s", metavar="20s", help="how long a new user has for a first post (20s)"
    )
    return parser


def port(text: str) -> int:
    """Return the number of a port; argparse shows the error."""
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: give a number from 1 to 65535")
    return int(text)


def wait(text: str) -> str:
    """Return a duration as it was written, if it can be waited for; argparse shows the error."""
    try:
        duration = parse_wait(text)
    except InvalidDuration as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    if duration.total_seconds() <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} leaves no time for a post: give a duration above 0, such as 20s")
    return text


def refuse_taken_port(number: int) -> None:
    """End here where the site could not listen."""
    with socket.socket() as listener:
        # As the server does, so that connections that have just ended do not count.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, number))
        except OSError as error:
            taken = error.errno == errno.EADDRINUSE
            reason = "is taken" if taken else f"cannot be used ({error.strerror})"
            sys.exit(f"Port {number} {reason}. Choose another one: scripts/demo --port {number % 65535 + 1}")


def create_admin() -> None:
    """Create the user admin with the password admin, unless there is one."""
    from django.contrib.auth.models import User

    if not User.objects.filter(username="admin").exists():
        User.objects.create_superuser("admin", "admin@inkwell.example", "admin")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
