"""The output of the commands: JSON for programs, or text and tables for people."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.core.management.base import OutputWrapper

WIDEST = 60  #: characters of a table's cell
WIDEST_LAST = 160  #: characters of a cell in the last column, which pushes no other cell aside


@dataclass(frozen=True, slots=True)
class Output:
    """The stream that a command prints to, and whether it prints JSON."""

    stream: OutputWrapper
    as_json: bool

    def write(self, document: Any, text: str) -> None:
        """Print *document* as one line of JSON, or *text*; at once, also into a pipe."""
        self.stream.write(json.dumps(document) if self.as_json else text)
        self.stream.flush()


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return rows below their columns, aligned; long cells are cut."""
    limits = [*[WIDEST] * (len(columns) - 1), WIDEST_LAST]
    cells = [[one_line(cell, limit) for cell, limit in zip(row, limits, strict=True)] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    lines = [columns, ["-" * width for width in widths], *cells]
    return "\n".join(_aligned(line, widths) for line in lines)


def facts(lines: dict[str, object]) -> str:
    """Return names and values in two columns; empty values are left out."""
    given = [(name, one_line(value, 1_000)) for name, value in lines.items() if value not in (None, "")]
    width = max(len(name) for name, _ in given)
    return "\n".join(f"{name.ljust(width)}  {value}" for name, value in given)


def one_line(value: object, limit: int) -> str:
    """Return a value in one line of at most *limit* characters, with characters that steer a terminal escaped."""
    text = "" if value is None else " ".join(str(value).split())
    safe = "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
    return safe if len(safe) <= limit else f"{safe[: limit - 3]}..."


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
