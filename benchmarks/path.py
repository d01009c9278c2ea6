"""Which way one event takes through the package's files: calls, functions, files, and moves from file to file.

A long way is hard to read. What is counted does not depend on the machine: ``tests/benchmarks/test_path.py`` holds it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import django_durable as durable

from .figures import Figure

PACKAGE = str(Path(durable.__file__).parent)
NESTED = ("<genexpr>", "<listcomp>", "<dictcomp>", "<setcomp>", "<lambda>")  #: part of the function around them
MEASURES = ("calls", "functions", "files", "moves")


@dataclass(frozen=True, slots=True)
class Way:
    """How often the package's own functions are called, how many are, in how many files, and how often from another."""

    calls: int
    functions: int
    files: int
    moves: int


def figures() -> Iterator[Figure]:
    """Count the way of one event to the end of a run of one step, and the part that a further step adds."""
    register()
    one, two = way_of(partial(send, 1)), way_of(partial(send, 2))
    for name in MEASURES:
        yield Figure.of("one event, a run of 1 step", name, [getattr(one, name)])
    for name in ("calls", "moves"):
        yield Figure.of("one more step.run", name, [getattr(two, name) - getattr(one, name)])


def way_of(run: Callable[[], Any]) -> Way:
    """Return the way that *run* takes, once caches and connections are prepared."""
    run()
    calls = list(_calls(run))
    return Way(
        calls=len(calls),
        functions=len({code for code, _ in calls}),
        files=len({code.co_filename for code, _ in calls}),
        moves=sum(code.co_filename != caller for code, caller in calls),
    )


def _calls(run: Callable[[], Any]) -> Iterator[tuple[CodeType, str]]:
    """Yield each call of a function of the package, and the file of the function of the package that led to it."""
    called: list[tuple[CodeType, str]] = []

    def note(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call" and _is_own(frame):
            called.append((frame.f_code, _caller(frame)))

    sys.setprofile(note)
    try:
        run()
    finally:
        sys.setprofile(None)
    return iter(called)


def _is_own(frame: FrameType) -> bool:
    code = frame.f_code
    return code.co_filename.startswith(PACKAGE) and code.co_name not in NESTED


def _caller(frame: FrameType) -> str:
    outer = frame.f_back
    while outer is not None and not _is_own(outer):
        outer = outer.f_back
    return outer.f_code.co_filename if outer else ""


def send(steps: int) -> None:
    """Send the event that starts a run of so many steps, and work until it has ended."""
    durable.send_event("bench/path", {"steps": steps})


def register() -> None:
    """Register the function that the event starts."""

    @durable.function("path", trigger="bench/path")
    def path(event: durable.Event, step: durable.Step) -> None:
        for number in range(event.data["steps"]):
            step.run(f"step-{number}", int)
