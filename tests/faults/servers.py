"""What stands between workers and their database, and breaks: a proxy that loses an answer, and PgBouncer."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.acceptance.brokers import free_port
from tests.acceptance.workers import until


class Proxy:
    """Forwards connections to a database; once these texts were sent, in order, it loses the answer and hangs up."""

    def __init__(self, settings: dict[str, Any], texts: Sequence[bytes]) -> None:
        self.has_cut = threading.Event()
        self._settings, self._texts = settings, list(texts)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = str(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no further connection."""
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client = self._listener.accept()[0]
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        doomed = threading.Event()
        with client, _connected(self._settings) as server:
            answers = threading.Thread(target=self._forward, args=(server, client, False, doomed), daemon=True)
            answers.start()
            self._forward(client, server, True, doomed)
            answers.join()

    def _forward(self, source: socket.socket, target: socket.socket, asks: bool, doomed: threading.Event) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                if asks and self._is_last(data):
                    doomed.set()
                elif not asks and doomed.is_set():
                    # The server has answered, so what it was asked for is committed.
                    self.has_cut.set()
                    break
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _is_last(self, data: bytes) -> bool:
        left = len(self._texts)
        while self._texts and self._texts[0] in data:
            self._texts.pop(0)
        return left > 0 and not self._texts


def _connected(settings: dict[str, Any]) -> socket.socket:
    host, port = settings["HOST"] or "127.0.0.1", settings["PORT"] or "5432"
    if not host.startswith("/"):
        return socket.create_connection((host, int(port)))
    server = socket.socket(socket.AF_UNIX)
    server.connect(f"{host}/.s.PGSQL.{port}")
    return server


@contextmanager
def pgbouncer(settings: dict[str, Any], pool_size: int) -> Iterator[str]:
    """Run PgBouncer in transaction mode in front of that database; yield its port."""
    program = shutil.which("pgbouncer") or "/usr/sbin/pgbouncer"
    if not Path(program).exists():
        pytest.skip("pgbouncer is not installed")
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="durable-pgbouncer-") as folder:
        os.chmod(folder, 0o755)
        server = f"host={settings['HOST'] or '127.0.0.1'} port={settings['PORT'] or 5432} user={settings['USER']}"
        configuration = Path(folder, "pgbouncer.ini")
        configuration.write_text(
            f"[databases]\n* = {server}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n"
            f"unix_socket_dir =\nauth_type = any\npool_mode = transaction\ndefault_pool_size = {pool_size}\n"
            "ignore_startup_parameters = options\n"  # the suite's PGOPTIONS
        )
        user = _user_beside(settings["HOST"]) if os.geteuid() == 0 else None  # PgBouncer refuses to run as root.
        with Path(folder, "log").open("w") as log:
            process = subprocess.Popen([program, str(configuration)], user=user, stdout=log, stderr=log)
        try:
            until(lambda: statistics_of(str(port)) is not None, "PgBouncer answers")
            yield str(port)
        finally:
            process.kill()
            process.wait()


def _user_beside(host: str) -> str:
    """Return a user who may reach the server: a socket of the tests' own lies in a folder of its user."""
    return Path(host).owner() if host.startswith("/") else "nobody"


def statistics_of(port: str) -> dict[str, int] | None:
    """Return how many transactions each database had through PgBouncer; None while it does not answer."""
    try:
        with psycopg.connect(
            host="127.0.0.1", port=port, dbname="pgbouncer", user="pgbouncer", autocommit=True
        ) as admin:
            cursor = psycopg.ClientCursor(admin)
            rows = cursor.execute("SHOW STATS").fetchall()
    except psycopg.OperationalError:
        return None
    return {row[0]: row[1] for row in rows}
