"""The project's processes as faults meet them: forked in a moment, armed, and looked at; no scheduler but the test's.

Workers run with ``SCHEDULER="command"``: a test's own site sweeps when the test says so, and moves time instead of
waiting for it.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.workers import SECONDS, Served, until
from tests.servers import unique_name

REHINT = 10  #: seconds, the default
HOUR = 3600
ENDED = ("completed", "failed", "cancelled")


class Died(Exception):
    """A process ended while it was asked."""


def fault(at: str, action: str = "kill", nth: int = 1) -> dict[str, Any]:
    """Return what a process does at a point: see tests/acceptance/project/points.py."""
    return {"at": at, "action": action, "nth": nth}


@dataclass
class Forked:
    """A process that the zygote forked, in a session of its own."""

    zygote: Served
    pid: int
    log: Path

    def until_ready(self) -> None:
        """Wait until a worker consumes."""
        until(lambda: " ready." in self.printed() or self.ended() is not None, f"{self.log.name} is ready")
        assert self.ended() is None, self.printed()[-4000:]

    def printed(self) -> str:
        """Return what it printed."""
        return self.log.read_text() if self.log.exists() else ""

    def ended(self) -> int | None:
        """Return its exit status, negative for a signal; None while it runs."""
        status: int | None = self.zygote("ended", self.pid)
        return status

    def signal(self, number: int) -> None:
        """Send a signal to it and its children."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def kill(self) -> None:
        """Kill it and its children, stopped or not."""
        self.signal(signal.SIGKILL)
        self.zygote("end", self.pid)


class Site(Forked):
    """A site that was forked, and answers."""

    seconds = 0.0  #: how long the last call took in there

    def __init__(self, zygote: Served, pid: int, port: int, log: Path) -> None:
        super().__init__(zygote, pid, log)
        self._calls = socket.create_connection(("127.0.0.1", port), timeout=SECONDS)
        self._file = self._calls.makefile("rw")

    def __call__(self, name: str, *arguments: Any, **keywords: Any) -> Any:
        """Call a function of tests/acceptance/project/control.py there; raise Died if it ends instead."""
        try:
            print(json.dumps([name, arguments]), file=self._file, flush=True)
            line = self._file.readline()
        except (BrokenPipeError, ConnectionResetError):
            line = ""
        if not line:
            raise Died(name)
        answer = json.loads(line)
        if "error" in answer:
            pytest.fail(f"{name}(): {answer['error']}", pytrace=False)
        self.seconds = answer["seconds"]
        return answer["value"]

    def kill(self) -> None:
        """Kill it."""
        with suppress(OSError):
            self._file.close()
        self._calls.close()
        super().kill()


