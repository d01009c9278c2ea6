"""Handles of runs, over an engine whose answers the test gives."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from django_durable.core.functions import run_handles
from django_durable.core.functions.run_handles import LONGEST_PAUSE, RunHandle, RunState
from django_durable.exceptions import (
    ConfigurationError,
    ResultInTransaction,
    ResultTimeout,
    RunCancelled,
    RunFailed,
)


def state(status: str, **values: Any) -> RunState:
    return RunState(**{"function_id": "shop/nothing", "status": status, "output": None, "error": None, **values})


class Script:
    """An engine that gives these answers, one for each look, the last one for ever."""

    def __init__(self, *states: RunState) -> None:
        self.states = list(states)
        self.looks = 0
        self.in_transaction = False

    def look(self, run_id: str) -> RunState:
        self.looks += 1
        return self.states.pop(0) if len(self.states) > 1 else self.states[0]

    def decode(self, value: Any) -> Any:
        return value

    def is_in_transaction(self) -> bool:
        return self.in_transaction

    def cancel(self, run_id: str, reason: str) -> bool:
        return reason == "why"

    async def in_thread(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return call(*args, **kwargs)


Play = Callable[..., Script]


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Play:
    """Return a function that lets handles be answered by a script."""

    def play(*states: RunState) -> Script:
        script = Script(*states)
        monkeypatch.setattr(run_handles, "_engine", script)
        return script

    return play


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Give the pauses that were made, none of which takes time; the clock of time-outs moves with them."""
    made: list[float] = []

    async def asleep(seconds: float) -> None:
        made.append(seconds)

    monkeypatch.setattr(run_handles.time, "sleep", made.append)
    monkeypatch.setattr(run_handles.time, "monotonic", lambda: sum(made))
    monkeypatch.setattr(run_handles.asyncio, "sleep", asleep)
    return made


def test_a_handle_looks_once_until_it_is_told_to_look_again(play: Play) -> None:
    script = play(state("queued"), state("running"))
    run = RunHandle[Any]("1")

    assert (run.status, run.status, script.looks) == ("queued", "queued", 1)
    assert (run.refresh().status, script.looks) == ("running", 2)


def test_the_result_is_waited_for_with_growing_pauses(play: Play, pauses: list[float]) -> None:
    script = play(*[state("waiting")] * 30, state("completed", output='{"$":"tuple","v":[1,2]}'))

    assert RunHandle[Any]("1").result() == (1, 2)

    assert script.looks == 31
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[-1]) == (run_handles.FIRST_PAUSE, LONGEST_PAUSE)


def test_a_result_that_is_there_is_not_waited_for(play: Play, pauses: list[float]) -> None:
    script = play(state("completed", output="7"))
    script.in_transaction = True

    assert (RunHandle[Any]("1").result(timeout=0), pauses) == (7, [])


@pytest.mark.parametrize("timeout", [2, "2s", 0, -1])
def test_the_wait_ends_when_the_time_is_over(play: Play, pauses: list[float], timeout: Any) -> None:
    play(state("waiting"))

    with pytest.raises(ResultTimeout, match=r"Run 1 has not ended within .* s: it is waiting, and goes on") as late:
        RunHandle[Any]("1").result(timeout)

    assert isinstance(late.value, TimeoutError)
    assert sum(pauses) == pytest.approx(2 if timeout in (2, "2s") else 0)


def test_a_wait_inside_a_transaction_is_refused_at_once(play: Play, pauses: list[float]) -> None:
    play(state("queued")).in_transaction = True

    with pytest.raises(ResultInTransaction, match="a transaction is open"):
        RunHandle[Any]("1").result()
    assert pauses == []


def test_a_failed_run_raises_its_error(play: Play) -> None:
    error = {"type": "shop.CardError", "message": "declined", "traceback": "Traceback: in charge"}
    play(state("failed", error=json.dumps(error)))

    with pytest.raises(RunFailed, match=r"Run 1 failed: shop.CardError: declined") as failed:
        RunHandle[Any]("1").result()

    assert (failed.value.run_id, failed.value.type, failed.value.traceback) == (
        "1",
        "shop.CardError",
        "Traceback: in charge",
    )


@pytest.mark.parametrize("status", ["cancelled", "skipped"])
def test_a_run_that_was_ended_from_outside_raises_why(play: Play, status: str) -> None:
    play(state(status, error='{"type": "Cancelled", "message": "not wanted"}'))

    with pytest.raises(RunCancelled, match=f"Run 1 was {status}: not wanted") as ended:
        RunHandle[Any]("1").result()

    assert (ended.value.status, ended.value.reason) == (status, "not wanted")


def test_async_code_waits_as_long(play: Play, pauses: list[float]) -> None:
    play(*[state("waiting")] * 30, state("completed", output="7"))

    assert asyncio.run(RunHandle[Any]("1").aresult("1m")) == 7
    assert (pauses[0], pauses[-1]) == (run_handles.FIRST_PAUSE, LONGEST_PAUSE)


def test_async_code_is_refused_to_wait_in_a_transaction(play: Play) -> None:
    play(state("queued")).in_transaction = True

    with pytest.raises(ResultInTransaction):
        asyncio.run(RunHandle[Any]("1").aresult())


def test_a_handle_forgets_what_it_saw_when_it_cancels(play: Play) -> None:
    play(state("waiting"), state("cancelled"))
    run = RunHandle[Any]("1")
    assert run.status == "waiting"

    assert (run.cancel("why"), run.status) == (True, "cancelled")
    assert asyncio.run(run.acancel()) is False


def test_without_an_engine_a_handle_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_handles, "_engine", None)

    with pytest.raises(ConfigurationError, match=r"django.setup\(\)"):
        RunHandle[Any]("1").refresh()
