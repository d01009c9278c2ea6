"""``durable scheduler``: run the scheduler alone, until INT or TERM."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.core.management.base import CommandParser

from ...engine.scheduler import scheduler
from ..outputs import Output
from ..stopping import stop_on_signals

HELP = "Run the scheduler alone. Celery workers have one inside, unless DURABLE['SCHEDULER'] is 'command'."


def add_arguments(parser: CommandParser) -> None:
    """Take nothing."""


def run(options: Mapping[str, Any], output: Output) -> None:
    """Schedule until told to stop."""
    with stop_on_signals() as stop:
        output.write({"ready": True}, "ready: the scheduler runs. Ctrl-C ends it.")
        scheduler.run(stop)
