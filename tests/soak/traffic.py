"""Sends the events of random programs, keeps enough of them under way, and watches runs that have ended."""

from __future__ import annotations

import heapq
import itertools
import random
import threading
import time
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.db import DatabaseError, InterfaceError, connections, transaction

import django_durable as durable
from django_durable.models import ENDED, Run
from tests.scenarios.programs import Lines, waits

from .programs import random_program, written

AT_ONCE = 24  #: programs under way
LATEST = 3.0  #: seconds after which the event of a wait comes
TICK = 0.1  #: seconds
PROGRAMS = ("plain", "async")


class RolledBack(Exception):
    """Rolls a transaction back."""


@dataclass
class Traffic(threading.Thread):
    """Sends until it is told to stop starting programs, and then what those under way wait for."""

    seed: int
    programs: dict[str, Lines] = field(default_factory=dict)  #: by their names, as sent
    sent: dict[str, str] = field(default_factory=dict)  #: idempotency keys of committed events, and the events' ids
    phantoms: int = 0  #: events whose transactions were rolled back
    ended: dict[UUID, tuple[Any, ...]] = field(default_factory=dict)  #: runs, as they were first seen to have ended
    changed: set[UUID] = field(default_factory=set)  #: runs that were seen to differ afterwards
    errors: int = 0  #: how often the database could not be reached
    slowest: float = 0.0  #: seconds that a send took

    def __post_init__(self) -> None:
        super().__init__(name="traffic", daemon=True)
        self._chance = random.Random(f"{self.seed} programs")
        self._due: list[tuple[float, int, list[durable.Event]]] = []
        self._numbers = itertools.count()
        self._enough, self._quit = threading.Event(), threading.Event()

    def __hash__(self) -> int:
        return id(self)

    def run(self) -> None:
        """Send what is due; what the database did not take is sent again, under its key."""
        while not self._quit.wait(TICK):
            try:
                self._tick()
            except (DatabaseError, InterfaceError):
                self.errors += 1
                connections.close_all()
        connections.close_all()

    def finish(self) -> None:
        """Start no more programs."""
        self._enough.set()

    def stop(self) -> None:
        """End the thread."""
        self._quit.set()
        self.join()

    @property
    def is_done(self) -> bool:
        """Whether everything was sent."""
        return self._enough.is_set() and not self._due

    def _tick(self) -> None:
        while self._due and self._due[0][0] <= time.monotonic():
            self._send(self._due[0][2])
            heapq.heappop(self._due)
        self._watch()
        under_way = len(self.programs) - sum(each[0] in _program_ids() for each in self.ended.values())
        while under_way < AT_ONCE and not self._enough.is_set():
            self._start()
            under_way += 1
        if self._chance.random() < 0.1:
            self._send_in_vain()

    def _start(self) -> None:
        """Plan the events of another program; its start, and what is to come early, go in one transaction."""
        number, lines = len(self.programs), random_program(self._chance)
        name, now = f"{self.seed}-{number}", time.monotonic()
        data = {"program": name, "lines": written(lines)}
        first = [durable.Event(f"soak/{self._chance.choice(PROGRAMS)}", data, id=name)]
        for place, comes in waits(lines).items():
            answer = durable.Event(f"test/{place}", {"program": name, "place": place}, id=name)
            if comes == "early":
                first.append(answer)
            elif comes == "in time":
                self._plan(now + self._chance.uniform(0, LATEST), [answer])
        self._plan(now, first)
        self.programs[name] = lines

    def _plan(self, moment: float, events: list[durable.Event]) -> None:
        heapq.heappush(self._due, (moment, next(self._numbers), events))

    def _send(self, events: list[durable.Event]) -> None:
        began = time.monotonic()
        ids = durable.send_events(events)
        self.slowest = max(self.slowest, time.monotonic() - began)
        self.sent |= {f"{event.name} {event.id}": id for event, id in zip(events, ids, strict=True)}

    def _send_in_vain(self) -> None:
        self.phantoms += 1
        try:
            with transaction.atomic():
                durable.send_event("soak/phantom", {"number": self.phantoms})
                raise RolledBack
        except RolledBack:
            pass

    def _watch(self) -> None:
        """Compare runs that have ended with what they were."""
        rows = Run.objects.filter(status__in=ENDED).values_list("id", "function_id", "status", "finished_at", "output")
        for id, *row in rows:
            if self.ended.setdefault(id, tuple(row)) != tuple(row):
                self.changed.add(id)


def _program_ids() -> set[str]:
    return {f"project/{name}" for name in PROGRAMS}
