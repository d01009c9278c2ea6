"""Brokers as the tests see them: queues looked into and emptied, and servers that are down or silent."""

from __future__ import annotations

import base64
import json
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import kombu
import pytest
import redis

from .workers import until


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def forget(url: str, queue: str) -> None:
    """Delete what a test left at a shared broker."""
    if url.startswith("redis"):
        with redis.Redis.from_url(url) as client:
            for key in client.scan_iter(f"{queue}:*"):
                client.delete(key)
    else:
        with kombu.Connection(url) as connection, connection.channel() as channel:
            channel.queue_delete(queue)
            channel.exchange_delete(queue)


class RedisQueue:
    """The messages of a test that wait at Redis."""

    def __init__(self, url: str, queue: str, *, patience: float | None = None) -> None:
        self._client = redis.Redis.from_url(url, socket_timeout=patience)
        self._prefix, self._key = queue, f"{queue}:{queue}"

    def raw(self) -> list[bytes]:
        """Return the messages as they lie there, the next one first."""
        return self._client.lrange(self._key, 0, -1)[::-1]

    def messages(self) -> list[dict[str, Any]]:
        """Return the messages, read."""
        return [json.loads(raw) for raw in self.raw()]

    @staticmethod
    def arguments(message: dict[str, Any]) -> list[Any]:
        """Return the arguments of the task that the message asks for."""
        return json.loads(base64.b64decode(message["body"]))[0]

    def results(self) -> list[bytes]:
        """Return the keys of results that Celery keeps."""
        return list(self._client.scan_iter(f"{self._prefix}:*celery-task-meta-*"))

    def replace(self, raw: list[bytes]) -> None:
        """Put these messages in place of those that wait, the next one first."""
        self._client.delete(self._key)
        if raw:
            self._client.lpush(self._key, *raw)


class OwnRedis:
    """A Redis of the test's own, which it may stop and freeze."""

    def __init__(self, folder: Path) -> None:
        if shutil.which("redis-server") is None:
            pytest.skip("redis-server is not installed")
        self._folder = folder
        self._port = free_port()
        self.url = f"redis://127.0.0.1:{self._port}/0"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, empty."""
        command = ["redis-server", "--port", str(self._port), "--bind", "127.0.0.1", "--save", "", "--dir"]
        self._process = subprocess.Popen([*command, str(self._folder)], stdout=subprocess.DEVNULL)
        until(self._answers, "Redis answers")

    def freeze(self) -> None:
        """Let it answer nobody, and keep all its connections."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """Kill it, if it runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _answers(self) -> bool:
        try:
            with redis.Redis(port=self._port) as client:
                return bool(client.ping())
        except redis.ConnectionError:
            return False


@contextmanager
def silence() -> Iterator[int]:
    """Listen on a port, take connections, and never answer; yield the port."""
    with socket.create_server(("127.0.0.1", 0), backlog=50) as listener:
        yield int(listener.getsockname()[1])
