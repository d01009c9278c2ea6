"""``durable export RUN``: print the history of a run, for tests against new code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from django.core.management.base import CommandParser

from ...engine.runs import histories
from ..arguments import run_id
from ..outputs import Output

HELP = "Print the history of a run as JSON, for tests that replay it against new code."


def add_arguments(parser: CommandParser) -> None:
    """Take the run's id."""
    parser.add_argument("run", metavar="RUN", type=run_id, help="The id of the run.")


def run(options: Mapping[str, Any], output: Output) -> None:
    """Print the history: on several lines for people and files, on one with ``--json``."""
    history = histories.export(options["run"])
    output.write(history, json.dumps(history, indent=2))
