from __future__ import annotations

import datetime

from django_durable.admin.runs.timeline import Bar, Span, draw

BEGAN = datetime.datetime(2026, 1, 1, 12, tzinfo=datetime.UTC)


def at(seconds: float) -> datetime.datetime:
    return BEGAN + datetime.timedelta(seconds=seconds)


def span(planned: float, started: float | None = None, finished: float | None = None, **values: object) -> Span:
    return Span(
        **{"label": "charge", "status": "completed", **values},  # type: ignore[arg-type]
        planned_at=at(planned),
        started_at=None if started is None else at(started),
        finished_at=None if finished is None else at(finished),
    )


def test_a_step_is_a_pause_with_its_work_on_top() -> None:
    [row] = draw([span(0, 5, 10)], at(0), at(20)).rows

    assert row.bars == [Bar("pause", "0.00%", "50.00%"), Bar("completed", "25.00%", "25.00%")]


def test_other_attempts_have_bars_of_their_own() -> None:
    [row] = draw([span(0, 8, 10, attempts=[("failed", at(0), at(2)), ("discarded", at(4), at(6))])], at(0), at(10)).rows

    assert [(bar.kind, bar.x) for bar in row.bars[1:]] == [
        ("failed", "0.00%"),
        ("discarded", "40.00%"),
        ("completed", "80.00%"),
    ]


def test_an_open_step_reaches_to_the_end() -> None:
    [row] = draw([span(5, status="waiting")], at(0), at(10)).rows

    assert row.bars == [Bar("pause", "50.00%", "50.00%")]


def test_the_shortest_step_can_be_seen() -> None:
    [row] = draw([span(3600, 3600, 3600.001)], at(0), at(3600)).rows

    assert [bar.width for bar in row.bars] == ["0.40%", "0.40%"]
    assert [bar.x for bar in row.bars] == ["99.60%", "99.60%"]


def test_nothing_leaves_the_picture() -> None:
    [row] = draw([span(-5, -5, 50)], at(0), at(10)).rows

    assert row.bars[0] == Bar("pause", "0.00%", "100.00%")


def test_a_run_without_length_can_be_drawn() -> None:
    timeline = draw([span(0, 0, 0)], at(0), at(0))

    assert timeline.duration == "0s"
    assert len(timeline.rows) == 1


def test_rows_stand_below_one_another() -> None:
    timeline = draw([span(0), span(0)], at(0), at(1))

    assert [row.y for row in timeline.rows] == ["24", "48"]
    assert timeline.height == "72"


def test_the_scale_is_written_for_people() -> None:
    assert [tick.label for tick in draw([], at(0), at(7200)).ticks] == ["0s", "30m", "1h", "1h 30m", "2h"]


def test_a_long_name_is_cut_and_kept_as_title() -> None:
    [row] = draw([span(0, label="x" * 100)], at(0), at(1)).rows

    assert len(row.label) == 32
    assert row.title == "x" * 100 + ": 1s"
