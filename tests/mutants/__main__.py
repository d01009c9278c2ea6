"""scripts/test --mutants N: make N random changes in core/ and N in engine/, and see which ones the tests notice."""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from tests.postgresql import postgresql

from .changes import Change, sample
from .harmless import HARMLESS

FOLDERS = ("django_durable/core", "django_durable/engine")
COPIED = ("django_durable", "tests", "benchmarks", "docs", "example_project", "scripts", ".ci", ".github")
FILES = ("pyproject.toml", "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "tox.ini", "LICENSE")
PYTEST = ("-q", "-x", "-n0", "-p", "no:cacheprovider", "-m", "not slow and not faults", "--timeout=60", "--tb=no")
TRIALS = 2  #: at the same time
LONGEST = 900  #: seconds of one part of a trial; a change that hangs is noticed
LEAST = 0.95  #: of the changes must be noticed


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of a change: which tests noticed it, if any did, and after how many seconds."""

    change: Change
    noticed_by: str | None
    seconds: float

    def __str__(self) -> str:
        return f"{'noticed' if self.noticed_by else 'MISSED '} {self.seconds:6.1f} s  {self.change}"


def main() -> int:
    """Try a sample; return 0 if enough of the changes are noticed or known to be harmless."""
    options = _parser().parse_args()
    changes = sample(map(Path, options.folders), options.mutants, options.seed)
    with ExitStack() as stack:
        url = os.environ.get("DURABLE_TEST_DATABASE_URL") or stack.enter_context(postgresql())
        places: SimpleQueue[Path] = SimpleQueue()
        for number in range(TRIALS):
            places.put(_copy(Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=f"mutants-{number}-")))))
        with ThreadPoolExecutor(TRIALS) as pool:
            trials = []
            tried = [pool.submit(_try, change, places, url, near=options.near) for change in changes]
            for future in as_completed(tried):
                trials.append(future.result())
                print(trials[-1], flush=True)
    return _verdict(trials, options.seed)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/test --mutants", description=__doc__)
    parser.add_argument("--mutants", type=int, required=True, metavar="N", help="changes of each folder")
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000), help="chooses the changes")
    parser.add_argument("--near", action="store_true", help="run only the tests of the changed file's room")
    parser.add_argument("--folders", nargs="+", default=FOLDERS, help="the folders to change (core and engine)")
    return parser


def _copy(folder: Path) -> Path:
    for name in COPIED:
        shutil.copytree(name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy(name, folder)
    return folder


def _try(change: Change, places: SimpleQueue[Path], url: str, *, near: bool) -> Trial:
    """Make the change in one of the copies, and run tests, those of its room first, until one fails."""
    place, began = places.get(), time.monotonic()
    file = place / change.file
    original = file.read_text()
    try:
        file.write_text(change.applied())
        on_postgresql = "postgresql" in change.file.parts
        environment = os.environ | {"DURABLE_TEST_DATABASE_URL": f"{url}_{place.name[8]}" if on_postgresql else ""}
        for tests in [*_of_room(change.file), *([] if near else _of_users(change.file))]:
            if not _pass(place, tests, environment):
                return Trial(change, " ".join(tests), time.monotonic() - began)
        return Trial(change, None, time.monotonic() - began)
    finally:
        file.write_text(original)
        places.put(place)


def _of_room(file: Path) -> Iterator[Sequence[str]]:
    """Yield the tests of a file, and those of its room."""
    inside = Path("tests", *file.parts[1:])
    own = inside.with_name(f"test_{file.name}")
    if own.exists():
        yield [str(own)]
    yield ["tests/core" if inside.parts[1] == "core" else str(inside.parent)]


def _of_users(file: Path) -> Iterator[Sequence[str]]:
    """Yield the tests of everything that may use a file."""
    if file.parts[1] == "core":
        yield ["tests/behaviours", "tests/scenarios"]
        yield ["tests/engine", "tests/test_checks.py", "tests/admin"]
    else:
        yield ["tests/behaviours"]
        yield ["tests/scenarios"]
        yield ["tests/engine", "tests/test_signals.py", "tests/admin/runs", "tests/management/subcommands"]


def _pass(place: Path, tests: Sequence[str], environment: dict[str, str]) -> bool:
    command = [sys.executable, "-m", "pytest", *PYTEST, *tests]
    try:
        process = subprocess.run(command, cwd=place, env=environment, capture_output=True, timeout=LONGEST, check=False)
    except subprocess.TimeoutExpired:
        return False
    return process.returncode in (0, 5)  # 5: there are none


def _verdict(trials: Sequence[Trial], seed: int) -> int:
    missed = [trial for trial in trials if trial.noticed_by is None]
    harmless = [trial for trial in missed if _is_harmless(trial.change)]
    left = [trial for trial in missed if trial not in harmless]
    share = 1 - len(left) / len(trials)
    print(f"\nOf {len(trials)} changes (seed {seed}) {len(trials) - len(missed)} were noticed, {len(harmless)} of the")
    print(f"others change nothing, {len(left)} were missed: {share:.1%} noticed or harmless, {LEAST:.0%} are needed.")
    for trial in left:
        print(trial)
    return 0 if share >= LEAST else 1


def _is_harmless(change: Change) -> bool:
    text = change.file.read_text().splitlines()[change.line - 1].strip()
    return any((change.kind, text) == (kind, line) for kind, line, _ in HARMLESS.get(str(change.file), ()))


if __name__ == "__main__":
    sys.exit(main())
