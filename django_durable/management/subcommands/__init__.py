"""Which sub-commands does ``manage.py durable`` have?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from django.core.management.base import CommandParser

from ..outputs import Output
from . import dev, export, functions, operations, runs, scheduler, send, show, signal


class SubCommand(Protocol):
    """A sub-command: a module, or an object in its place."""

    HELP: str

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the arguments of the command line."""

    def run(self, options: Mapping[str, Any], output: Output) -> None:
        """Run it; a DurableError or a CommandError ends with exit code 1."""


SUBCOMMANDS: Mapping[str, SubCommand] = {
    "dev": dev,
    "scheduler": scheduler,
    "functions": functions,
    "send": send,
    "signal": signal,
    "runs": runs,
    "show": show,
    **operations.COMMANDS,
    "export": export,
}
