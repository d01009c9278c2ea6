"""Passes of async handlers: whatever asyncio decides, it decides on replay as it did first."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import itertools
import random
from collections.abc import Callable, Coroutine
from datetime import UTC
from typing import Any

import pytest

from django_durable.core.functions.steps import RunInfo, Step
from django_durable.core.replay.async_replay import AsyncReplay, PendingCall
from django_durable.core.replay.interrupts import Abort
from django_durable.core.replay.operations import Memo, RunStep, StepKind, StepRef, StepStatus, step_key
from django_durable.core.replay.replay import Aborted, CallSite, Completed, Outcome, Raised, in_body
from django_durable.core.values import encoding
from django_durable.core.values.errors import encode_error
from django_durable.exceptions import InvalidStep, NestedStep, StepError, StepKindMismatch

Handler = Callable[[Any], Coroutine[Any, Any, Any]]


class Pass:
    """One pass over *memos*; what the handler asks for besides waits until the test settles it."""

    def __init__(self, *memos: Memo) -> None:
        self.replay = AsyncReplay({memo.key: memo for memo in random.sample(memos, len(memos))})
        self.asked: dict[str, PendingCall] = {}
        self.seq = len(memos)

    def run(self, handler: Handler) -> Outcome | None:
        info = RunInfo(run_id="1", app_label="test", attempt=int, timezone=UTC, largest_value=1_000)
        step = Step(self.replay, info)
        self.replay.start(lambda: handler(step))
        return self.go_on()

    def go_on(self) -> Outcome | None:
        """Go on for as long as there are results; keep what is asked for then."""
        outcome = self.replay.rest()
        while outcome is None and self.replay.release():
            outcome = self.replay.rest()
        self.asked |= {each.op.ref.name: each for each in self.replay.take_asked()}
        return outcome

    def settle(self, name: str, value: object = None) -> Outcome | None:
        """Record a result, as the next one, and go on."""
        self.seq += 1
        asked = self.asked.pop(name)
        self.replay.settle(asked, memo(name, self.seq, value, kind=asked.op.kind))
        return self.go_on()

    @property
    def memos(self) -> list[Memo]:
        """What is recorded by now."""
        return list(self.replay.history.values())


def memo(name: str, seq: int, value: object = None, *, ordinal: int = 0, kind: StepKind = StepKind.RUN) -> Memo:
    key = step_key("", name, ordinal)
    if isinstance(value, Exception):
        return Memo(key, name, kind, StepStatus.FAILED, error=encode_error(value), seq=seq)
    return Memo(key, name, kind, StepStatus.COMPLETED, encoding.encode(value), seq=seq)


def nothing() -> None:
    """Do nothing."""


def line_of(function: Callable[..., object]) -> str:
    """Return file and line of the line of *function* that ends in ``# <- here``."""
    lines, start = inspect.getsourcelines(function)
    return f"{__file__}:{start + next(index for index, line in enumerate(lines) if '# <- here' in line)}"


# What asyncio decides

Trace = list[Any]
NAMES = ("a", "b", "c", "d")
VALUES: dict[str, object] = {"a": "A", "b": "B", "c": "C", "d": ValueError("d failed")}


async def helpers_in_a_gather(step: Any, trace: Trace) -> None:
    async def helper(name: str) -> None:
        try:
            trace.append(await step.run(name, nothing))
        except StepError as error:
            trace.append(error.message)

    await asyncio.gather(*map(helper, NAMES))


async def gather_that_raises(step: Any, trace: Trace) -> None:
    try:
        await asyncio.gather(*(step.run(name, nothing) for name in NAMES))
    except StepError as error:
        trace.append(error.message)
    trace.append(await step.run("after", nothing))


async def gather_with_exceptions(step: Any, trace: Trace) -> None:
    found = await asyncio.gather(*(step.run(name, nothing) for name in NAMES), return_exceptions=True)
    trace.extend(each.message if isinstance(each, StepError) else each for each in found)


async def task_group(step: Any, trace: Trace) -> None:
    async def helper(name: str) -> None:
        trace.append(await step.run(name, nothing))

    try:
        async with asyncio.TaskGroup() as group:
            for name in NAMES:
                group.create_task(helper(name))
    except* StepError as errors:
        trace.extend(error.message for error in errors.exceptions if isinstance(error, StepError))
    trace.append(await step.run("after", nothing))


async def first_completed(step: Any, trace: Trace) -> None:
    pending = {asyncio.create_task(step.run(name, nothing), name=name) for name in NAMES}
    while pending:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        trace.append(sorted(task.get_name() for task in done))


