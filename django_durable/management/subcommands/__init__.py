"""The sub-commands of ``manage.py durable``, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from django.core.management.base import CommandParser

from ..outputs import Output
from . import dev, export, functions, operations, runs, scheduler, send, show, signal


class SubCommand(Protocol):
    """The names that the module of a sub-command has, or an object in its place."""

    HELP: str

    def add_arguments(self, parser: CommandParser) -> None:
        """Say what the command line may hold."""

    def run(self, options: Mapping[str, Any], output: Output) -> None:
        """Do it; a DurableError or a CommandError ends with exit code 1."""


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
