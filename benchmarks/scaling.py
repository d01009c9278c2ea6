"""What 10, 100 and 1,000 workers would do to one database: a simulation fed with costs that were measured.

    scripts/bench scaling                              measure the costs on this machine
    python -m benchmarks.scaling --server 0.41 …       simulate with these costs, and print the table

A worker thinks (its own processor), asks the database (a queue before its cores), waits for the flush of the log, which
takes all commits that wait for it at once, and for the network, and begins again: a closed queueing network. Every
worker has a core of its own. Not in the model: locks, caches that no longer hold the indexes, and autovacuum.
"""

from __future__ import annotations

import argparse
import heapq
import os
import random
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .figures import Figure, measure

STEPS = 3  #: of a run, as in W1
STATEMENTS = STEPS + 2  #: of a run: its claim, its steps and its end
SECONDS, WARM_UP = 4.0, 1.0  #: that are simulated, and of them not counted
WORKERS, CORES, BODIES = (10, 100, 1_000), (2, 8, 32), (0.0, 100.0)


@dataclass(frozen=True, slots=True)
class Costs:
    """What one statement of a turn costs, in ms."""

    client: float  #: processor time of the worker
    server: float  #: processor time of the database
    flush: float  #: one flush of the log
    network: float  #: there and back


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a simulation saw."""

    steps: float  #: in a second
    busy: float  #: share of the database's processor time
    statement: float  #: ms from asking the database to its answer, mean


@dataclass(slots=True)
class Simulation:
    """A database of *cores*, and workers whose steps take *body* ms of their own."""

    costs: Costs
    workers: int
    cores: int
    body: float
    seed: int
    _clock: float = 0.0
    _events: list[tuple[float, int, str, int]] = field(default_factory=list)
    _queue: deque[int] = field(default_factory=deque)
    _free: int = 0
    _unflushed: list[int] = field(default_factory=list)
    _flushing: list[int] = field(default_factory=list)
    _asked: dict[int, float] = field(default_factory=dict)
    _count: int = 0
    _answered: int = 0
    _busy: float = 0.0
    _waited: float = 0.0

    def run(self) -> Outcome:
        """Simulate, and return what was seen after the warm-up."""
        chance, self._free = random.Random(self.seed), self.cores
        for worker in range(self.workers):
            self._at(chance.uniform(0, self._thinking()), "ask", worker)
        while self._events:
            self._clock, _, kind, worker = heapq.heappop(self._events)
            if self._clock > SECONDS * 1_000:
                break
            getattr(self, f"_{kind}")(worker, chance)
        counted = SECONDS - WARM_UP
        steps = self._answered / counted * STEPS / STATEMENTS
        return Outcome(steps, self._busy / (counted * 1_000 * self.cores), self._waited / max(1, self._answered))

    def _thinking(self) -> float:
        return self.costs.client + self.body * STEPS / STATEMENTS

    def _at(self, moment: float, kind: str, worker: int) -> None:
        self._count += 1
        heapq.heappush(self._events, (moment, self._count, kind, worker))

    def _ask(self, worker: int, chance: random.Random) -> None:
        self._asked[worker] = self._clock
        self._queue.append(worker)
        self._serve(chance)

    def _serve(self, chance: random.Random) -> None:
        while self._free and self._queue:
            self._free -= 1
            needed = chance.expovariate(1 / self.costs.server)
            self._busy += needed if self._is_counted() else 0
            self._at(self._clock + needed, "executed", self._queue.popleft())

    def _executed(self, worker: int, chance: random.Random) -> None:
        self._free += 1
        self._serve(chance)
        self._unflushed.append(worker)
        if not self._flushing:
            self._flush()

    def _flush(self) -> None:
        """Write the log once for all who wait for it."""
        self._flushing, self._unflushed = self._unflushed, []
        self._at(self._clock + self.costs.flush, "flushed", -1)

    def _flushed(self, worker: int, chance: random.Random) -> None:
        for each in self._flushing:
            if self._is_counted():
                self._answered += 1
                self._waited += self._clock + self.costs.network - self._asked[each]
            self._at(self._clock + self.costs.network + chance.expovariate(1 / self._thinking()), "ask", each)
        self._flushing = []
        if self._unflushed:
            self._flush()

    def _is_counted(self) -> bool:
        return self._clock >= WARM_UP * 1_000


def table(costs: Costs, seed: int) -> Iterator[str]:
    """Yield the lines of a table in Markdown: steps/s, the load of the database, and what a statement takes."""
    yield "| workers | a step's own time | " + " | ".join(f"{cores} cores" for cores in CORES) + " |"
    yield "| --- " * (2 + len(CORES)) + "|"
    for body in BODIES:
        for workers in WORKERS:
            outcomes = [Simulation(costs, workers, cores, body, seed).run() for cores in CORES]
            cells = [f"{each.steps:,.0f}/s, {each.busy:.0%}, {each.statement:.1f} ms" for each in outcomes]
            yield f"| {workers:,} | {body:.0f} ms | {' | '.join(cells)} |"


def figures() -> Iterator[Figure]:
    """Measure what a statement of a turn costs the worker and the database, and what a flush takes."""
    from django.db import connection

    if connection.vendor != "postgresql":
        return
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        stat = Path(f"/proc/{cursor.fetchone()[0]}/stat")
    if not stat.exists():  # the server is on another machine, or this is not Linux
        return
    _register()
    yield measure("a step's statement: the worker's processor time", "ms", lambda: _cost(None))
    yield measure("a step's statement: the database's processor time", "ms", lambda: _cost(stat))
    yield measure("a flush of the log", "ms", _flush_time)


def _register() -> None:
    import django_durable as durable

    @durable.function("costly", trigger="bench/costly")
    def costly(event: durable.Event, step: durable.Step) -> None:
        for number in range(1_000):
            step.run(f"step-{number}", int)


def _cost(stat: Path | None) -> float:
    """Return the processor time of each of 1,000 steps, in ms: this process's, or the one's that *stat* tells of."""
    import django_durable as durable

    before = _cpu(stat)
    durable.send_event("bench/costly")
    return _cpu(stat) - before


def _cpu(stat: Path | None) -> float:
    if stat is None:
        return time.process_time()
    used: Any = stat.read_text().rpartition(")")[2].split()[11:13]
    return sum(map(int, used)) / os.sysconf("SC_CLK_TCK")


def _flush_time() -> float:
    """Return what a commit that waits for the disk takes longer than one that does not, in ms."""
    from django.db import connection

    elapsed = {}
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE IF NOT EXISTS flushed (n int)")
        for waits in ("on", "off"):
            cursor.execute(f"SET synchronous_commit = {waits}")
            started = time.perf_counter()
            for number in range(500):
                cursor.execute("INSERT INTO flushed VALUES (%s)", [number])
            elapsed[waits] = time.perf_counter() - started
        cursor.execute("RESET synchronous_commit")
    return (elapsed["on"] - elapsed["off"]) / 500 * 1_000


def main() -> None:
    """Simulate with the costs that are given."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description="Simulate many workers.")
    for name, default in (("client", 0.45), ("server", 0.41), ("flush", 1.0), ("network", 0.2)):
        parser.add_argument(f"--{name}", type=float, default=default, help=f"ms of each statement ({default})")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    costs = Costs(options.client, options.server, options.flush, options.network)
    print(*table(costs, options.seed), sep="\n")


if __name__ == "__main__":
    main()
