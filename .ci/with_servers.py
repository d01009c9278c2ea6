"""Run a command with the URLs of real servers in its environment: ``with_servers.py COMMAND...``

A server that answers on its standard port is shared with others: it is used in a database, vhost or key space that this
run makes and drops. One that does not answer is started on a private port, from what is installed or from Debian's
packages, and stopped at the end. Where neither works, this ends with an error.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pymysql
import redis

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = f"durable_ci_{os.getpid()}"
HOST = "127.0.0.1"
START_SECONDS = 60
RABBITMQ_SERVER = "/usr/lib/rabbitmq/bin/rabbitmq-server"


def main() -> int:
    """Run the command of the command line; return its exit status."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    with ExitStack() as stack:
        folder = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="durable-ci-", ignore_cleanup_errors=True))
        )
        folder.chmod(0o755)
        urls = {
            "DURABLE_TEST_DATABASE_URL": stack.enter_context(postgresql()),
            "DURABLE_TEST_MARIADB_URL": stack.enter_context(mariadb(folder)),
            "DURABLE_TEST_REDIS_URL": stack.enter_context(redis_database(folder)),
            "DURABLE_TEST_RABBITMQ_URL": stack.enter_context(rabbitmq(folder)),
        }
        for variable, url in urls.items():
            print(f"{variable}={url or '(started by scripts/test)'}", flush=True)
        return run(sys.argv[1:], os.environ | urls)


def run(command: list[str], environment: dict[str, str]) -> int:
    """Run a command to its end, also where this process is told to end."""
    process = subprocess.Popen(command, env=environment)
    try:
        return process.wait()
    finally:
        process.terminate()
        process.wait()


@contextmanager
def postgresql() -> Iterator[str]:
    """Yield the URL of a database that tests may create; empty where scripts/test has to start a server."""
    try:
        _drop_postgresql_databases()
    except psycopg.OperationalError:
        yield ""
        return
    try:
        yield f"postgres://postgres@{HOST}:5432/{NAME}"
    finally:
        _drop_postgresql_databases()


def _drop_postgresql_databases() -> None:
    with psycopg.connect(host=HOST, user="postgres", dbname="postgres", autocommit=True) as connection:
        found = connection.execute("SELECT datname FROM pg_database WHERE datname LIKE %s", [f"%{NAME}%"])
        for (name,) in found.fetchall():
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@contextmanager
def mariadb(folder: Path) -> Iterator[str]:
    """Yield the URL of a database that tests may create."""
    if not answers(3306):
        with own_mariadb(folder / "mariadb") as port:
            yield f"mysql://root@{HOST}:{port}/{NAME}"
        return
    try:
        yield f"mysql://root@{HOST}:3306/{NAME}"
    finally:
        _drop_mariadb_databases()


def _drop_mariadb_databases() -> None:
    with pymysql.connect(host=HOST, user="root") as connection, connection.cursor() as cursor:
        cursor.execute("SHOW DATABASES LIKE %s", [f"%{NAME}%"])
        for (name,) in cursor.fetchall():
            cursor.execute(f"DROP DATABASE `{name}`")


