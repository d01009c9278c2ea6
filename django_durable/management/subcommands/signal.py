"""``durable signal NAME JSON``: give data to the step that waits for a signal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.core.management.base import CommandError, CommandParser

from ...engine.steps import wait_for_signal
from ..arguments import json_value
from ..outputs import Output

HELP = "Give data to the step that waits for a signal."


def add_arguments(parser: CommandParser) -> None:
    """Take the signal's name and data."""
    parser.add_argument("name", metavar="NAME", help="The signal's name, as the step waits for it.")
    parser.add_argument("data", metavar="JSON", type=json_value, nargs="?", help="The data for the step; null if none.")


def run(options: Mapping[str, Any], output: Output) -> None:
    """Send the signal; refuse if no step waits for it."""
    name = options["name"]
    if not wait_for_signal.send(name, options["data"]):
        raise CommandError(
            f"No run waits for the signal {name!r}: it was sent before, timed out, or is not reached yet"
        )
    output.write({"signal": name}, f"The signal {name!r} was sent.")
