"""``durable show RUN``: show a run and its steps."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from django.core.management.base import CommandParser

from ..arguments import run_id
from ..documents import error_line, find_run, run_document, step_document
from ..outputs import Output, facts, table

HELP = "Show a run and its steps."


def add_arguments(parser: CommandParser) -> None:
    """Take the run's id."""
    parser.add_argument("run", metavar="RUN", type=run_id, help="The id of the run.")


def run(options: Mapping[str, Any], output: Output) -> None:
    """Print the run and its steps."""
    shown = find_run(options["run"])
    document = run_document(shown)
    document["steps"] = [step_document(step) for step in shown.step_set.in_order()]
    output.write(document, _text(document))


def _text(document: Mapping[str, Any]) -> str:
    head = {name.replace("_", " "): value for name, value in document.items() if name != "steps"}
    head |= {"output": _short(document["output"]), "error": error_line(document["error"])}
    rows = [_row(step) for step in document["steps"]]
    return f"{facts(head)}\n\n{table(['STEP', 'KIND', 'STATUS', 'FAILED ATTEMPTS', 'OUTPUT / ERROR'], rows)}"


def _row(step: Mapping[str, Any]) -> list[object]:
    name = f"{step['id']}#{step['ordinal']}" if step["ordinal"] else step["id"]
    return [name, step["kind"], step["status"], step["attempt"], error_line(step["error"]) or _short(step["output"])]


def _short(value: Any) -> str:
    return "" if value is None else json.dumps(value)
