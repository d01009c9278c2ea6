"""What every subject of the benchmarks shares: a figure, how it is measured, and the size of what is prepared."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

REPEATS = 3
ROWS = "DURABLE_BENCH_ROWS"


@dataclass(frozen=True, slots=True)
class Figure:
    """One measure: the median of its repeats and the extremes, in *unit*."""

    workload: str
    unit: str
    median: float
    least: float
    most: float

    @classmethod
    def of(cls, workload: str, unit: str, values: Sequence[float]) -> Figure:
        """Return the figure that these repeats make."""
        return cls(workload, unit, statistics.median(values), min(values), max(values))

    def __str__(self) -> str:
        return f"{self.workload:64} {self.median:10.3f} {self.unit:8} ({self.least:.3f} to {self.most:.3f})"


def measure(workload: str, unit: str, once: Callable[[], float], *, repeats: int = REPEATS) -> Figure:
    """Return the figure of what *once* returns, called once more before to prepare caches and connections."""
    once()
    return Figure.of(workload, unit, [once() for _ in range(repeats)])


def rows() -> int:
    """Return how many rows a subject about large tables prepares at most."""
    return int(os.environ[ROWS])
