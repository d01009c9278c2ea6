"""Random handlers: programs of steps, what they must come to, and how a handler plays them.

:func:`expected` is the model: plain Python that knows nothing of replay, turns or time. :func:`play_plain` and
:func:`play_async` are handlers that do the same with steps. Each line of a program has a place, such as ``1.0.2``;
inside loops it also tells the rounds. Bodies are counted by it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from hypothesis import strategies as st

import django_durable as durable

RETRIES = 2
NEVER = "3000d"  #: longer than any program takes


@dataclass(frozen=True)
class Run:
    """A step whose body fails some times first; for good, if those are more than the retries."""

    failures: int


@dataclass(frozen=True)
class Atomic:
    """The same as a step in one transaction with its record."""

    failures: int


@dataclass(frozen=True)
class Map:
    """A step for each of so many items, side by side."""

    items: int


@dataclass(frozen=True)
class Sleep:
    """A sleep of so many minutes."""

    minutes: int


@dataclass(frozen=True)
class Wait:
    """A wait for an event that comes early, or comes while it is waited for, or never."""

    comes: str


@dataclass(frozen=True)
class Invoke:
    """A child that sleeps and adds one, or fails."""

    fails: bool


@dataclass(frozen=True)
class Send:
    """A step that sends an event."""


@dataclass(frozen=True)
class Loop:
    """The same lines several times."""

    times: int
    lines: Lines


@dataclass(frozen=True)
class Catch:
    """Lines whose failure is caught."""

    lines: Lines


@dataclass(frozen=True)
class Parallel:
    """Branches of which all are waited for."""

    branches: tuple[Lines, ...]


@dataclass(frozen=True)
class Race:
    """Branches of which one comes to its end, and the others sleep first for longer than any program takes."""

    winner: int
    branches: tuple[Lines, ...]


Line = Run | Atomic | Map | Sleep | Wait | Invoke | Send | Loop | Catch | Parallel | Race
Lines = tuple[Line, ...]

SIMPLE = st.one_of(
    st.builds(Run, st.integers(0, RETRIES)),
    st.builds(Atomic, st.integers(0, RETRIES)),
    st.builds(Map, st.integers(0, 3)),
    st.builds(Sleep, st.integers(0, 90)),
    st.builds(Wait, st.sampled_from(["early", "in time", "never"])),
    st.builds(Invoke, st.just(False)),
    st.builds(Send),
)
FAILING = st.one_of(st.builds(Run, st.just(RETRIES + 1)), st.builds(Invoke, st.just(True)))


def _nested(lines: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    several = st.lists(lines.map(_lines), min_size=1, max_size=3).map(tuple)
    return st.one_of(
        st.builds(Loop, st.integers(1, 3), lines.map(_lines)),
        st.builds(Catch, lines.map(_lines)),
        st.builds(Parallel, several),
        several.flatmap(lambda branches: st.builds(Race, st.integers(0, len(branches) - 1), st.just(branches))),
        st.lists(lines, min_size=1, max_size=3).map(tuple),
    )


def _lines(line: Any) -> Lines:
    """Return the lines of a line, or of several, nested or not."""
    return sum(map(_lines, line), ()) if isinstance(line, tuple) else (line,)


PROGRAMS = st.recursive(SIMPLE | SIMPLE | FAILING, _nested, max_leaves=8).map(_lines)


class Failed(Exception):
    """What the model raises where a step fails for good."""


# What must come of it


def expected(program: Lines) -> tuple[object, Counter[str]]:
    """Return the result of a program, ``failed`` if it fails, and how often each body runs."""
    bodies: Counter[str] = Counter()
    try:
        return _model_lines(program, "", bodies), bodies
    except Failed:
        return "failed", bodies


def _model_lines(lines: Lines, place: str, bodies: Counter[str]) -> list[Any]:
    return [_model(line, f"{place}.{number}", bodies) for number, line in enumerate(lines)]


def _model(line: Line, place: str, bodies: Counter[str]) -> Any:
    if isinstance(line, Run | Atomic):
        bodies[place] += min(line.failures, RETRIES) + 1
        return place if line.failures <= RETRIES else _fail(place)
    if isinstance(line, Map):
        bodies.update(_items(line, place))
        return _items(line, place)
    if isinstance(line, Wait):
        return place if line.comes != "never" else None
    if isinstance(line, Invoke):
        bodies[f"child {place}"] += 1
        return place if not line.fails else _fail(place)
    if isinstance(line, Loop):
        return [_model_lines(line.lines, f"{place}.{turn}", bodies) for turn in range(line.times)]
    if isinstance(line, Catch):
        try:
            return _model_lines(line.lines, place, bodies)
        except Failed as failed:
            return f"caught {failed}"
    if isinstance(line, Parallel):
        return _model_all(line.branches, place, bodies)
    if isinstance(line, Race):
        return [line.winner, _model_lines(line.branches[line.winner], f"{place}.{line.winner}", bodies)]
    return None


def _model_all(branches: tuple[Lines, ...], place: str, bodies: Counter[str]) -> list[Any]:
    ends: list[Any] = []
    for number, branch in enumerate(branches):
        try:
            ends.append(_model_lines(branch, f"{place}.{number}", bodies))
        except Failed as failed:
            ends.append(failed)
    for end in ends:
        if isinstance(end, Failed):
            raise end
    return ends


def _items(line: Map, place: str) -> list[str]:
    return [f"{place}.{item}" for item in range(line.items)]


def _fail(place: str) -> Any:
    raise Failed(place)


# Handlers that do it


@dataclass
class World:
    """What is outside the handlers: what bodies do, how long minutes are, which events come; also of a soak."""

    bodies: Counter[str]

    def body(self, place: str, failures: int) -> str:
        """Count a call; fail so many times first, and name the place in every error."""
        self.bodies[place] += 1
        if self.bodies[place] <= failures:
            raise ValueError(place)
        return place

    async def async_body(self, place: str, failures: int) -> str:
        """Do the same in the event loop, and let others go on meanwhile."""
        await asyncio.sleep(0)
        return self.body(place, failures)

    def atomic_body(self, place: str, failures: int) -> str:
        """Do the same in a transaction."""
        return self.body(place, failures)

    def child(self, event: durable.Event, step: durable.Step) -> str:
        """Sleep, count a call, and fail or return the place."""
        place = event.data["place"]
        step.sleep("nap", self.minutes(1))
        step.run("count", self.body, f"child {place}", 0)
        if event.data["fails"]:
            raise durable.NonRetriable(place)
        return str(place)

    def minutes(self, count: int) -> str:
        """Return how long a sleep of so many minutes takes."""
        return f"{count}m"

    def wait_options(self, line: Wait) -> dict[str, Any]:
        """Return how long the wait lasts, and which events it is for beside their name."""
        return {"timeout": "1h"}

    def event(self, place: str) -> durable.Event:
        """Return the event that is sent at this place."""
        return durable.Event("test/sent")

    def saw(self, value: Any) -> Any:
        """Note what a step has given to the handler."""
        return value


def waits(lines: Lines, place: str = "") -> dict[str, str]:
    """Return the places of the waits that come to be, with when their event comes."""
    found: dict[str, str] = {}
    for number, line in enumerate(lines):
        here = f"{place}.{number}"
        if isinstance(line, Wait):
            found[here] = line.comes
        elif isinstance(line, Loop):
            for turn in range(line.times):
                found |= waits(line.lines, f"{here}.{turn}")
        elif isinstance(line, Catch):
            found |= waits(line.lines, here)
        elif isinstance(line, Parallel):
            for index, branch in enumerate(line.branches):
                found |= waits(branch, f"{here}.{index}")
        elif isinstance(line, Race):
            found |= waits(line.branches[line.winner], f"{here}.{line.winner}")
    return found


def play_plain(world: World, step: durable.Step, lines: Lines, place: str = "") -> list[Any]:
    """Do the lines one after the other; steps of one kind share their id: branch and ordinal tell them apart."""
    return [_play_plain(world, step, line, f"{place}.{number}") for number, line in enumerate(lines)]


def _play_plain(world: World, step: durable.Step, line: Line, place: str) -> Any:
    def branch(number: int, lines: Lines, *, sleeps: bool = False) -> Callable[[], Any]:
        def play() -> Any:
            if sleeps:
                step.sleep("lose", NEVER)
            return play_plain(world, step, lines, f"{place}.{number}")

        return play

    if isinstance(line, Run):
        return world.saw(step.run("run", world.body, place, line.failures))
    if isinstance(line, Atomic):
        return world.saw(step.atomic("atomic", world.atomic_body, place, line.failures))
    if isinstance(line, Map):
        return world.saw(step.map("map", partial(world.body, failures=0), _items(line, place)))
    if isinstance(line, Sleep):
        return step.sleep("sleep", world.minutes(line.minutes))
    if isinstance(line, Wait):
        event = step.wait_for_event("wait", f"test/{place}", **world.wait_options(line))
        return event and event.data["place"]
    if isinstance(line, Invoke):
        return step.invoke("invoke", "child", {"place": place, "fails": line.fails})
    if isinstance(line, Send):
        step.send_event("send", world.event(place))
        return None
    if isinstance(line, Loop):
        return [play_plain(world, step, line.lines, f"{place}.{turn}") for turn in range(line.times)]
    if isinstance(line, Catch):
        try:
            return play_plain(world, step, line.lines, place)
        except durable.StepError as error:
            return f"caught {error.message}"
    if isinstance(line, Parallel):
        return list(step.parallel(*[branch(number, lines) for number, lines in enumerate(line.branches)]))
    first = step.race(
        *[branch(number, lines, sleeps=number != line.winner) for number, lines in enumerate(line.branches)]
    )
    return [first.index, first.value]


async def play_async(world: World, step: durable.Step, lines: Lines, place: str = "") -> list[Any]:
    """Do the lines one after the other; tasks share the names of steps, so each has its place as its id."""
    return [await _play_async(world, step, line, f"{place}.{number}") for number, line in enumerate(lines)]


async def _play_async(world: World, step: durable.Step, line: Line, place: str) -> Any:
    def branch(number: int, lines: Lines) -> Any:
        return play_async(world, step, lines, f"{place}.{number}")

    async def loser(number: int, lines: Lines) -> Any:
        await step.sleep(f"{place} loses {number}", NEVER)
        return await branch(number, lines)

    if isinstance(line, Run):
        body = world.async_body if line.failures % 2 else world.body
        return world.saw(await step.run(place, body, place, line.failures))
    if isinstance(line, Atomic):
        return world.saw(await step.atomic(place, world.atomic_body, place, line.failures))
    if isinstance(line, Map):
        return world.saw(await asyncio.gather(*[step.run(item, world.body, item, 0) for item in _items(line, place)]))
    if isinstance(line, Sleep):
        return await step.sleep(place, world.minutes(line.minutes))
    if isinstance(line, Wait):
        event = await step.wait_for_event(place, f"test/{place}", **world.wait_options(line))
        return event and event.data["place"]
    if isinstance(line, Invoke):
        return await step.invoke(place, "child", {"place": place, "fails": line.fails})
    if isinstance(line, Send):
        await step.send_event(place, world.event(place))
        return None
    if isinstance(line, Loop):
        return [await play_async(world, step, line.lines, f"{place}.{turn}") for turn in range(line.times)]
    if isinstance(line, Catch):
        try:
            return await play_async(world, step, line.lines, place)
        except durable.StepError as error:
            return f"caught {error.message}"
    if isinstance(line, Parallel):
        branches = [branch(number, lines) for number, lines in enumerate(line.branches)]
        ends = await asyncio.gather(*branches, return_exceptions=True)
        for end in ends:
            if isinstance(end, BaseException):
                raise end
        return ends
    plays = [branch if number == line.winner else loser for number in range(len(line.branches))]
    return await _race(
        [play(number, lines) for number, (play, lines) in enumerate(zip(plays, line.branches, strict=True))]
    )


async def _race(branches: list[Any]) -> list[Any]:
    tasks = [asyncio.ensure_future(each) for each in branches]
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    (first,) = done
    return [tasks.index(first), first.result()]
