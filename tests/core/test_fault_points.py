"""The points at which tests let faults happen: all are known, and nothing but a test's own call arms them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import django_durable
from django_durable.core import fault_points

PACKAGE = Path(django_durable.__file__).parent
MODULE = Path(fault_points.__file__)


@pytest.fixture
def passed() -> Iterator[list[str]]:
    """Keep the names of the points that are passed."""
    names: list[str] = []
    fault_points.inject(names.append)
    yield names
    fault_points.inject(None)


def test_a_point_is_passed_and_does_nothing() -> None:
    fault_points.point("step.body")


def test_what_a_test_injects_learns_of_every_point_that_is_passed(passed: list[str]) -> None:
    fault_points.point("claim.after")
    fault_points.point("step.body")

    assert passed == ["claim.after", "step.body"]


def test_a_fault_happens_where_the_point_is_passed() -> None:
    def fail(name: str) -> None:
        raise RuntimeError(name)

    fault_points.inject(fail)
    try:
        with pytest.raises(RuntimeError, match=r"claim\.after"):
            fault_points.point("claim.after")
    finally:
        fault_points.inject(None)


def test_the_package_passes_every_point_that_is_documented_and_no_other() -> None:
    calls = (re.findall(r"fault_points\.point\(\"([^\"]*)\"\)", file.read_text()) for file in PACKAGE.rglob("*.py"))

    assert {name for names in calls for name in names} == set(fault_points.POINTS)


def test_nothing_of_the_package_arms_a_point_or_can_be_told_to_from_outside() -> None:
    arming = [file for file in PACKAGE.rglob("*.py") if re.search(r"\b(inject\(|_injected\b)", file.read_text())]
    imported = re.findall(r"^from (\S+) import|^import (\S+)", MODULE.read_text(), flags=re.MULTILINE)

    assert arming == [MODULE]
    assert {"".join(each) for each in imported} == {"__future__", "collections.abc", "types"}
