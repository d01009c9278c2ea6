"""scripts/bench: measure the engine's own cost, by subject, or side by side with its peers."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

from tests.postgresql import postgresql

from . import side_by_side
from .figures import ROWS, Figure

#: Modules of this package with a function figures(); each gets an empty database.
SUBJECTS = ("engine", "path", "waits", "partitions", "scaling")


def main() -> None:
    """Measure on a private PostgreSQL with default durability, or on the server that is named, and print."""
    beside, others = _peers_parser().parse_known_args()
    if beside.peers is not None:
        sys.exit(side_by_side.run(beside.peers, beside.peers_folder, others, as_json=beside.json))
    options = _parser().parse_args()
    with ExitStack() as servers:
        os.environ |= {"DURABLE_BENCH_DATABASE_URL": _database(servers, options.sqlite), ROWS: str(options.rows)}
        os.environ["DJANGO_SETTINGS_MODULE"] = "benchmarks.settings"
        _print(_figures(options.subjects or SUBJECTS), as_json=options.json)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__, parents=[_peers_parser()])
    parser.add_argument("subjects", nargs="*", choices=[[], *SUBJECTS], help="what to measure (default: everything)")
    parser.add_argument("--sqlite", action="store_true", help="measure on a SQLite file instead of PostgreSQL")
    parser.add_argument("--rows", type=int, default=100_000, help="the most rows of large tables (100,000)")
    return parser


def _peers_parser() -> argparse.ArgumentParser:
    """Return the options of a run beside the peers; what it does not know is for the peer benchmark."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--json", action="store_true", help="print JSON")
    peers = parser.add_argument_group("side by side", "other options are handed to the peer benchmark's run.py")
    every = ",".join(side_by_side.PEERS)
    peers.add_argument("--peers", nargs="?", const=every, help=f"measure W1 to W5 beside these peers ({every})")
    peers.add_argument("--peers-folder", type=Path, help=f"the peer benchmark (${side_by_side.FOLDER}, or beside this)")
    return parser


def _database(servers: ExitStack, sqlite: bool) -> str:
    if sqlite:
        folder = servers.enter_context(tempfile.TemporaryDirectory(prefix="durable-bench-"))
        return f"sqlite:///{folder}/db.sqlite3"
    return os.environ.get("DURABLE_BENCH_DATABASE_URL") or servers.enter_context(postgresql(fsync="on"))


def _figures(subjects: Sequence[str]) -> Iterator[Figure]:
    import django

    django.setup()
    for name in subjects:
        with _empty_database(name):
            yield from import_module(f".{name}", __package__).figures()


def _empty_database(name: str) -> ExitStack:
    """Make a database for one subject; it is dropped on leaving."""
    from django.core.management import call_command
    from django.db import connection

    def drop() -> None:
        connection.close()
        if connection.vendor == "postgresql":
            with connection._nodb_cursor() as cursor:
                cursor.execute(f'DROP DATABASE IF EXISTS "{connection.settings_dict["NAME"]}" WITH (FORCE)')
        else:
            Path(connection.settings_dict["NAME"]).unlink(missing_ok=True)

    if connection.vendor == "postgresql":
        connection.settings_dict["NAME"] = f"durable_bench_{name}"
    drop()
    if connection.vendor == "postgresql":
        with connection._nodb_cursor() as cursor:
            cursor.execute(f'CREATE DATABASE "{connection.settings_dict["NAME"]}"')
    call_command("migrate", verbosity=0)
    stack = ExitStack()
    stack.callback(drop)
    return stack


def _print(figures: Iterator[Figure], *, as_json: bool) -> None:
    if as_json:
        json.dump({"python": platform.python_version(), "figures": [asdict(each) for each in figures]}, sys.stdout)
    else:
        for each in figures:
            print(each, flush=True)


if __name__ == "__main__":
    main()
