"""What the runs of pytest came to, read from their result files."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING
from xml.etree import ElementTree

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

NO_TESTS_COLLECTED = 5


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of one run: per test None, or why it was skipped; and the failures' names."""

    title: str
    status: int
    seconds: float
    tests: dict[str, str | None]
    failures: list[str]

    @classmethod
    def read(cls, title: str, status: int, path: Path) -> Report:
        """Read the result file that ``pytest --junit-xml`` wrote, if pytest got as far as that."""
        root = ElementTree.parse(path).getroot() if path.exists() else ElementTree.Element("testsuites")
        cases = {f"{case.get('classname')}.{case.get('name')}": case for case in root.iter("testcase")}
        return cls(
            title,
            status,
            sum(float(suite.get("time", 0)) for suite in root.iter("testsuite")),
            {name: _skip_reason(case) for name, case in cases.items()},
            [
                name
                for name, case in cases.items()
                if case.find("failure") is not None or case.find("error") is not None
            ],
        )

    @property
    def passed(self) -> bool:
        """Whether nothing failed; a part in which the given arguments select nothing did not fail."""
        return self.status in (0, NO_TESTS_COLLECTED)

    def __str__(self) -> str:
        skipped = sum(reason is not None for reason in self.tests.values())
        passed = len(self.tests) - skipped - len(self.failures)
        verdict = "" if self.passed else f"   FAILED (pytest ended with {self.status})"
        return (
            f"{self.title:12} {passed} passed, {len(self.failures)} failed, {skipped} skipped"
            f" in {self.seconds:.0f} s{verdict}"
        )


def summary(reports: list[Report]) -> str:
    """Return the closing lines: each run, what failed, and what was skipped in every run and why."""
    lines = ["", "=== Summary ===", *map(str, reports)]
    lines += [f"  failed on {report.title}: {name}" for report in reports for name in report.failures]
    skipped = Counter(_skipped_everywhere(reports))
    lines += [f"{skipped.total()} tests skipped{' in every run:' if skipped else '.'}"]
    lines += [f"{count:5}  {reason}" for reason, count in skipped.most_common()]
    if not any(report.tests for report in reports):
        lines.append("No test ran.")
    return "\n".join(lines)


def _skipped_everywhere(reports: list[Report]) -> Iterable[str]:
    names = {name for report in reports for name in report.tests}
    for name in names:
        reasons = [report.tests[name] for report in reports if name in report.tests]
        if None not in reasons:
            yield reasons[0] or ""


def _skip_reason(case: ElementTree.Element) -> str | None:
    skipped = case.find("skipped")
    return None if skipped is None else skipped.get("message", "")
