"""What the bodies told: which calls there were, and how long it took after faults until their steps went on."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from .faults import Fault


@dataclass
class Call:
    """One call of a body; times are by ``time.monotonic()``."""

    run: str
    place: str
    token: str
    attempt: int
    pid: int
    started: float
    checked: float | None  #: when the lease was last checked before
    seen: list[str]  #: what the handler had been given by then
    ended: float | None = None

    @property
    def step(self) -> tuple[str, str]:
        """The run and the place."""
        return self.run, self.place


class Ledger:
    """All calls, in the order in which they started."""

    def __init__(self, folder: Path) -> None:
        self.calls: dict[str, Call] = {}
        self.by_step: defaultdict[tuple[str, str], list[Call]] = defaultdict(list)
        file = folder / "ledger"
        lines = map(json.loads, file.read_text().splitlines() if file.exists() else [])
        for line in sorted(lines, key=lambda line: float(line["time"])):
            self._read(line)

    def _read(self, line: dict[str, object]) -> None:
        kind, time, token = line.pop("kind"), line.pop("time"), str(line["token"])
        if kind == "start":
            call = Call(started=time, **line)  # type: ignore[arg-type]
            self.calls[token] = call
            self.by_step[call.step].append(call)
        else:
            self.calls[token].ended = time  # type: ignore[assignment]

    @property
    def repeated(self) -> int:
        """How many calls repeat an attempt that an earlier call had begun."""
        attempts = Counter((*call.step, call.attempt) for call in self.calls.values())
        return sum(attempts.values()) - len(attempts)

    def late(self, recorded: Iterable[str]) -> list[tuple[Call, Call]]:
        """Return the calls that started after their step was recorded, each with the call whose value that is.

        *recorded* are the tokens of these. A process that was stopped between the check of its lease and the body
        could not know: see :meth:`overtaken`.
        """
        return [pair for pair in self._behind(recorded) if not _is_overtaken(*pair)]

    def overtaken(self, recorded: Iterable[str]) -> list[tuple[Call, Call]]:
        """Return the calls that started late although their lease held when it was checked."""
        return [pair for pair in self._behind(recorded) if _is_overtaken(*pair)]

    def _behind(self, recorded: Iterable[str]) -> Iterator[tuple[Call, Call]]:
        for memo in map(self.calls.__getitem__, recorded):
            ended = memo.started if memo.ended is None else memo.ended
            yield from ((call, memo) for call in self.by_step[memo.step] if call.started > ended)

    def recoveries(self, fault: Fault) -> list[float]:
        """Return after how many seconds each step went on whose body was under way in a process that was hit."""
        hit = [each for each in self.calls.values() if each.pid in fault.pids and _is_open(each, fault.time)]
        found = [self._next_sign(each.step, fault.time) for each in hit]
        return [sign - fault.time for sign in found if sign is not None]

    def _next_sign(self, step: tuple[str, str], moment: float) -> float | None:
        times = [time for call in self.by_step[step] for time in (call.started, call.ended) if time and time > moment]
        return min(times, default=None)


def _is_overtaken(call: Call, memo: Call) -> bool:
    # While its lease held, nobody else could begin what was recorded in the end.
    return call.checked is not None and call.checked < memo.started


def _is_open(call: Call, moment: float) -> bool:
    return call.started < moment and (call.ended is None or call.ended > moment)