@dataclass
class Stage:
    """The project on one database and broker, in the folder of one test; its processes are killed with it."""

    zygote: Served
    folder: Path
    pool: str | None  #: of its workers; None: the site works, too, and nobody else does
    durable: dict[str, Any] = field(default_factory=dict)
    celery: dict[str, Any] = field(default_factory=dict)
    database: dict[str, Any] = field(default_factory=dict)  #: what is different in Django's settings for it
    processes: list[Forked] = field(default_factory=list)
    _site: Site | None = None

    @property
    def site(self) -> Site:
        """The site that the test asks: another one where the last one died."""
        if self._site is None or self._site.ended() is not None:
            self._site = self.start_site()
        return self._site

    def start_site(self, *faults: dict[str, Any]) -> Site:
        """Fork a site; on the embedded stage it works, too, and its scheduler looks by itself."""
        name = self._name("site")
        pid, port = self.zygote("site", name, self.pool is None, self._changes(faults))
        site = Site(self.zygote, pid, port, self.folder / f"{name}.log")
        self.processes.append(site)
        return site

    def work(self, *faults: dict[str, Any], pool: str = "", **changes: Any) -> Forked:
        """Fork a worker with these faults, one run at a time; on the embedded stage that is the site."""
        if self.pool is None:
            self._site = self.start_site(*faults)
            return self._site
        name = self._name("worker")
        options = [f"--pool={pool or self.pool}", *([] if "--concurrency" in changes else ["--concurrency=1"])]
        options += [f"{option}={changes.pop(option)}" for option in list(changes) if option.startswith("--")]
        pid = self.zygote("worker", name, options, self._changes(faults, **changes))
        worker = Forked(self.zygote, pid, self.folder / f"{name}.log")
        self.processes.append(worker)
        worker.until_ready()
        return worker

    def _name(self, kind: str) -> str:
        return unique_name(f"{len(self.processes)}-{kind}")

    def _changes(self, faults: tuple[dict[str, Any], ...], **changes: Any) -> dict[str, Any]:
        durable = {"SCHEDULER": "command"} | self.durable | changes.pop("durable", {})
        defaults = {"folder": str(self.folder), "celery": self.celery, "database": self.database}
        defaults |= {"without": [], "preload": False}
        return {**defaults, "faults": list(faults), "durable": durable, **changes}

    def ledger(self, name: str = "bodies", **wanted: Any) -> list[dict[str, Any]]:
        """Return the lines of a ledger that have these values."""
        file = self.folder / name
        lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
        return [line for line in lines if wanted.items() <= line.items()]

    def until_happened(self, wanted: dict[str, Any]) -> int:
        """Wait until the fault has happened; return in which process."""
        named = {"at": wanted["at"], "action": wanted["action"]}
        line = until(lambda: self.ledger("faults", **named), f"the fault {wanted} happens")[0]
        return int(line["pid"])

    def until_died(self, wanted: dict[str, Any], victim: Forked) -> None:
        """Wait until the process that the fault kills, *victim* or one of its pool, is dead."""
        pid = self.until_happened(wanted)
        if pid == victim.pid:
            until(lambda: victim.ended() is not None, f"process {pid} dies")
            assert victim.ended() == -signal.SIGKILL
        else:
            until(lambda: not is_alive(pid), f"process {pid} of the pool dies")

    def assert_invariants(
        self, outputs: dict[str, Any], before: dict[str, Any] | None = None, most_connections: int | None = None
    ) -> None:
        """Wait until the invariants hold, see :func:`.invariants.violations`."""
        deadline = time.monotonic() + 10
        while violations := self.site("violations", before, outputs, most_connections):
            assert time.monotonic() < deadline, violations
            time.sleep(0.01)

    def say(self, word: str) -> None:
        """Tell bodies that wait for it."""
        (self.folder / word).touch()

    def end(self) -> None:
        """Kill what is left; pytest prints the logs if the test failed."""
        for process in self.processes:
            process.kill()
        for log in sorted(self.folder.glob("*.log")):
            print(f"--- {log.name}", *log.read_text().splitlines()[-60:], sep="\n")


def is_alive(pid: int) -> bool:
    """Tell whether the process runs; a zombie does not."""
    status = Path(f"/proc/{pid}/stat")
    try:
        return status.read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return False


class Tale:
    """A run from its event to its end, driven by the test: time is moved, a reply is sent, schedulers look."""

    def __init__(self, stage: Stage, function: str, event: str, number: int = 1) -> None:
        self.stage, self.function, self.event, self.number = stage, function, event, number

    @property
    def run(self) -> dict[str, Any]:
        """The run as stored now; nothing before it starts."""
        return self.stage.site("run_of", self.event) or {}

    def bodies(self) -> Counter[str]:
        """Return how often the body of each step began."""
        run = self.run
        return Counter(line["step"] for line in self.stage.ledger(run=run["id"])) if run else Counter()

    def until(self, condition: Callable[[dict[str, Any]], object], what: str) -> dict[str, Any]:
        """Let schedulers look until this holds of the run; return it."""

        def holds() -> dict[str, Any] | None:
            self.stage.site("sweep")
            run = self.run
            return run if run and condition(run) else None

        try:
            return until(holds, what, pause=0.03) or {}
        except pytest.fail.Exception as failure:
            pytest.fail(f"{failure}; the run is {self.run}", pytrace=False)

    def finish(self) -> dict[str, Any]:
        """Let it come to its end, whatever it waits for: dead leases, lost hints, time and a reply."""

        def help_on(run: dict[str, Any]) -> bool:
            if run["status"] == "waiting" and run["waiting_kind"] in ("sleep", "retry", "code"):
                self.stage.site("let_pass", HOUR)
            if run["waiting_kind"] == "event" and not replied:
                replied.append(self.stage.site("send", "app/journey.replied", {"journey": self.number}))
            return run["status"] in ENDED

        replied: list[str] = []
        return self.until(help_on, "the run ends")


def lines_of(counts: Counter[str]) -> dict[str, int]:
    """Return the counts as a plain dictionary, for a readable difference."""
    return dict(sorted(counts.items()))
