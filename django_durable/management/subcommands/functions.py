"""``durable functions``: list the functions of the code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.core.management.base import CommandParser

from ...core.functions import registry
from ..documents import function_document
from ..outputs import Output, table

HELP = "List the functions of the code."


def add_arguments(parser: CommandParser) -> None:
    """Take nothing."""


def run(options: Mapping[str, Any], output: Output) -> None:
    """Print the functions."""
    documents = [function_document(function) for function in registry.functions()]
    rows = [[each["id"], _triggers(each), each["retries"], each["queue"]] for each in documents]
    output.write(documents, table(["FUNCTION", "TRIGGERS", "RETRIES", "QUEUE"], rows))


def _triggers(document: Mapping[str, Any]) -> str:
    return ", ".join(each["event"] for each in document["triggers"])
