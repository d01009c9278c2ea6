"""The statuses of a run."""

from __future__ import annotations

from django_durable.core.functions.run_statuses import ENDED, LIVE, RunStatus


def test_a_run_is_live_until_it_has_ended() -> None:
    assert {*LIVE, *ENDED} == {*RunStatus}
    assert not {*LIVE} & {*ENDED}
