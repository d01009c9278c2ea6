"""The private servers of a soak: brokers that are emptied, killed and frozen, databases that restart."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import kombu
import redis

from tests.acceptance.brokers import OwnRedis, free_port
from tests.acceptance.workers import until
from tests.postgresql import server

RABBITMQ = ("/usr/lib/rabbitmq/bin/rabbitmq-server", "rabbitmq-server")
START_SECONDS = 60.0
QUEUE = "celery"  #: Celery's default


class Broker(Protocol):
    """What a fault may do to a broker."""

    url: str

    def start(self) -> None:
        """Start it."""

    def stop(self) -> None:
        """Kill it."""

    def freeze(self) -> None:
        """Let it answer nobody."""

    def thaw(self) -> None:
        """Let it go on."""

    def flush(self) -> None:
        """Delete all messages."""


class Redis(OwnRedis):
    """A Redis that keeps nothing on disk: its restart loses all messages."""

    def flush(self) -> None:
        """Delete everything in it."""
        with redis.Redis.from_url(self.url) as client:
            client.flushall()


class RabbitMQ:
    """A RabbitMQ with a node of its own, which keeps its durable queues."""

    def __init__(self, folder: Path, program: str) -> None:
        self._home, self._program = folder / "rabbitmq", program
        self._home.mkdir()
        self._port, self._epmd = free_port(), str(free_port())
        self.url = f"amqp://guest:guest@127.0.0.1:{self._port}//"
        (self._home / "rabbitmq.conf").write_text(f"listeners.tcp.default = 127.0.0.1:{self._port}\n")
        self._environment = os.environ | {
            "HOME": str(self._home),
            "RABBITMQ_NODENAME": f"soak-{os.getpid()}@localhost",
            "RABBITMQ_CONFIG_FILE": str(self._home / "rabbitmq.conf"),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_MNESIA_BASE": str(self._home),
            "RABBITMQ_LOG_BASE": str(self._home),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self._home / "plugins"),
            "ERL_EPMD_PORT": self._epmd,
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it on what it kept."""
        with (self._home / "output").open("ab") as output:
            self._process = subprocess.Popen(
                [self._program], env=self._environment, stdout=output, stderr=output, start_new_session=True
            )
        until(self._answers, "RabbitMQ answers", START_SECONDS, pause=0.2)

    def stop(self) -> None:
        """Kill it, if it runs."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def end(self) -> None:
        """Kill it and Erlang's port mapper, which detaches itself."""
        self.stop()
        with suppress(FileNotFoundError):
            subprocess.run(["epmd", "-port", self._epmd, "-kill"], check=False, capture_output=True)

    def freeze(self) -> None:
        """Let it answer nobody, and keep all its connections."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGCONT)

    def flush(self) -> None:
        """Delete the messages."""
        with kombu.Connection(self.url) as connection, connection.channel() as channel:
            channel.queue_purge(QUEUE)

    def _answers(self) -> bool:
        with suppress(Exception), kombu.Connection(self.url, connect_timeout=2) as connection:
            connection.connect()
            return True
        return False


@contextmanager
def broker_of(name: str, folder: Path) -> Iterator[Broker | None]:
    """Start the broker of that name; "memory" is none."""
    if name == "memory":
        yield None
        return
    broker: Any = Redis(folder) if name == "redis" else RabbitMQ(folder, _program(*RABBITMQ))
    try:
        broker.start()
        yield broker
    finally:
        broker.end() if isinstance(broker, RabbitMQ) else broker.stop()


def require_broker(name: str) -> None:
    """End with an error that names the remedy, if the broker is not installed."""
    if name != "memory":
        _program(*(RABBITMQ if name == "rabbitmq" else ("redis-server",)))


def _program(*names: str) -> str:
    for name in names:
        if found := shutil.which(name):
            return found
    sys.exit(
        f"scripts/soak: {names[-1]} is not installed. Install it (Debian and Ubuntu: apt install {names[-1]}), or "
        f"choose another broker: --database sqlite --broker memory needs none."
    )


class Database(Protocol):
    """What a fault may do to a database."""

    url: str
    faults: tuple[str, ...]  #: the names of its methods that are faults

    def prepare(self) -> None:
        """Make the database."""


class PostgreSQL:
    """A private PostgreSQL with its default durability."""

    faults: tuple[str, ...] = ("restart_database_fast", "restart_database_immediately")

    def __init__(self, own: Any) -> None:
        self._server = own
        self.url = own.url

    def prepare(self) -> None:
        """Make the database."""
        from django.db import connection

        with connection._nodb_cursor() as cursor:
            cursor.execute("CREATE DATABASE durable")

    def restart_database_fast(self, down: float) -> None:
        """Restart it as an administrator does; it is down for so many seconds."""
        self._restart(down, immediately=False)

    def restart_database_immediately(self, down: float) -> None:
        """Restart it as if it had been killed."""
        self._restart(down, immediately=True)

    def _restart(self, down: float, *, immediately: bool) -> None:
        self._server.stop(immediately=immediately)
        time.sleep(down)
        self._server.start()


class SQLite:
    """A SQLite file."""

    faults: tuple[str, ...] = ("lock_database",)

    def __init__(self, folder: Path) -> None:
        self._file = folder / "db.sqlite3"
        self.url = f"sqlite:///{self._file}"

    def prepare(self) -> None:
        """Do nothing: migrating makes the file."""

    def lock_database(self, down: float) -> None:
        """Keep all others from writing for so many seconds; a process that is stopped may do so already."""
        connection = sqlite3.connect(self._file, isolation_level=None, timeout=1)
        try:
            with suppress(sqlite3.OperationalError):
                connection.execute("BEGIN IMMEDIATE")
            time.sleep(down)
        finally:
            connection.close()


@contextmanager
def database_of(name: str, folder: Path) -> Iterator[Database]:
    """Start the database of that name."""
    if name == "sqlite":
        yield SQLite(folder)
        return
    with server(fsync="on") as own:
        yield PostgreSQL(own)
