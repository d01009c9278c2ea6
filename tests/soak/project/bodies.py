"""The bodies of the soak's steps: each call gets a token, which the ledger and the step's record name.

A line of the ledger is one JSON object, appended in one write, which no death right after it takes back. ``time`` is
``time.monotonic()``, which all processes of a machine share.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import django_durable as durable
from django_durable.core.functions.middleware import StepContext
from django_durable.engine.leases.leases import Lease
from tests.scenarios.programs import RETRIES, Wait, World

from .models import Effect

LENGTHS = [0.0, 0.01, 0.05, 0.25]  #: seconds of most bodies
LONG = {0.01: 3.0, 0.04: 0.4}  #: seconds of a few others, by how probable they or longer ones are
PATIENCE = {"never": "300ms"}  #: how long the waits last whose event never comes; the others last for ever

attempt = ContextVar("attempt", default=0)
_here = threading.local()  #: checked: when this thread last checked a lease, for the body that follows
_latest: dict[str, float] = {}  #: the same for each run: async bodies start in another thread
_random = random.Random()
_check = Lease.check


def _noted_check(lease: Lease) -> None:
    """Check the lease, and note when: a process that is stopped behind this cannot know that it has lost the run."""
    now = time.monotonic()
    _check(lease)
    _here.checked = _latest[str(lease.claim.run_id)] = now


def _checked_here() -> float | None:
    return _here.__dict__.pop("checked", None)


Lease.check = _noted_check  # type: ignore[assignment,method-assign]


def write(kind: str, **values: Any) -> None:
    """Append a line to the ledger."""
    line = json.dumps({"kind": kind, "time": time.monotonic(), "pid": os.getpid(), **values}) + "\n"
    file = os.open(Path(os.environ["SOAK_FOLDER"], "ledger"), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)


class Watch(durable.Middleware):
    """Tells bodies which attempt they are."""

    def around_step(self, context: StepContext) -> AbstractContextManager[Any]:
        """Note the attempt."""
        return _noted_attempt(context.attempt)


@contextmanager
def _noted_attempt(number: int) -> Iterator[None]:
    attempt.set(number)
    yield


@dataclass
class SoakWorld(World):
    """A world whose minutes take a millisecond, and whose bodies tell the ledger."""

    run_id: str = ""
    program: str = ""
    seen: list[str] = field(default_factory=list)  #: what steps have given to the handler, with the calls' tokens

    def body(self, place: str, failures: int) -> str:
        """Take some time; fail in the first attempts; name the place and this call."""
        token = self._start(place, _checked_here())
        time.sleep(_length())
        return self._end(place, failures, token)

    async def async_body(self, place: str, failures: int) -> str:
        """Do the same in the event loop."""
        token = self._start(place, _latest.get(self.run_id))
        await asyncio.sleep(_length())
        return self._end(place, failures, token)

    def atomic_body(self, place: str, failures: int) -> str:
        """Do the same, shortly, and leave a row."""
        token = self._start(place, _checked_here())
        Effect.objects.create(run=self.run_id, place=place, token=token)
        time.sleep(_random.choice(LENGTHS[:-1]))
        return self._end(place, failures, token)

    def _start(self, place: str, checked: float | None) -> str:
        token = secrets.token_hex(4)
        write(
            "start",
            run=self.run_id,
            place=place,
            token=token,
            attempt=attempt.get(),
            checked=checked,
            seen=self.seen[-20:],
        )
        return token

    def _end(self, place: str, failures: int, token: str) -> str:
        fails = failures > RETRIES or attempt.get() <= failures
        write("end", run=self.run_id, place=place, token=token)
        if fails:
            raise ValueError(f"{place}#{token}")
        return f"{place}#{token}"

    def minutes(self, count: int) -> str:
        """Return so many milliseconds."""
        return f"{count}ms"

    def wait_options(self, line: Wait) -> dict[str, Any]:
        """Wait for the events of this program, long enough where one comes."""
        return {"timeout": PATIENCE.get(line.comes, "1h"), "match": "data.program"}

    def event(self, place: str) -> durable.Event:
        """Return an event that tells who sent it."""
        return durable.Event("soak/sent", {"run": self.run_id, "place": place})

    def saw(self, value: Any) -> Any:
        """Note what a body has returned: it is recorded."""
        self.seen += value if isinstance(value, list) else [value]
        return value


def _length() -> float:
    chance = _random.random()
    return next((length for most, length in sorted(LONG.items()) if chance < most), _random.choice(LENGTHS))
