"""``durable cancel RUN``: cancel a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.core.management.base import CommandError, CommandParser

from ...engine.runs import ending
from ..arguments import run_id
from ..documents import find_run, run_document
from ..outputs import Output

HELP = "Cancel a run and the runs that it waits for."


def add_arguments(parser: CommandParser) -> None:
    """Take the run's id and a reason."""
    parser.add_argument("run", metavar="RUN", type=run_id, help="The id of the run.")
    parser.add_argument("--reason", metavar="TEXT", default="", help="Why; kept as the run's error.")


def run(options: Mapping[str, Any], output: Output) -> None:
    """Cancel the run; refuse if it has ended."""
    cancelled = ending.cancel(options["run"], options["reason"])
    document = run_document(find_run(options["run"]))
    if not cancelled:
        raise CommandError(f"Run {document['id']} had ended already: it is {document['status']}")
    output.write(document, f"Run {document['id']} is cancelled.")
