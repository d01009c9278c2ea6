"""Commands as processes of their own, on the database of the tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.servers import database_url

SECONDS = 30


class DurableProcess:
    """``manage.py durable`` in a process of its own, with what it printed so far."""

    def __init__(self, *arguments: str, database: str | None = None, durable: dict[str, Any] | None = None) -> None:
        environment = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "tests.management.site.settings",
            "DURABLE_TEST_DATABASE_URL": database or database_url(),
            "SITE_DURABLE": json.dumps(durable or {}),
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "django", "durable", *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.stdout: list[str] = []
        self.stderr: list[str] = []
        self._readers = [
            threading.Thread(target=lines.extend, args=(stream,), daemon=True)
            for lines, stream in ((self.stdout, self.process.stdout), (self.stderr, self.process.stderr))
        ]
        for reader in self._readers:
            reader.start()

    def until(self, condition: Callable[[], Any], seconds: float = SECONDS) -> Any:
        """Wait for the condition and return its value; fail with what was printed after a deadline."""
        deadline = time.monotonic() + seconds
        while not (value := condition()):
            if time.monotonic() > deadline:
                pytest.fail("In vain until:\n" + "".join(self.stdout + self.stderr), pytrace=False)
            time.sleep(0.02)
        return value

    def ready(self) -> dict[str, Any]:
        """Wait for the first line of JSON and return it."""
        self.until(lambda: self.stdout or self.process.poll() is not None)
        return dict(json.loads(self.stdout[0])) if self.stdout else {}

    def end(self, seconds: float = SECONDS) -> int:
        """Wait until the process has ended and return its exit code."""
        code = self.process.wait(seconds)
        for reader in self._readers:
            reader.join()
        return code

    def kill(self) -> None:
        """End the process, whatever it does, and close its pipes."""
        self.process.kill()
        self.end()
        for stream in (self.process.stdout, self.process.stderr):
            if stream:
                stream.close()
