"""What a process of the project does at the engine's fault points, once for each fault, and written down before."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from django.db import connection

from django_durable.core import fault_points

from .ledger import claim, write, written

LONGEST_HOLD = 60.0  #: seconds


def _signal(number: int) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


def _raise() -> None:
    raise RuntimeError("injected")


def _cut() -> None:
    """Lose the connection to the database."""
    assert connection.connection is not None
    connection.connection.close()


def _hold() -> None:
    ends = time.monotonic() + LONGEST_HOLD
    while not written("go") and time.monotonic() < ends:
        time.sleep(0.01)


ACTIONS: dict[str, Callable[[], None]] = {
    "note": lambda: None,
    "kill": _signal(signal.SIGKILL),
    "stop": _signal(signal.SIGSTOP),
    "soft limit": _signal(signal.SIGUSR1),
    "hold": _hold,
    "exit": lambda: sys.exit("injected"),
    "raise": _raise,
    "cut": _cut,
}


@dataclass(slots=True)
class Fault:
    """Acts where a process passes the point *at* for the *nth* time, in whichever process that happens first."""

    at: str
    action: str
    nth: int = 1
    passed: int = 0

    def pass_by(self, point: str) -> None:
        """Count, and act if it is time to and nobody did."""
        self.passed += point == self.at
        if point == self.at and self.passed == self.nth and claim(f"fault {self.at} {self.action} {self.nth}"):
            write("faults", at=self.at, action=self.action)
            ACTIONS[self.action]()


def arm(faults: Sequence[dict[str, Any]]) -> None:
    """Let these faults happen in this process and its forks."""
    armed = [Fault(**each) for each in faults]
    unknown = {each.at for each in armed if not each.at.startswith("in ")} - set(fault_points.POINTS)
    if unknown:
        raise ValueError(f"the engine has no points {', '.join(sorted(unknown))}")

    def pass_by(point: str) -> None:
        for fault in armed:
            fault.pass_by(point)

    fault_points.inject(pass_by if armed else None)
