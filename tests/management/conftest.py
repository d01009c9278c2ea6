"""The command as a person types it, and functions for it to run."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from django.core.management import ManagementUtility

import django_durable
from django_durable.core.events.events import Event
from django_durable.core.functions import registry
from django_durable.core.functions.functions import function
from django_durable.core.functions.steps import Step
from django_durable.engine.runs import catalog
from django_durable.models import Run
from tests.management.processes import DurableProcess


@dataclass(frozen=True)
class Answer:
    """What a command printed, and its exit code."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """The JSON that it printed."""
        return json.loads(self.stdout)


Durable = Callable[..., Answer]


@pytest.fixture
def durable() -> Durable:
    """Return a function that runs ``manage.py durable`` with these arguments in this process."""

    def run(*arguments: object) -> Answer:
        stdout, stderr = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
            code = _exit_code(["manage.py", "durable", *map(str, arguments)])
        return Answer(code, stdout.getvalue(), stderr.getvalue())

    return run


def _exit_code(command: list[str]) -> int:
    try:
        ManagementUtility(command).execute()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@pytest.fixture
def shop() -> Iterator[None]:
    """Put the functions of a shop into the code, and no others."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "_functions", {})
        patch.setattr(catalog, "_stored", set())

        @function("shop/fulfil-order", trigger="shop/order.paid", retries=0)
        def fulfil_order(event: Event, step: Step) -> str:
            seat = step.run("reserve", str.upper, event.data.get("seat", "a1"))
            step.run("charge", _charge, event.data.get("card"))
            step.wait_for_event("packed", "shop/order.packed", timeout="3d")
            return f"seat {seat}"

        yield


def ordered(**data: object) -> Run:
    """Send an order; return the run that it started, which has gone as far as it can."""
    return Run.objects.get(event_id=django_durable.send_event("shop/order.paid", data))


def _charge(card: str | None) -> None:
    if card == "stolen":
        raise ValueError("the card is stolen")


@pytest.fixture
def start(transactional_db: None) -> Iterator[Callable[..., DurableProcess]]:
    """Return a function that starts ``manage.py durable`` as a process of its own."""
    processes: list[DurableProcess] = []

    def start(*arguments: str, **settings: Any) -> DurableProcess:
        processes.append(DurableProcess(*arguments, **settings))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
