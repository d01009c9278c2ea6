"""``durable wake RUN``: end the sleep of a run now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.core.management.base import CommandError, CommandParser

from ...engine.runs import interventions
from ..arguments import run_id
from ..documents import find_run, run_document
from ..outputs import Output

HELP = "End the sleep of a run now."


def add_arguments(parser: CommandParser) -> None:
    """Take the run's id."""
    parser.add_argument("run", metavar="RUN", type=run_id, help="The id of the run.")


def run(options: Mapping[str, Any], output: Output) -> None:
    """Wake the run; refuse if it does not wait."""
    woken = interventions.wake_run(options["run"])
    document = run_document(find_run(options["run"]))
    if not woken:
        raise CommandError(f"Run {document['id']} does not wait: it is {document['status']}")
    output.write(document, f"Run {document['id']} was woken; it is {document['status']}.")