@contextmanager
def own_mariadb(home: Path) -> Iterator[int]:
    """Start a MariaDB; yield its port."""
    require("mariadbd", "mariadb-server")
    user = "mysql" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
    home.mkdir()
    shutil.chown(home, user)
    where = ["--no-defaults", f"--user={user}", f"--datadir={home}/data"]
    install = ["mariadb-install-db", *where, "--skip-test-db", "--auth-root-authentication-method=normal"]
    subprocess.run(install, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    port = free_port()
    listen = [f"--port={port}", f"--bind-address={HOST}", f"--socket={home}/socket", f"--pid-file={home}/pid"]
    with running(["mariadbd", *where, *listen], port, home):
        yield port


@contextmanager
def redis_database(folder: Path) -> Iterator[str]:
    """Yield the URL of a numbered database that nobody uses."""
    with ExitStack() as stack:
        port = 6379
        if not answers(port):
            require("redis-server", "redis-server")
            port = free_port()
            command = ["redis-server", "--port", str(port), "--bind", HOST, "--save", "", "--dir", str(folder)]
            stack.enter_context(running(command, port, folder))
        clients = [redis.Redis(HOST, port, db=number) for number in reversed(range(16))]
        client = next(client for client in clients if not client.dbsize())
        try:
            yield f"redis://{HOST}:{port}/{client.get_connection_kwargs()['db']}"
        finally:
            client.flushdb()


@contextmanager
def rabbitmq(folder: Path) -> Iterator[str]:
    """Yield the URL of a virtual host; the default one where rabbitmqctl does not reach the server."""
    if not answers(5672):
        with own_rabbitmq(folder / "rabbitmq") as port:
            yield f"amqp://guest:guest@{HOST}:{port}//"
        return
    own_host = rabbitmqctl("add_vhost", NAME) and rabbitmqctl("set_permissions", "-p", NAME, "guest", ".*", ".*", ".*")
    try:
        yield f"amqp://guest:guest@{HOST}:5672/{NAME if own_host else '/'}"
    finally:
        rabbitmqctl("delete_vhost", NAME)


@contextmanager
def own_rabbitmq(home: Path) -> Iterator[int]:
    """Start a RabbitMQ; yield its port."""
    require(RABBITMQ_SERVER, "rabbitmq-server")
    home.mkdir()
    port = free_port()
    (home / "rabbitmq.conf").write_text(f"listeners.tcp.default = {HOST}:{port}\n")
    settings = {
        "HOME": str(home),
        "RABBITMQ_NODENAME": f"{NAME}@localhost",
        "RABBITMQ_CONFIG_FILE": str(home / "rabbitmq.conf"),
        "RABBITMQ_DIST_PORT": str(free_port()),
        "RABBITMQ_MNESIA_BASE": str(home),
        "RABBITMQ_LOG_BASE": str(home),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "plugins"),
        "ERL_EPMD_PORT": str(free_port()),
    }
    try:
        with running([RABBITMQ_SERVER], port, home, settings):
            yield port
    finally:
        # Erlang's port mapper detaches itself and would stay.
        subprocess.run(["epmd", "-port", settings["ERL_EPMD_PORT"], "-kill"], check=False, capture_output=True)


def rabbitmqctl(*arguments: str) -> bool:
    """Return whether rabbitmqctl did what it was asked to."""
    with suppress(FileNotFoundError):
        return subprocess.run(["rabbitmqctl", *arguments], check=False, capture_output=True).returncode == 0
    return False


@contextmanager
def running(command: list[str], port: int, home: Path, environment: dict[str, str] | None = None) -> Iterator[None]:
    """Start a server and wait until it answers; stop it at the end."""
    log = home / f"{port}.log"
    with log.open("w") as output:
        server = subprocess.Popen(
            command, env=os.environ | (environment or {}), stdout=output, stderr=output, start_new_session=True
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while not answers(port):
            if server.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"{command[0]} does not answer on port {port}:\n{log.read_text()}")
            time.sleep(0.1)
        yield
    finally:
        server.terminate()
        server.wait()


def require(program: str, package: str) -> None:
    """Install Debian's package unless the program is there."""
    if shutil.which(program):
        return
    superuser = [] if os.geteuid() == 0 else ["sudo"]
    # Debian starts no service of a package that is installed in run level 1.
    environment = [*superuser, "env", "RUNLEVEL=1", "DEBIAN_FRONTEND=noninteractive"]
    for command in (["update"], ["install", "--yes", "--no-install-recommends", package]):
        answer = subprocess.run([*environment, "apt-get", "-qq", *command], check=False, capture_output=True, text=True)
        if answer.returncode:
            sys.exit(f"{program} is missing, and apt-get cannot install {package}:\n{answer.stderr}")


def answers(port: int) -> bool:
    """Return whether something accepts connections on this port of this machine."""
    with suppress(OSError):
        socket.create_connection((HOST, port), timeout=2).close()
        return True
    return False


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        return int(listener.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