async def first_exception(step: Any, trace: Trace) -> None:
    tasks = [asyncio.create_task(step.run(name, nothing), name=name) for name in NAMES]
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    trace.append(sorted(task.get_name() for task in done))
    for task in tasks:
        task.cancel()
    trace.append(await step.run("after", nothing))


async def first_wins(step: Any, trace: Trace) -> None:
    tasks = [asyncio.create_task(step.run(name, nothing), name=name) for name in NAMES]
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    [winner] = done
    trace.append(await step.run(f"after {winner.get_name()}", nothing))


async def as_completed(step: Any, trace: Trace) -> None:
    for each in asyncio.as_completed([step.run(name, nothing) for name in NAMES]):
        try:
            trace.append(await each)
        except StepError as error:
            trace.append(error.message)


async def chains(step: Any, trace: Trace) -> None:
    async def chain(first: str, second: str) -> str:
        trace.append(await step.run(first, nothing))
        try:
            trace.append(await step.run(second, nothing))
        except StepError:
            trace.append("failed")
        return first

    tasks = [asyncio.create_task(chain("a", "b")), asyncio.create_task(chain("c", "d"))]
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    trace.extend(task.result() for task in done)
    for task in pending:
        task.cancel()


def played(
    handler: Callable[[Any, Trace], Any], order: tuple[str, ...], memos: list[Memo], *, late: bool = False
) -> tuple[Any, ...]:
    """Run the handler over *memos* and settle the rest in that order; return what it did and what is recorded then.

    Steps that it waits for no more are settled only if *late* events may come for them.
    """
    trace: Trace = []
    one = Pass(*memos)
    outcome = one.run(lambda step: handler(step, trace))
    while outcome is None:
        asked = [name for name, each in one.asked.items() if late or not each.is_given_up]
        name = min(asked, key=lambda name: order.index(name) if name in order else 99)
        outcome = one.settle(name, VALUES.get(name, name))
    one.replay.unwind()
    return outcome, trace, sorted(one.memos, key=lambda memo: memo.seq or 0)


handlers = pytest.mark.parametrize(
    "handler",
    [
        helpers_in_a_gather,
        gather_that_raises,
        gather_with_exceptions,
        task_group,
        first_completed,
        first_exception,
        first_wins,
        as_completed,
        chains,
    ],
)
orders = pytest.mark.parametrize("order", list(itertools.permutations(NAMES)), ids="".join)


@handlers
@orders
def test_a_replay_decides_as_the_first_pass_wherever_it_begins(
    handler: Callable[[Any, Trace], Any], order: tuple[str, ...]
) -> None:
    first = played(handler, order, [])
    _, _, memos = first

    assert isinstance(first[0], Completed)
    for recorded in range(len(memos) + 1):
        assert played(handler, order, memos[:recorded]) == first


@handlers
@orders
def test_results_of_what_it_waits_for_no_more_do_not_change_how_a_replay_decides(
    handler: Callable[[Any, Trace], Any], order: tuple[str, ...]
) -> None:
    first = played(handler, order, [], late=True)
    _, _, memos = first

    assert isinstance(first[0], Completed)
    for recorded in range(len(memos) + 1):
        assert played(handler, order, memos[:recorded], late=True)[:2] == first[:2]


def test_a_result_is_handed_out_only_when_the_handler_rests() -> None:
    seen: list[str] = []

    async def handler(step: Any) -> None:
        async def helper(name: str) -> None:
            await step.run(name, nothing)
            for turn in range(3):
                seen.append(f"{name}{turn}")
                await asyncio.sleep(0)

        await asyncio.gather(helper("a"), helper("b"))

    Pass(memo("b", 1), memo("a", 2)).run(handler)

    assert seen == ["b0", "b1", "b2", "a0", "a1", "a2"]


def test_losers_that_were_cancelled_are_not_asked_for_on_replay() -> None:
    async def handler(step: Any) -> str:
        tasks = [asyncio.create_task(step.run(name, nothing)) for name in ("loser", "winner")]
        _, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        return str(await step.run("after", nothing))

    replayed = Pass(memo("winner", 1))
    outcome = replayed.run(handler)

    assert (outcome, list(replayed.asked)) == (None, ["after"])


def test_an_open_step_is_asked_for_with_its_record() -> None:
    async def handler(step: Any) -> None:
        await asyncio.gather(step.sleep("nap", "1h"), step.run("new", nothing))

    open_one = Memo(step_key("", "nap", 0), "nap", StepKind.SLEEP, StepStatus.WAITING)
    replayed = Pass(open_one)
    replayed.run(handler)

    assert {name: each.memo for name, each in replayed.asked.items()} == {"nap": open_one, "new": None}


# Ids


