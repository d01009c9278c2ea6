"""The sub-commands of ``manage.py durable``, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from django.core.management.base import CommandParser

from ..outputs import Output
from . import cancel, dev, export, functions, replay, resolve, retry, runs, scheduler, send, show, signal, wake


class SubCommand(Protocol):
    """What the module of a sub-command has."""

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
    "cancel": cancel,
    "replay": replay,
    "wake": wake,
    "retry": retry,
    "resolve": resolve,
    "export": export,
}
