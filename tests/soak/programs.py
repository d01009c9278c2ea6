"""Random programs, as the data of events: those of :mod:`tests.scenarios.programs`, chosen by a seed."""

from __future__ import annotations

import dataclasses
import random
import re
from typing import Any

from tests.scenarios import programs
from tests.scenarios.programs import (
    RETRIES,
    Atomic,
    Catch,
    Invoke,
    Line,
    Lines,
    Loop,
    Map,
    Parallel,
    Race,
    Run,
    Send,
    Sleep,
    Wait,
    expected,
)

MOST_LEAVES = 11
TOKEN = re.compile(r"#([0-9a-f]{8})")
SIMPLE = (Run, Run, Run, Atomic, Atomic, Map, Sleep, Wait, Invoke, Send)
NESTED = (Loop, Catch, Parallel, Race)


def random_program(chance: random.Random) -> Lines:
    """Return a program of a few lines, some of which hold others."""
    return _lines(chance, chance.randint(3, MOST_LEAVES))


def _lines(chance: random.Random, leaves: int) -> Lines:
    lines: list[Line] = []
    while leaves > 0:
        inner = chance.randint(2, leaves) if leaves > 2 and chance.random() < 0.35 else 1
        lines.append(_nested(chance, inner) if inner > 1 else _simple(chance))
        leaves -= inner
    return tuple(lines)


def _simple(chance: random.Random) -> Line:
    kind = chance.choice(SIMPLE)
    if kind in (Run, Atomic):
        # One in thirty fails for good.
        failures = chance.choices(range(RETRIES + 2), [20, 6, 3, 1])[0]
        return Run(failures) if kind is Run else Atomic(failures)
    if kind is Map:
        return Map(chance.randint(0, 6))
    if kind is Sleep:
        return Sleep(chance.choice([0, 20, 200, 1_500]))
    if kind is Wait:
        return Wait(chance.choice(["early", "in time", "in time", "never"]))
    return Invoke(fails=chance.random() < 0.1) if kind is Invoke else Send()


def _nested(chance: random.Random, leaves: int) -> Line:
    kind = chance.choice(NESTED)
    if kind is Loop:
        return Loop(chance.randint(1, 3), _lines(chance, leaves // 2))
    if kind is Catch:
        return Catch(_lines(chance, leaves))
    branches = tuple(_lines(chance, max(1, leaves // 3)) for _ in range(chance.randint(1, 4)))
    return Parallel(branches) if kind is Parallel else Race(chance.randrange(len(branches)), branches)


def written(value: Any) -> Any:
    """Return a program, or what is in it, as JSON has it."""
    if isinstance(value, tuple):
        return [written(each) for each in value]
    if dataclasses.is_dataclass(value):
        fields = (getattr(value, each.name) for each in dataclasses.fields(value))
        return {type(value).__name__: [written(each) for each in fields]}
    return value


def read(value: Any) -> Any:
    """Return what :func:`written` has written."""
    if isinstance(value, list):
        return tuple(read(each) for each in value)
    if isinstance(value, dict):
        ((name, fields),) = value.items()
        return getattr(programs, name)(*map(read, fields))
    return value


def outcome_of(lines: Lines) -> Any:
    """Return the result that a run of the program must have, as JSON gives it back; "failed" if it must fail."""
    return as_json(expected(lines)[0])


def as_json(value: Any) -> Any:
    """Return a result without tuples, and without the tokens of calls."""
    if isinstance(value, list | tuple):
        return [as_json(each) for each in value]
    return TOKEN.sub("", value) if isinstance(value, str) else value


def tokens_in(text: str | None) -> list[str]:
    """Return the tokens of the calls that a text names."""
    return TOKEN.findall(text or "")
