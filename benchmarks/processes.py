"""Real worker processes on a private Redis, and what they cost."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


@contextmanager
def redis() -> Iterator[str]:
    """Start a Redis that keeps nothing; yield its URL."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="durable-bench-redis-") as folder:
        command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            server.kill()
            server.wait()


@contextmanager
def workers(count: int, *options: str, **environment: str) -> Iterator[list[int]]:
    """Start so many Celery workers, and wait until they are ready; yield the ids of their main processes."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="durable-bench-workers-")))
        logs = [folder / f"{number}.log" for number in range(count)]
        processes = [stack.enter_context(_worker(log, options, environment)) for log in logs]
        deadline = time.monotonic() + 120
        while not all(" ready." in log.read_text() for log in logs):
            if time.monotonic() > deadline or any(each.poll() is not None for each in processes):
                raise SystemExit(f"a worker did not start:\n{logs[0].read_text()}")
            time.sleep(0.1)
        yield [each.pid for each in processes]


@contextmanager
def _worker(log: Path, options: tuple[str, ...], environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    name = f"--hostname={log.stem}@%h"
    command = [sys.executable, "-m", "celery", "-A", "benchmarks.project", "worker", "--loglevel=INFO", name, *options]
    settings = {"DJANGO_SETTINGS_MODULE": "benchmarks.project_settings"}
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=os.environ | settings | environment, stdout=output, stderr=output)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


def cpu_seconds(pids: list[int]) -> float:
    """Return the processor time that these processes have used so far."""
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
    return sum(int(each[11]) + int(each[12]) for each in fields) / TICKS
