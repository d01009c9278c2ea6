from __future__ import annotations

from django_durable.management.outputs import facts, one_line, table


def test_a_table_is_aligned() -> None:
    assert table(["STEP", "N"], [["charge", 1], ["a", 22]]).splitlines() == [
        "STEP    N",
        "------  --",
        "charge  1",
        "a       22",
    ]


def test_a_table_without_rows_has_its_columns() -> None:
    assert table(["STEP"], []).splitlines() == ["STEP", "----"]


def test_long_cells_are_cut() -> None:
    assert table(["X", "Y"], [["x" * 99, "y"]]).splitlines()[2] == "x" * 57 + "...  y"


def test_facts_leave_out_what_is_empty() -> None:
    assert facts({"id": 7, "waiting for": None, "error": ""}) == "id  7"


def test_text_cannot_steer_the_terminal() -> None:
    assert one_line("a\n\x1b[2J\ud800b", 100) == "a \\x1b[2J\\ud800b"
