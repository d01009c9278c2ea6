"""What the ledger of a soak says about bodies that ran again, too late, and after faults."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.soak.faults import Fault
from tests.soak.ledger import Ledger


def start(time: float, token: str, *, checked: float | None = None, attempt: int = 1, pid: int = 1) -> dict[str, Any]:
    """Return the line of a call that starts; its lease was checked just before, if nothing else is said."""
    step = {"run": "r", "place": ".0", "token": token, "attempt": attempt, "pid": pid, "seen": []}
    return {"kind": "start", "time": time, "checked": time if checked is None else checked, **step}


def end(time: float, token: str) -> dict[str, Any]:
    """Return the line of a call that ends."""
    return {"kind": "end", "time": time, "token": token}


def ledger(folder: Path, *lines: dict[str, Any]) -> Ledger:
    """Read these lines."""
    (folder / "ledger").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return Ledger(folder)


def test_a_call_that_repeats_an_attempt_is_counted_and_another_attempt_is_not(tmp_path: Path) -> None:
    read = ledger(tmp_path, start(1, "a"), start(5, "b"), end(6, "b"), start(7, "c", attempt=2))

    assert read.repeated == 1


def test_a_call_after_its_steps_record_is_late(tmp_path: Path) -> None:
    read = ledger(tmp_path, start(1, "a"), end(2, "a"), start(3, "b"), end(4, "b"))

    assert [(late.token, memo.token) for late, memo in read.late({"a"})] == [("b", "a")]
    assert read.overtaken({"a"}) == []


def test_a_call_before_its_steps_record_is_not_late(tmp_path: Path) -> None:
    read = ledger(tmp_path, start(1, "a"), end(2, "a"), start(3, "b"), end(4, "b"))

    assert read.late({"b"}) == []


def test_a_late_call_whose_lease_held_before_the_other_began_was_overtaken(tmp_path: Path) -> None:
    read = ledger(tmp_path, start(2, "a"), end(3, "a"), start(5, "b", checked=1))

    assert [late.token for late, _ in read.overtaken({"a"})] == ["b"]
    assert read.late({"a"}) == []


@pytest.mark.parametrize("checked", [2.5, 4.0])
def test_a_late_call_whose_lease_was_checked_too_late_has_no_excuse(tmp_path: Path, checked: float) -> None:
    read = ledger(tmp_path, start(2, "a"), end(3, "a"), start(5, "b", checked=checked))

    assert [late.token for late, _ in read.late({"a"})] == ["b"]


def test_a_recovery_lasts_from_the_fault_until_the_interrupted_step_goes_on(tmp_path: Path) -> None:
    read = ledger(tmp_path, start(1, "a"), start(4.5, "b", pid=2), end(5, "b"))

    assert read.recoveries(Fault("kill_worker", 2.0, (1,))) == [2.5]
    assert read.recoveries(Fault("kill_worker", 2.0, (2,))) == [], "nothing of that process was under way"
