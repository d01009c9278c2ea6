"""The project of the acceptance tests in real processes: workers, a site that sends events, and what they left."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.servers import unique_name

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
SECONDS = 30.0  #: a machine that runs everything at once may be slow

T = TypeVar("T")


def until(condition: Callable[[], T], what: str, seconds: float = SECONDS, pause: float = 0.01) -> T:
    """Wait until the condition holds, and return its value; fail after a deadline."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"After {seconds:g} s in vain: {what}", pytrace=False)
        time.sleep(pause)
    return value


class Process:
    """A process of the project, in a session of its own; what it prints goes to its log."""

    def __init__(self, command: list[str], environment: dict[str, str], log: Path, *, piped: bool = False) -> None:
        self.log = log
        pipe = subprocess.PIPE if piped else subprocess.DEVNULL
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                command,
                cwd=HERE,
                env=environment,
                stdin=pipe,
                stdout=pipe if piped else output,
                stderr=output,
                start_new_session=True,
            )

    def until_printed(self, text: str) -> None:
        """Wait until the log holds the text."""
        until(lambda: text in self.log.read_text() or self.process.poll() is not None, f"{self.log.name}: {text!r}")
        printed = self.log.read_text()
        assert text in printed, f"{self.log.name} ended with status {self.process.returncode}:\n{printed[-4000:]}"

    def terminate(self) -> None:
        """Ask the process to end, as a service manager does."""
        self.process.send_signal(signal.SIGTERM)

    def ended(self, seconds: float = SECONDS) -> int:
        """Wait for its end; return the exit status."""
        return self.process.wait(seconds)

    def kill(self) -> None:
        """Kill it and its children."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


class Served(Process):
    """A process that calls functions of a module of the project when it is told to."""

    seconds = 0.0  #: how long the last call took in there

    def __call__(self, name: str, *arguments: Any) -> Any:
        """Call a function there; return its value."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{json.dumps([name, arguments])}\n".encode())
        self.process.stdin.flush()
        if not select.select([self.process.stdout], [], [], SECONDS)[0]:
            pytest.fail(f"{name}() did not return within {SECONDS:g} s", pytrace=False)
        line = self.process.stdout.readline()
        answer = json.loads(line) if line else {"error": self.log.read_text()}
        if "error" in answer:
            pytest.fail(f"{name}(): {answer['error']}", pytrace=False)
        self.seconds = answer["seconds"]
        return answer["value"]

    def close(self) -> float:
        """Let the process come to its end; return how many seconds that took."""
        assert self.process.stdin is not None
        began = time.monotonic()
        self.process.stdin.close()
        assert self.process.wait(SECONDS) == 0
        return time.monotonic() - began


@dataclass
class Project:
    """The project on one database and one broker (None: the embedded default), with a folder for what happens."""

    folder: Path
    database_url: str
    broker_url: str | None
    queue: str
    durable: dict[str, Any] = field(default_factory=dict)
    celery: dict[str, Any] = field(default_factory=dict)
    processes: list[Process] = field(default_factory=list)

    def worker(self, *options: str, ready: bool = True) -> Process:
        """Start ``celery -A project worker`` with these options besides; wait until it is ready to work."""
        # RabbitMQ refuses a second worker of one name, and other tests run theirs at the same time.
        name = f"--hostname={unique_name('worker')}@%h"
        command = [sys.executable, "-m", "celery", "-A", "project", "worker", "--loglevel=INFO", name, *options]
        worker = self._start(Process(command, self.environment, self._log("worker")))
        if ready:
            worker.until_printed(" ready.")
        return worker

    def serve(self, module: str, *options: str) -> Served:
        """Start a process that answers calls of the module's functions."""
        command = [sys.executable, "-m", "project.serve", module, *options]
        served = Served(command, self.environment, self._log(module), piped=True)
        self._start(served)
        return served

    def site(self) -> Served:
        """Start the site; with no broker, it works, too."""
        return self.serve("site", *([] if self.broker_url else ["--embedded"]))

    @property
    def environment(self) -> dict[str, str]:
        """What the processes are told."""
        own = {name: value for name, value in os.environ.items() if not name.startswith(("CELERY_", "DURABLE_"))}
        own |= {
            "DJANGO_SETTINGS_MODULE": "project.settings",
            "PYTHONPATH": str(REPOSITORY),
            "PYTHONDONTWRITEBYTECODE": "1",
            "DURABLE_TEST_DATABASE_URL": self.database_url,
            "DURABLE_TEST_FOLDER": str(self.folder),
            "DURABLE_TEST_DURABLE": json.dumps(self.durable),
            "DURABLE_TEST_CELERY": json.dumps(self._names_of_its_own | self.celery),
        }
        return own | ({"DURABLE_TEST_BROKER_URL": self.broker_url} if self.broker_url else {})

    @property
    def _names_of_its_own(self) -> dict[str, Any]:
        names: dict[str, Any] = {"TASK_DEFAULT_QUEUE": self.queue}
        if self.broker_url and self.broker_url.startswith("redis"):
            names["BROKER_TRANSPORT_OPTIONS"] = {"global_keyprefix": f"{self.queue}:"}
        return names

    def ledger(self, name: str = "bodies", **wanted: Any) -> list[dict[str, Any]]:
        """Return the lines of a ledger that have these values."""
        file = self.folder / name
        lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
        return [line for line in lines if wanted.items() <= line.items()]

    def bodies(self, run_id: str) -> list[Any]:
        """Return the steps whose bodies ran, in order."""
        return [line["step"] for line in self.ledger(run=run_id)]

    def logs(self) -> Iterator[str]:
        """Return the end of what each process printed."""
        for log in sorted(self.folder.glob("*.log")):
            yield f"--- {log.name}\n" + "\n".join(log.read_text().splitlines()[-60:])

    def _log(self, name: str) -> Path:
        return self.folder / f"{len(self.processes)}-{name}.log"

    def _start(self, process: Process) -> Process:
        self.processes.append(process)
        return process

    def end(self) -> None:
        """Kill every process that is left, and show their logs: pytest prints them if the test failed."""
        for process in self.processes:
            process.kill()
        print("\n".join(self.logs()))


@contextmanager
def started(project: Project) -> Iterator[Project]:
    """Yield the project; nothing of it is left afterwards but its folder."""
    try:
        yield project
    finally:
        project.end()
