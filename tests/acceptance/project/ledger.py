"""What happened, in files: a line of JSON each, appended in one write, which no death right after it takes back."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def write(name: str, **values: Any) -> None:
    """Append a line to the ledger of that name, in the folder DURABLE_TEST_FOLDER."""
    line = json.dumps({**values, "pid": os.getpid()}) + "\n"
    file = os.open(_path(name), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)


def written(name: str) -> bool:
    """Tell whether anything was written into the ledger of that name."""
    return _path(name).exists()


def claim(name: str) -> bool:
    """Be the one process that makes the ledger of that name; False for every other."""
    try:
        os.close(os.open(_path(name), os.O_WRONLY | os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def read(name: str) -> list[dict[str, Any]]:
    """Return the lines of the ledger of that name."""
    return [json.loads(line) for line in _path(name).read_text().splitlines()] if written(name) else []


def lines(name: str, **wanted: Any) -> int:
    """Return how many lines of the ledger of that name have these values."""
    return sum(wanted.items() <= line.items() for line in read(name))


def _path(name: str) -> Path:
    return Path(os.environ["DURABLE_TEST_FOLDER"], name)
