"""Run the suite once on each database, with real servers, and sum up."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.postgresql import postgresql
from tests.reports import Report, summary

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

MARIADB_TESTS = [
    *("tests/engine", "tests/scenarios", "tests/models"),
    *("tests/test_fields.py", "tests/test_managers.py", "tests/test_migrations.py"),
]
# Signals that end pytest, and the seconds it then has to drop its databases; a terminal has sent one already.
ENDING = ((None, 3), (signal.SIGINT, 20), (signal.SIGKILL, 5))
EPILOG = """
Whatever pytest takes can follow: paths, -k, -x, -n0. With --mutants N,
the tests are tried on N random changes of core and of engine: scripts/test --mutants N --help.
Servers are named in the environment:
  DURABLE_TEST_DATABASE_URL   use this PostgreSQL instead of starting one: postgres://user@host/name
  DURABLE_TEST_MARIADB_URL    run the engine's tests there too: mysql://user@host/name
  DURABLE_TEST_REDIS_URL      let tests use this Redis
  DURABLE_TEST_RABBITMQ_URL   let tests use this RabbitMQ
  DURABLE_TEST_REQUIRE_SERVERS=1  let a test fail, not skip, that lacks its server
  DURABLE_TEST_POSTGRESQL_BIN start the PostgreSQL whose programs lie in this folder
"""


@dataclass(frozen=True, slots=True)
class Part:
    """One run of pytest: its database's name, what to add to the environment, and to the command line."""

    title: str
    environment: dict[str, str]
    arguments: list[str]


def main() -> int:
    """Run the parts that the command line asks for; return the exit status."""
    options, arguments = _parser().parse_known_args()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    with ExitStack() as servers:
        folder = Path(servers.enter_context(tempfile.TemporaryDirectory(prefix="durable-tests-")))
        parts = list(_parts(options, arguments, servers))
        selection = (
            [] if options.full else ["-m", "faults and not slow" if options.faults else "not slow and not faults"]
        )
        coverage = Coverage(folder) if options.coverage else None
        reports = [_run(part, [*selection, *arguments], folder, coverage) for part in parts]
        is_covered = coverage is None or coverage.report()
    print(summary(reports))
    passed = all(report.passed for report in reports) and any(report.tests for report in reports)
    return 0 if passed and is_covered else 1


class Coverage:
    """Measures which branches of core and engine the parts take together, in every process that they start."""

    def __init__(self, folder: Path) -> None:
        self.environment = {"COVERAGE_FILE": str(folder / "coverage" / "data")}
        (folder / "coverage").mkdir()

    def report(self) -> bool:
        """Print the lines and branches that no test takes; return whether they are few enough, see pyproject.toml."""
        print("\n=== Branches of core and engine ===", flush=True)
        return self._call("combine", "--quiet") and self._call("report")

    def _call(self, *arguments: str) -> bool:
        command = [sys.executable, "-m", "coverage", *arguments]
        return subprocess.run(command, env=os.environ | self.environment, check=False).returncode == 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/test",
        description="Run the suite on PostgreSQL, and what uses the database on SQLite too.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--unit", action="store_true", help="run tests/core only; needs no database")
    parser.add_argument("--on", choices=["postgresql", "sqlite", "mariadb"], help="run on this database only")
    parser.add_argument(
        "--coverage", action="store_true", help="measure the branches of core and engine, in workers too"
    )
    parser.add_argument("--full", action="store_true", help="run the slow tests and the faults too")
    parser.add_argument("--faults", action="store_true", help="run each fault of processes and servers once, alone")
    return parser


def _parts(options: argparse.Namespace, arguments: list[str], servers: ExitStack) -> Iterator[Part]:
    if options.unit:
        yield Part("No database", {}, ["tests/core"])
        return
    if options.faults:
        arguments.append("tests/faults")
        options.on = "postgresql"
    if options.on in (None, "postgresql"):
        url = os.environ.get("DURABLE_TEST_DATABASE_URL") or servers.enter_context(postgresql())
        # Nothing outlives the tests: a commit need not wait for a disk that others use, too.
        hurried = {"PGOPTIONS": "-c synchronous_commit=off"}
        yield Part("PostgreSQL", {"DURABLE_TEST_DATABASE_URL": url, **hurried}, [])
    # What no database changes runs once.
    rest = [] if options.on else ["--only-database"]
    if options.on in (None, "sqlite"):
        yield Part("SQLite", {"DURABLE_TEST_DATABASE_URL": ""}, rest)
    if options.on in (None, "mariadb") and (mariadb := os.environ.get("DURABLE_TEST_MARIADB_URL")):
        named = any(Path(argument.partition("::")[0]).exists() for argument in arguments)
        yield Part("MariaDB", {"DURABLE_TEST_DATABASE_URL": mariadb}, [*rest, *([] if named else MARIADB_TESTS)])


def _run(part: Part, arguments: list[str], folder: Path, coverage: Coverage | None) -> Report:
    print(f"\n=== {part.title} ===", flush=True)
    results = folder / f"{part.title}.xml"
    command = [
        sys.executable,
        *(["-m", "coverage", "run"] if coverage else []),
        "-m",
        "pytest",
        "--numprocesses=2",
        "--dist=loadgroup",
        "--tb=short",
        f"--junit-xml={results}",
    ]
    environment = os.environ | part.environment | (coverage.environment if coverage else {})
    process = subprocess.Popen([*command, *part.arguments, *arguments], env=environment)
    try:
        status = process.wait()
    finally:
        _end(process)
    return Report.read(part.title, status, results)


def _end(process: subprocess.Popen[bytes]) -> None:
    for number, seconds in ENDING:
        if number is not None:
            process.send_signal(number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
            return


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
    except RuntimeError as error:
        sys.exit(f"scripts/test: {error}")
