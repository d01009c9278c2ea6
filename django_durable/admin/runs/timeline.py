"""The picture of a run: when each step waited and worked, as the geometry of an SVG. No database, no HTML."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ..shared.html import elapsed

ROW = 24  #: height of a row, in pixels
TICKS = 4  #: parts of the scale
LONGEST_LABEL = 32
_THINNEST = 0.4  #: per cent; thinner bars could not be seen

Attempt = tuple[str, datetime.datetime, datetime.datetime]  #: its status, start and end


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """The times of one step; open ends are None. *attempts* are those that did not become the memo."""

    label: str
    status: str
    planned_at: datetime.datetime
    started_at: datetime.datetime | None = None
    finished_at: datetime.datetime | None = None
    attempts: Sequence[Attempt] = ()


@dataclass(frozen=True, slots=True)
class Bar:
    """A rectangle: its kind (``pause``, or a status), and its place in per cent of the width."""

    kind: str
    x: str
    width: str


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the picture; *y* and *baseline* in pixels. All numbers are text, so that no locale groups digits."""

    label: str
    title: str
    y: str
    baseline: str
    bars: list[Bar]


@dataclass(frozen=True, slots=True)
class Tick:
    """A mark of the scale."""

    x: str
    anchor: str
    label: str


@dataclass(frozen=True, slots=True)
class Timeline:
    """The picture of a run."""

    rows: list[Row]
    height: str
    duration: str
    ticks: list[Tick] = field(default_factory=list)


def draw(spans: Sequence[Span], began: datetime.datetime, ended: datetime.datetime) -> Timeline:
    """Place each span on a scale from *began* to *ended*.

    A row is a pause from the first reach of the step until its end, with its attempts on top.
    """
    scale = _Scale(began, max(ended - began, datetime.timedelta(milliseconds=1)))
    rows = [_row(span, scale, (index + 1) * ROW, ended) for index, span in enumerate(spans)]
    return Timeline(rows, str((len(rows) + 1) * ROW), elapsed(ended - began), list(_ticks(scale)))


@dataclass(frozen=True, slots=True)
class _Scale:
    began: datetime.datetime
    length: datetime.timedelta

    def bar(self, kind: str, start: datetime.datetime, end: datetime.datetime) -> Bar:
        left = min(max((start - self.began) / self.length * 100, 0), 100 - _THINNEST)
        right = min(max((end - self.began) / self.length * 100, left + _THINNEST), 100)
        return Bar(kind, f"{left:.2f}%", f"{right - left:.2f}%")


def _row(span: Span, scale: _Scale, y: int, ended: datetime.datetime) -> Row:
    end = span.finished_at or ended
    bars = [scale.bar("pause", span.planned_at, end)]
    bars += [scale.bar(*attempt) for attempt in span.attempts]
    if span.started_at is not None:
        bars.append(scale.bar(span.status, span.started_at, end))
    label = span.label if len(span.label) <= LONGEST_LABEL else f"{span.label[: LONGEST_LABEL - 1]}…"
    return Row(label, f"{span.label}: {elapsed(end - span.planned_at)}", str(y), str(y + ROW - 8), bars)


def _ticks(scale: _Scale) -> Iterator[Tick]:
    for part in range(TICKS + 1):
        anchor = "start" if part == 0 else "end" if part == TICKS else "middle"
        yield Tick(f"{part * 100 / TICKS:.2f}%", anchor, elapsed(scale.length * part / TICKS))
