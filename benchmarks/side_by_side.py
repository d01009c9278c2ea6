"""W1 to W5 beside the peers, in one run of the peer benchmark, and the ratios that decide."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PEERS = ("limits", "dbos", "absurd", "celery")
FOLDER = "DURABLE_BENCH_PEERS"
ADAPTER = Path(__file__).with_name("peers") / "adapter.py"
BESIDE = Path(__file__).resolve().parents[2] / "shared" / "bench"

Lines = Sequence[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Goal:
    """A ratio of two figures of one run, and whether it is good enough."""

    text: str
    ours: dict[str, Any]
    theirs: dict[str, Any]
    target: float
    at_least: bool

    def judge(self, lines: Lines) -> str | None:
        """Return the line about it; None if one of the figures was not measured."""
        ours, theirs = _median(lines, self.ours), _median(lines, self.theirs)
        if ours is None or not theirs:
            return None
        ratio = ours / theirs
        is_met = ratio >= self.target if self.at_least else ratio <= self.target
        bound = f"{'at least' if self.at_least else 'at most'} {self.target:g}"
        return f"{self.text:60} {ours:9.4g} / {theirs:9.4g} = {ratio:6.2f}  {bound:14} {'yes' if is_met else 'NO'}"


def _goal(
    text: str, target: float, figure: dict[str, Any], theirs: dict[str, Any] | None = None, variant: str = "tuned"
) -> Goal:
    ours = {"system": "durable", "variant": variant, **figure}
    return Goal(text, ours, theirs or {"system": "absurd", "variant": "tuned", **figure}, abs(target), target > 0)


_W1 = {"workload": "W1", "figure": "steps", "workers": 2}
_PGBENCH = {"system": "limits", "variant": "postgres", "figure": "commits", "clients": 2}
#: A negative target is the most that is allowed.
GOALS = (
    _goal("W1, 2 workers, steps/s, to absurd", 2, _W1),
    _goal("W1, 2 workers, steps/s, to pgbench's commits/s", 0.4, _W1, _PGBENCH),
    *(
        _goal(f"W2, {steps} steps, p50, default settings, to absurd", -0.75, figure, variant="default")
        for steps in (1, 10)
        for figure in [{"workload": "W2", "figure": "latency p50", "steps": steps}]
    ),
    *(
        _goal(f"W3, {steps} steps, to absurd", -0.45, {"workload": "W3", "figure": "one run", "steps": steps})
        for steps in (1_000, 10_000)
    ),
    *(
        _goal(f"W4, {runs} runs resumed {mode}, to absurd", 2.7, figure)
        for runs in (1_000, 10_000)
        for mode in ("one by one", "bulk")
        for figure in [{"workload": "W4", "figure": "resume", "runs": runs, "mode": mode}]
    ),
    _goal(
        "W3, 10,000 steps, to our own 1,000",
        -11,
        {"workload": "W3", "figure": "one run", "steps": 10_000},
        {"system": "durable", "variant": "tuned", "workload": "W3", "figure": "one run", "steps": 1_000},
    ),
)


def _median(lines: Lines, wanted: dict[str, Any]) -> float | None:
    values = [line["value"] for line in lines if wanted.items() <= line.items()]
    return statistics.median(values) if values else None


def run(peers: str, folder: Path | None, others: Iterable[str], *, as_json: bool) -> int:
    """Run the peer benchmark with our adapter; return its exit status. The file of its lines is kept."""
    program = _program(folder)
    with tempfile.NamedTemporaryFile(prefix="durable-bench-", suffix=".jsonl", delete=False) as file:
        out = Path(file.name)
    command = [sys.executable, str(program), "--peers", peers, "--system", f"durable={ADAPTER}", "--out", str(out)]
    stdout = None if as_json else subprocess.DEVNULL
    status = subprocess.run([*command, *others], stdout=stdout, check=False).returncode
    print(*verdicts([json.loads(line) for line in out.read_text().splitlines()]), sep="\n", file=sys.stderr)
    return status


def verdicts(lines: Lines) -> Iterator[str]:
    """Yield a line for each goal whose figures were measured."""
    return (line for goal in GOALS if (line := goal.judge(lines)) is not None)


def _program(folder: Path | None) -> Path:
    program = Path(folder or os.environ.get(FOLDER) or BESIDE) / "run.py"
    if not program.is_file():
        raise SystemExit(
            f"scripts/bench: the peer benchmark was not found: {program} is missing. Name the folder of its run.py "
            f"with --peers-folder or in {FOLDER}."
        )
    return program


if __name__ == "__main__":
    found = [json.loads(line) for name in sys.argv[1:] for line in Path(name).read_text().splitlines()]
    print(*verdicts(found), sep="\n")
