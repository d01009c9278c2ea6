"""``durable send NAME JSON``: send an event."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.core.management.base import CommandParser

from ...core.events.events import Event
from ...engine.events import sending
from ..arguments import event_name, json_object
from ..outputs import Output

HELP = "Send an event and print its id."


def add_arguments(parser: CommandParser) -> None:
    """Take the event's name and data."""
    parser.add_argument("name", metavar="NAME", type=event_name, help="The event's name, such as app/user.created.")
    parser.add_argument(
        "data", metavar="JSON", type=json_object, nargs="?", default={}, help="The event's data, a JSON object."
    )


def run(options: Mapping[str, Any], output: Output) -> None:
    """Send the event."""
    [event_id] = sending.send([Event(options["name"], options["data"])])
    output.write({"event": event_id}, event_id)
