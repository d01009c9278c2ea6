"""``durable runs``: list the latest runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.core.management.base import CommandError, CommandParser

from ...conf import get_settings
from ...core.functions import registry
from ...models import Function, Run, RunStatus
from ..arguments import limit
from ..documents import error_line, run_document
from ..outputs import Output, table

HELP = "List the latest runs, newest first."


def add_arguments(parser: CommandParser) -> None:
    """Take the conditions that narrow the list."""
    parser.add_argument("--status", choices=[status.value for status in RunStatus], help="Only runs of this status.")
    parser.add_argument("--function", metavar="APP/SLUG", help="Only runs of this function.")
    parser.add_argument("--limit", metavar="N", type=limit, default=20, help="At most so many (20).")


def run(options: Mapping[str, Any], output: Output) -> None:
    """Print the runs."""
    runs = Run.objects.using(get_settings().database).order_by("-id")
    if options["status"]:
        runs = runs.filter(status=options["status"])
    if options["function"]:
        runs = runs.filter(function_id=_known(options["function"]))
    documents = [run_document(each) for each in runs[: options["limit"]]]
    rows = [_row(each) for each in documents]
    output.write(documents, table(["RUN", "FUNCTION", "STATUS", "CREATED", "WAITING FOR / ERROR"], rows))


def _known(function_id: str) -> str:
    if registry.get(function_id) or Function.objects.using(get_settings().database).filter(id=function_id).exists():
        return function_id
    raise CommandError(f"There is no function {function_id!r}; 'durable functions' lists them")


def _row(document: Mapping[str, Any]) -> list[object]:
    note = document["waiting_for"] or error_line(document["error"])
    return [document["id"], document["function"], document["status"], document["created_at"][:19], note]
