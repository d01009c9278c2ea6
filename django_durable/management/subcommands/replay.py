"""``durable replay RUN``: run a run's function again, with the same trigger or other data, from the start or a step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.core.management.base import CommandParser

from ...engine.runs import replays
from ..arguments import json_value, run_id
from ..documents import find_run, run_document
from ..outputs import Output

HELP = "Start a new run of the same function with the same trigger, and print it."


def add_arguments(parser: CommandParser) -> None:
    """Take the run's id, and how the new run differs."""
    parser.add_argument("run", metavar="RUN", type=run_id, help="The id of the run to replay.")
    parser.add_argument("--from-step", metavar="STEP", help="Keep what was recorded before this step: id, or id#2.")
    parser.add_argument("--data", metavar="JSON", type=json_value, help="The event's data, in place of the old run's.")
    parser.add_argument("--yes", action="store_true", help="Confirm, where the function asks for a confirmation.")


def run(options: Mapping[str, Any], output: Output) -> None:
    """Replay the run."""
    new_id = replays.replay(
        options["run"], data=options["data"], from_step=options["from_step"], confirmed=options["yes"]
    )
    document = run_document(find_run(new_id))
    output.write(document, f"Run {document['id']} replays it.")
