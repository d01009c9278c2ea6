"""Fuzz for as long as wanted: scripts/fuzz --seconds N [--target NAME ...]

Atheris chooses the inputs by the code that they reach, if it is installed (pip install atheris); else chance does.
Targets that need a database take the one of DURABLE_TEST_DATABASE_URL, or a file of SQLite.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

SEEDS = 64
LONGEST_INPUT = 4_096  #: bytes
SIZES = [64, 256, 1_024, LONGEST_INPUT]
HANGS_AFTER = 60  #: seconds for one input
EXECUTED = re.compile(r"stat::number_of_executed_units:\s*(\d+)")


def main() -> int:
    """Fuzz each target in a process of its own; print a line of JSON for each, and return 1 if one failed."""
    options = _options()
    if options.child:
        return _fuzz(options.child, options.seconds, options.seed)
    names = options.target or _names()
    share = max(1, options.seconds // len(names))
    return max(_run(name, share, options.seed) for name in names)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="how long in all")
    parser.add_argument("--target", action="append", choices=_names(), help="fuzz this one only")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="what chance begins with")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser.parse_args()


def _names() -> list[str]:
    """Return the names of the targets, without importing what is to be instrumented."""
    return re.findall(r'Target\(\s*"([a-z-]+)"', Path(__file__).with_name("targets.py").read_text())


def _run(name: str, seconds: int, seed: int) -> int:
    command = [sys.executable, "-m", "tests.fuzz", "--child", name, "--seconds", str(seconds), "--seed", str(seed)]
    began = time.monotonic()
    done = subprocess.run(command, check=False, capture_output=True, text=True, errors="replace")
    executed = EXECUTED.search(done.stderr)
    report = {
        "target": name,
        "executions": int(executed[1]) if executed else None,
        "seconds": round(time.monotonic() - began),
        "atheris": _has_atheris(),
        "seed": seed,
        "failed": done.returncode != 0,
    }
    print(json.dumps(report), flush=True)
    if done.returncode:
        print(done.stdout[-8_000:], done.stderr[-2_000:], file=sys.stderr, flush=True)
    return int(done.returncode != 0)


def _has_atheris() -> bool:
    try:
        import atheris  # noqa: F401
    except ImportError:
        return False
    return True


def _fuzz(name: str, seconds: int, seed: int) -> int:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    if not _has_atheris():
        with _check(name) as check:
            return _by_chance(check, seconds, seed)
    import atheris

    with atheris.instrument_imports(include=["django_durable"]):
        import django

        django.setup()
        from tests.fuzz import targets  # noqa: F401

    with tempfile.TemporaryDirectory(prefix="durable-fuzz-") as corpus, _check(name) as check:
        for number, content in enumerate(_seeds(name, seed)):
            Path(corpus, str(number)).write_bytes(content)
        limits = [f"-max_total_time={seconds}", f"-timeout={HANGS_AFTER}", f"-max_len={LONGEST_INPUT}", f"-seed={seed}"]
        quiet = [
            "-verbosity=0",
            "-print_final_stats=1",
            "-len_control=0",
            f"-artifact_prefix={corpus}/",
            "-rss_limit_mb=0",
        ]
        atheris.Setup([sys.argv[0], *limits, *quiet, corpus], check)
        atheris.Fuzz()
    return 0


@contextmanager
def _check(name: str) -> Iterator[Callable[[bytes], object]]:
    """Give the target as a function of bytes, on a database of its own if it needs one."""
    import django

    django.setup()
    from django.db import connection
    from django.test.utils import setup_test_environment

    from tests.fuzz.targets import TARGETS

    target = TARGETS[name]
    setup_test_environment()
    if target.database:
        connection.creation.create_test_db(verbosity=0, autoclobber=True, serialize=False)
    try:
        yield target.feeder()
    finally:
        if target.database:
            connection.creation.destroy_test_db(str(connection.settings_dict["NAME"]), verbosity=0)


def _by_chance(check: Callable[[bytes], object], seconds: int, seed: int) -> int:
    ends, executed = time.monotonic() + seconds, 0
    chance = random.Random(seed)
    while time.monotonic() < ends:
        check(chance.randbytes(chance.choice(SIZES)))
        executed += 1
    print(f"stat::number_of_executed_units: {executed}", file=sys.stderr)
    return 0


def _seeds(name: str, seed: int) -> Iterator[bytes]:
    from tests.fuzz.targets import TARGETS

    chance = random.Random(seed)
    yield from (chance.randbytes(chance.choice(SIZES)) for _ in range(SEEDS))
    yield from TARGETS[name].seeds(SEEDS)


if __name__ == "__main__":
    sys.exit(main())
