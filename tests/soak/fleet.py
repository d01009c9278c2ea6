"""The workers of a soak: real ones, of every pool, which are killed and replaced."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.acceptance.workers import REPOSITORY, Process, until

POOLS = {
    "prefork": ["--pool=prefork", "--concurrency=2"],
    "threads": ["--pool=threads", "--concurrency=4"],
    "solo": ["--pool=solo"],
}
PATIENCE = 15.0  #: seconds that a worker has to end when it is told to; the longest body takes three
START_SECONDS = 60.0


@dataclass
class Worker:
    """A place for a worker of one kind, and the process that fills it."""

    kind: str
    process: Process
    stopped: bool = False

    @property
    def is_healthy(self) -> bool:
        """Whether it runs and is ready to work."""
        return not self.stopped and not self.is_dead and " ready." in self.process.log.read_text(errors="replace")

    @property
    def is_dead(self) -> bool:
        """Whether its main process has ended."""
        return self.process.process.poll() is not None

    def pids(self) -> list[int]:
        """Return its processes, the main one first."""
        main = self.process.process.pid
        return sorted((pid for pid in _pids() if _group_of(pid) == main), key=lambda pid: (pid != main, pid))

    def signal(self, number: int) -> None:
        """Send a signal to all its processes."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.process.pid, number)


@dataclass
class Fleet:
    """All workers, and those that were told to end."""

    folder: Path
    workers: list[Worker] = field(default_factory=list)
    leaving: list[tuple[float, Process]] = field(default_factory=list)
    started: int = 0

    def start(self, kinds: list[str]) -> None:
        """Start a worker of each kind; wait until all are ready."""
        self.workers = [Worker(kind, self._process(kind)) for kind in kinds]
        self.wait()

    def wait(self) -> None:
        """Wait until all are ready."""
        until(lambda: all(each.is_healthy for each in self.workers), "all workers are ready", START_SECONDS, 0.1)

    def replace(self, worker: Worker) -> None:
        """Start another process in the place of one that was killed or is ending."""
        worker.process, worker.stopped = self._process(worker.kind), False

    def replace_dead(self) -> int:
        """Replace workers that died without a fault; return how many."""
        dead = [each for each in self.workers if each.is_dead]
        for each in dead:
            self.replace(each)
        return len(dead)

    def dismiss(self, worker: Worker) -> None:
        """Tell a worker to end, and start another one in its place."""
        worker.process.terminate()
        self.leaving.append((time.monotonic() + PATIENCE, worker.process))
        self.replace(worker)

    def reap(self) -> None:
        """Kill those that were told to end and took too long."""
        now = time.monotonic()
        for due, process in [*self.leaving]:
            if process.process.poll() is not None or due < now:
                process.kill()
                self.leaving.remove((due, process))

    def end(self) -> None:
        """Kill them all."""
        for process in [*(each.process for each in self.workers), *(process for _, process in self.leaving)]:
            with suppress(ProcessLookupError):
                os.killpg(process.process.pid, signal.SIGCONT)
            process.kill()

    def _process(self, kind: str) -> Process:
        self.started += 1
        name = f"{self.started:03}-{kind}"
        command = [sys.executable, "-m", "tests.soak.project.embedded"]
        if kind in POOLS:
            command = [sys.executable, "-m", "celery", "-A", "tests.soak.project", "worker", "--loglevel=INFO"]
            command += [f"--hostname={name}@%h", *POOLS[kind]]
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1"}
        return Process(command, environment, self.folder / f"{name}.log")


def _pids() -> list[int]:
    """Return all processes of this machine; a bare Linux has no ``ps``."""
    folder = Path("/proc")
    if not Path(folder, "self").exists():
        answer = subprocess.run(["ps", "-axo", "pid="], capture_output=True, text=True, check=True)
        return [int(line) for line in answer.stdout.split()]
    return [int(each.name) for each in folder.iterdir() if each.name.isdigit()]


def _group_of(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except (ProcessLookupError, PermissionError):
        return None