def test_one_id_in_one_gather_is_as_many_steps_in_the_order_of_the_calls() -> None:
    async def handler(step: Any) -> list[Any]:
        return list(await asyncio.gather(*[step.run("item", nothing) for _ in range(3)]))

    memos = [memo("item", 1, "second", ordinal=1), memo("item", 2, "third", ordinal=2), memo("item", 3, "first")]

    assert Pass(*memos).run(handler) == Completed(["first", "second", "third"])


def test_one_id_in_two_tasks_at_the_same_time_is_refused_with_the_remedy() -> None:
    async def helper(step: Any) -> None:
        await step.run("resize", nothing)  # <- here

    async def handler(step: Any) -> None:
        await asyncio.gather(helper(step), helper(step), return_exceptions=True)

    outcome = Pass().run(handler)

    assert isinstance(outcome, Aborted)
    assert isinstance(outcome.error, InvalidStep)
    assert line_of(helper) in str(outcome.error)
    assert "two tasks use this id at the same time" in str(outcome.error)
    assert "Give each an id of its own, such as f'resize-{image_id}'" in str(outcome.error)


def test_one_id_in_two_tasks_one_after_the_other_is_two_steps() -> None:
    async def handler(step: Any) -> list[Any]:
        return [await asyncio.create_task(step.run("item", nothing)), await asyncio.create_task(helper(step))]

    async def helper(step: Any) -> Any:
        return await step.run("item", nothing)

    assert Pass(memo("item", 1, "first"), memo("item", 2, "second", ordinal=1)).run(handler) == Completed(
        ["first", "second"]
    )


def test_an_id_whose_call_was_cancelled_before_it_began_can_be_used_by_another_task() -> None:
    async def helper(step: Any) -> Any:
        return await step.run("item", nothing)

    async def handler(step: Any) -> Any:
        asyncio.create_task(step.run("item", nothing)).cancel()
        await asyncio.sleep(0)
        return await asyncio.create_task(helper(step))

    assert Pass(memo("item", 1, "second", ordinal=1)).run(handler) == Completed("second")


# How a pass ends


def test_a_handler_that_waits_for_no_step_is_told_so() -> None:
    async def handler(step: Any) -> None:
        await asyncio.Event().wait()

    stuck = Pass()

    assert (stuck.run(handler), stuck.asked) == (None, {})
    assert "waits for something that is no step and never comes. Await steps only" in str(stuck.replay.stalled().error)


def test_an_error_of_the_handler_is_its_outcome() -> None:
    async def handler(step: Any) -> None:
        raise ValueError("no")

    outcome = Pass().run(handler)

    assert isinstance(outcome, Raised)
    assert repr(outcome.error) == "ValueError('no')"


def test_a_failed_step_raises_at_its_await() -> None:
    async def handler(step: Any) -> str:
        try:
            await step.run("charge", nothing)
        except StepError as error:
            return f"{error.step_id}: {error.message}"
        return "not raised"

    assert Pass(memo("charge", 1, ValueError("declined"))).run(handler) == Completed("charge: declined")


def test_a_handler_that_cancels_itself_has_failed() -> None:
    async def handler(step: Any) -> None:
        raise asyncio.CancelledError

    outcome = Pass().run(handler)

    assert isinstance(outcome, Raised)
    assert "cancelled itself" in str(outcome.error)


def test_a_handler_may_return_while_steps_are_asked_for() -> None:
    async def handler(step: Any) -> str:
        task = asyncio.create_task(step.run("background", nothing))
        await asyncio.sleep(0)
        return "done" if not task.done() else "too early"

    assert Pass().run(handler) == Completed("done")


def test_a_handler_that_swallows_its_cancellation_ends_no_differently() -> None:
    seen: list[str] = []

    async def handler(step: Any) -> None:
        while True:
            try:
                await step.sleep("nap", "1h")
            except asyncio.CancelledError:
                seen.append("swallowed")

    parked = Pass()
    assert parked.run(handler) is None
    parked.replay.unwind()

    assert len(seen) > 1
    assert list(parked.asked) == ["nap"]


def test_cleanup_that_calls_a_step_while_the_pass_unwinds_records_nothing() -> None:
    async def handler(step: Any) -> None:
        try:
            await step.sleep("nap", "1h")
        finally:
            await step.run("cleanup", nothing)

    parked = Pass()
    parked.run(handler)
    parked.replay.unwind()

    assert parked.memos == []


# What can never work


async def sleeps(step: Any) -> None:
    await asyncio.sleep(1)  # <- here


async def limits(step: Any) -> None:
    async with asyncio.timeout(3):  # <- here
        await step.run("slow", nothing)


