"""Run one subject alone, as ``python -m benchmarks.idle``: on a private PostgreSQL, or DURABLE_BENCH_DATABASE_URL."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import asdict

from tests.postgresql import postgresql

from .figures import ROWS, Figure


def main(figures: Callable[[], Iterable[Figure]], about: str | None) -> None:
    """Measure on an empty database, and print."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--rows", type=int, default=1_000_000, help="the most rows of large tables (1,000,000)")
    options = parser.parse_args()
    with ExitStack() as servers:
        url = os.environ.get("DURABLE_BENCH_DATABASE_URL") or servers.enter_context(postgresql(fsync="on"))
        os.environ |= {"DURABLE_BENCH_DATABASE_URL": url, ROWS: str(options.rows)}
        os.environ["DJANGO_SETTINGS_MODULE"] = "benchmarks.settings"
        _prepare()
        measured = list(figures())
    if options.json:
        json.dump({"python": platform.python_version(), "figures": [asdict(each) for each in measured]}, sys.stdout)
    else:
        print(*measured, sep="\n")


def _prepare() -> None:
    import django
    from django.core.management import call_command
    from django.db import connection

    django.setup()
    name = connection.settings_dict["NAME"]
    with connection._nodb_cursor() as cursor:
        cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name])
        if cursor.fetchone() is None:
            cursor.execute(f'CREATE DATABASE "{name}"')
    call_command("migrate", verbosity=0)
