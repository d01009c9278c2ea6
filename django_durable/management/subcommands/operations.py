"""``durable cancel RUN`` and its like: a sub-command for each operation on runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.core.management.base import CommandParser
from django.utils.text import capfirst

from ...engine.runs.operations import OPERATIONS, TIME_OUT, Operation
from ..arguments import json_value, run_id
from ..documents import find_run, run_document
from ..outputs import Output


class OperationCommand:
    """Does an operation to one run; subclasses take the operation's own arguments."""

    def __init__(self, operation: Operation) -> None:
        self.operation = operation
        self.HELP = str(operation.summary)

    def add_arguments(self, parser: CommandParser) -> None:
        """Take the run's id, and the step of an operation on steps."""
        parser.add_argument("run", metavar="RUN", type=run_id, help="The id of the run.")
        if self.operation.takes_step:
            parser.add_argument("step", metavar="STEP", help="The step's id; id#2 where it is used again.")

    def arguments(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of the operation."""
        return {"step": options["step"]} if self.operation.takes_step else {}

    def run(self, options: Mapping[str, Any], output: Output) -> None:
        """Do the operation and print the run, or the new one that a replay starts; refuse if it is too late."""
        shown = self.operation.do_or_raise(options["run"], **self.arguments(options))
        document = run_document(find_run(shown))
        done = capfirst(str(self.operation.done))
        output.write(document, f"{done}. Run {document['id']} is {document['status']}.")


class Cancel(OperationCommand):
    """``durable cancel RUN``: cancel a run."""

    def add_arguments(self, parser: CommandParser) -> None:
        """Take the run's id and a reason."""
        super().add_arguments(parser)
        parser.add_argument("--reason", metavar="TEXT", default="", help="Why; kept as the run's error.")

    def arguments(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the reason."""
        return {"reason": options["reason"]}


class Replay(OperationCommand):
    """``durable replay RUN``: start a new run of the same function, with other data or from a step."""

    def add_arguments(self, parser: CommandParser) -> None:
        """Take the run's id, and how the new run differs."""
        super().add_arguments(parser)
        parser.add_argument("--from-step", metavar="STEP", help="Keep the steps recorded before this one: id, or id#2.")
        parser.add_argument("--data", metavar="JSON", type=json_value, help="Data in place of the data of its event.")
        parser.add_argument("--yes", action="store_true", help="Confirm, where the function asks for a confirmation.")

    def arguments(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return how the new run differs, and the confirmation."""
        return {"from_step": options["from_step"], "data": options["data"], "confirmed": options["yes"]}


class Resolve(OperationCommand):
    """``durable resolve RUN STEP JSON``: answer a step that waits, or let it time out."""

    def add_arguments(self, parser: CommandParser) -> None:
        """Take the run's id, the step and the answer."""
        super().add_arguments(parser)
        answer = parser.add_mutually_exclusive_group()
        answer.add_argument("data", metavar="JSON", type=json_value, nargs="?", help="The event's data, or the result.")
        answer.add_argument("--time-out", action="store_true", help="Let it time out now instead.")

    def arguments(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the step and the answer."""
        return {**super().arguments(options), "data": options["data"]}

    def run(self, options: Mapping[str, Any], output: Output) -> None:
        """Answer the step, or let it time out; refuse if it is settled already."""
        if options["time_out"]:
            OperationCommand(TIME_OUT).run(options, output)
        else:
            super().run(options, output)


_COMMANDS: Mapping[str, type[OperationCommand]] = {"cancel": Cancel, "replay": Replay, "resolve": Resolve}
COMMANDS = {
    operation.name: _COMMANDS.get(operation.name, OperationCommand)(operation)
    for operation in OPERATIONS.values()
    if operation is not TIME_OUT  # It is the option ``--time-out`` of ``resolve``.
}
