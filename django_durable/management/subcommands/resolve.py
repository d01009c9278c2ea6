"""``durable resolve RUN STEP JSON``: answer a step that waits, or let it time out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.core.management.base import CommandError, CommandParser

from ...engine.runs import interventions
from ..arguments import json_value, run_id
from ..documents import find_run, run_document
from ..outputs import Output

HELP = "Answer a step that waits for an event or an invoked run, or let it time out."


def add_arguments(parser: CommandParser) -> None:
    """Take the run's id, the step and the answer."""
    parser.add_argument("run", metavar="RUN", type=run_id, help="The id of the run.")
    parser.add_argument("step", metavar="STEP", help="The step's id; id#2 where it is used again.")
    answer = parser.add_mutually_exclusive_group()
    answer.add_argument("data", metavar="JSON", type=json_value, nargs="?", help="The event's data, or the result.")
    answer.add_argument("--time-out", action="store_true", help="Let it time out now instead.")


def run(options: Mapping[str, Any], output: Output) -> None:
    """Settle the step; refuse if it was settled before."""
    run_id, step = options["run"], options["step"]
    if options["time_out"]:
        settled = interventions.time_out_wait(run_id, step)
    else:
        settled = interventions.resolve_wait(run_id, step, options["data"])
    document = run_document(find_run(run_id))
    if not settled:
        raise CommandError(f"Step {step!r} was settled already; run {document['id']} is {document['status']}")
    output.write(document, f"Step {step!r} is settled; run {document['id']} is {document['status']}.")
