"""What is done to workers, broker and database, in an order that the seed decides."""

from __future__ import annotations

import heapq
import itertools
import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from .fleet import Fleet, Worker
from .servers import Broker, Database

PAUSES = (0.5, 4.0)  #: seconds between two faults
PAUSES_ALONE = (2.0, 7.0)  #: where every fault of a worker stops all work
LONGEST_OUTAGE = 1.5  #: seconds that a server is down


@dataclass(frozen=True)
class Fault:
    """What was done, when, and to which processes."""

    kind: str
    time: float  #: by time.monotonic()
    pids: tuple[int, ...] = ()


class Injector:
    """Does one fault after the other: each kind once, in any order, and so again."""

    def __init__(self, seed: int, fleet: Fleet, broker: Broker | None, database: Database, lease: float) -> None:
        self.faults: list[Fault] = []
        self._chance = random.Random(f"{seed} faults")
        self._fleet, self._broker, self._database, self._lease = fleet, broker, database, lease
        self._kinds: list[Callable[[], None]] = []
        self._later: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    def run(self, ends: float) -> None:
        """Do faults until that moment; then undo what is left of them."""
        pauses = PAUSES if len(self._fleet.workers) > 1 else PAUSES_ALONE
        following = time.monotonic() + pauses[0]
        while (now := time.monotonic()) < ends:
            self._upkeep()
            if not self._ready():
                following = max(following, now + pauses[0])  # let them do something
            elif now >= following:
                self._next()
                following = time.monotonic() + self._chance.uniform(*pauses)
            time.sleep(0.05)
        while self._later:
            self._undo_next()
        self._upkeep()

    def _upkeep(self) -> None:
        while self._later and self._later[0][0] <= time.monotonic():
            self._undo_next()
        self._fleet.reap()
        for _ in range(self._fleet.replace_dead()):
            self._note("worker_died")

    def _undo_next(self) -> None:
        heapq.heappop(self._later)[2]()

    def _ready(self) -> bool:
        """Tell whether enough workers are left to do the work."""
        healthy = sum(each.is_healthy for each in self._fleet.workers)
        return healthy >= min(2, len(self._fleet.workers))

    def _next(self) -> None:
        if not self._kinds:
            self._kinds = self._all()
            self._chance.shuffle(self._kinds)
        self._kinds.pop()()

    def _all(self) -> list[Callable[[], None]]:
        kinds = [self.kill_worker, self.kill_worker, self.stop_worker, self.stop_worker, self.end_worker]
        if any(each.kind == "prefork" for each in self._fleet.workers):
            kinds += [self.kill_process_of_pool, self.stop_process_of_pool]
        if self._broker is not None:
            kinds += [self.flush_broker, self.restart_broker, self.freeze_broker]
        return kinds + [lambda name=name: self._disturb_database(name) for name in self._database.faults]

    def kill_worker(self) -> None:
        """Kill all processes of a worker; another one is started."""
        worker = self._victim()
        self._note("kill_worker", worker.pids())
        worker.process.kill()
        self._fleet.replace(worker)

    def stop_worker(self) -> None:
        """Stop all processes of a worker for longer than a lease."""
        worker = self._victim()
        self._note("stop_worker", worker.pids())
        worker.signal(signal.SIGSTOP)
        worker.stopped = True

        def go_on() -> None:
            worker.signal(signal.SIGCONT)
            worker.stopped = False

        self._do_later(self._longer_than_a_lease(), go_on)

    def end_worker(self) -> None:
        """Tell a worker to end, as a deployment does; another one is started."""
        worker = self._victim()
        self._note("end_worker")
        self._fleet.dismiss(worker)

    def kill_process_of_pool(self) -> None:
        """Kill one process of a prefork pool; its worker starts another one."""
        if pid := self._process_of_pool():
            self._note("kill_process_of_pool", [pid])
            _send(pid, signal.SIGKILL)

    def stop_process_of_pool(self) -> None:
        """Stop one process of a prefork pool for longer than a lease; its worker's scheduler goes on."""
        if pid := self._process_of_pool():
            self._note("stop_process_of_pool", [pid])
            _send(pid, signal.SIGSTOP)
            self._do_later(self._longer_than_a_lease(), lambda: _send(pid, signal.SIGCONT))

    def flush_broker(self) -> None:
        """Delete all messages."""
        assert self._broker is not None
        self._note("flush_broker")
        self._broker.flush()

    def restart_broker(self) -> None:
        """Kill the broker, and start it after a while."""
        assert self._broker is not None
        self._note("restart_broker")
        self._broker.stop()
        time.sleep(self._outage())
        self._broker.start()

    def freeze_broker(self) -> None:
        """Let the broker answer nobody for longer than a lease."""
        assert self._broker is not None
        self._note("freeze_broker")
        self._broker.freeze()
        time.sleep(self._longer_than_a_lease())
        self._broker.thaw()

    def _disturb_database(self, name: str) -> None:
        self._note(name)
        getattr(self._database, name)(self._outage())

    def _victim(self) -> Worker:
        """Return a worker that is at work."""
        return self._chance.choice([each for each in self._fleet.workers if each.is_healthy])

    def _process_of_pool(self) -> int | None:
        pools = [each.pids()[1:] for each in self._fleet.workers if each.kind == "prefork" and each.is_healthy]
        pids = [pid for pool in pools for pid in pool]
        return self._chance.choice(pids) if pids else None

    def _note(self, kind: str, pids: list[int] | None = None) -> None:
        self.faults.append(Fault(kind, time.monotonic(), tuple(pids or ())))

    def _do_later(self, seconds: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._later, (time.monotonic() + seconds, next(self._numbers), action))

    def _outage(self) -> float:
        return self._chance.uniform(0, LONGEST_OUTAGE)

    def _longer_than_a_lease(self) -> float:
        return self._lease + self._chance.uniform(0.5, 2)


def _send(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)
