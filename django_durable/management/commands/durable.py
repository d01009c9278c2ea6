"""``manage.py durable``: run, look at and manage durable functions, with a sub-command for each task."""

from __future__ import annotations

import argparse
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError

from ...exceptions import DurableError
from ..outputs import Output
from ..subcommands import SUBCOMMANDS

_EVERYWHERE: dict[str, dict[str, Any]] = {
    "--settings": {},
    "--pythonpath": {},
    "--traceback": {"action": "store_true"},
    "--no-color": {"action": "store_true"},
}


class Command(BaseCommand):
    """Hand over to a sub-command. Exit codes: 0 done, 1 not found or refused, 2 wrong usage."""

    help = "Run, look at and manage durable functions."
    # "manage.py check" runs the checks; one would advise "durable dev" to run "durable dev".
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        """Add a parser for each sub-command."""
        subparsers = parser.add_subparsers(dest="subcommand", required=True, metavar="SUBCOMMAND")
        for name, module in SUBCOMMANDS.items():
            subparser = subparsers.add_parser(name, help=_first_sentence(module.HELP), description=module.HELP)
            subparser.add_argument("--json", action="store_true", help="Print JSON.")
            for option, settings in _EVERYWHERE.items():
                # Django has read these options already; the sub-command only lets them stand behind its name too.
                subparser.add_argument(option, default=argparse.SUPPRESS, help=argparse.SUPPRESS, **settings)
            module.add_arguments(subparser)

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the chosen sub-command."""
        module, output = SUBCOMMANDS[options["subcommand"]], Output(self.stdout, options["json"])
        if options["json"]:
            # Messages of Django itself must not stand between lines of JSON.
            self.stdout = self.stderr
        if options["subcommand"] in ("dev", "scheduler"):
            self.check_migrations()
        try:
            module.run(options, output)
        except DurableError as error:
            raise CommandError(str(error)) from error
        except DatabaseError as error:
            raise CommandError(f"The database refuses: {error}. Was 'manage.py migrate' run?") from error


def _first_sentence(text: str) -> str:
    return f"{text.partition('. ')[0].rstrip('.')}."