async def waits_with_a_limit(step: Any) -> None:
    await asyncio.wait([asyncio.create_task(step.run("slow", nothing))], timeout=3)  # <- here


async def waits_for(step: Any) -> None:
    await asyncio.wait_for(asyncio.create_task(step.run("slow", nothing)), 3)  # <- here


async def connects(step: Any) -> None:
    await asyncio.open_connection("127.0.0.1", 9)  # <- here


async def races(step: Any) -> None:
    await step.race(lambda: step.run("a", nothing))  # <- here


async def maps(step: Any) -> None:
    await step.map("resize", len, ["x"])  # <- here


async def has_no_duration(step: Any) -> None:
    await step.sleep("nap", "soon")  # <- here


async def has_bad_options(step: Any) -> None:
    await step.options(timeout="0s").run("nap", nothing)  # <- here


async def is_of_another_kind(step: Any) -> None:
    await step.sleep("recorded", "1h")  # <- here


@pytest.mark.parametrize(
    ("handler", "said"),
    [
        (sleeps, "Use step.sleep"),
        (limits, "Use step.sleep"),
        (waits_with_a_limit, "Use step.sleep"),
        (waits_for, "Use step.sleep"),
        (connects, "Await it in a step"),
        (races, "use asyncio.gather, TaskGroup"),
        (maps, "use asyncio.gather, TaskGroup"),
        (has_no_duration, "Cannot read 'soon' as a duration"),
        (has_bad_options, "must be longer than nothing"),
        (is_of_another_kind, "recorded"),
    ],
)
def test_what_can_never_work_ends_the_run_and_names_the_line(handler: Handler, said: str) -> None:
    async def stubborn(step: Any) -> str:
        await asyncio.gather(handler(step), return_exceptions=True)
        return "swallowed"

    one = Pass(memo("recorded", 1))
    outcome = one.run(stubborn)
    one.replay.unwind()

    assert isinstance(outcome, Aborted)
    assert isinstance(outcome.error, (InvalidStep, StepKindMismatch))
    assert said in str(outcome.error)
    assert line_of(handler) in str(outcome.error)


def test_a_step_inside_the_body_of_a_step_ends_the_run() -> None:
    async def handler(step: Any) -> None:
        await step.run("outer", nothing)

    one = Pass()
    one.run(handler)
    step = Step(one.replay, RunInfo(run_id="1", app_label="test", attempt=int, timezone=UTC, largest_value=1_000))

    with in_body(StepRef("outer", 0, b"", CallSite("f", 1))), pytest.raises(Abort):
        step.run("inner", nothing)

    outcome = one.go_on()
    assert isinstance(outcome, Aborted)
    assert isinstance(outcome.error, NestedStep)


# Around steps


def test_plain_helpers_may_call_steps_for_the_handler_to_await() -> None:
    def greeting(step: Any, name: str) -> Any:
        return step.run(f"greet-{name}", nothing)

    async def handler(step: Any) -> list[Any]:
        return list(await asyncio.gather(*(greeting(step, name) for name in ("ann", "bob"))))

    assert Pass(memo("greet-bob", 1, 2), memo("greet-ann", 2, 1)).run(handler) == Completed([1, 2])


def test_a_step_sees_the_context_variables_of_the_task_that_called_it() -> None:
    variable = contextvars.ContextVar("tenant", default="none")

    async def helper(step: Any, name: str) -> None:
        variable.set(name)
        await step.run(name, nothing)

    async def handler(step: Any) -> None:
        await asyncio.gather(helper(step, "a"), helper(step, "b"))

    one = Pass()
    one.run(handler)

    assert {name: each.context.run(variable.get) for name, each in one.asked.items()} == {"a": "a", "b": "b"}
    assert variable.get() == "none"


def test_code_knows_whether_recorded_steps_are_still_to_come() -> None:
    async def handler(step: Any) -> list[bool]:
        before = step.logger.isEnabledFor(50)
        await asyncio.gather(step.run("a", nothing), step.run("b", nothing))
        return [before, step.logger.isEnabledFor(50)]

    assert Pass(memo("a", 2), memo("b", 1)).run(handler) == Completed([False, True])


def test_a_patch_is_off_for_runs_that_passed_here_before_and_on_for_those_that_did_not() -> None:
    async def handler(step: Any) -> None:
        await step.run("first", nothing)
        await step.patched("new")
        await step.run("second", nothing)

    answers = []
    for memos in ([memo("first", 1)], [memo("first", 1), memo("second", 2)]):
        one = Pass(*memos)
        one.run(handler)
        op = one.asked["patched new"].op
        assert isinstance(op, RunStep)
        answers.append(op.fn())

    assert answers == [True, False]
