# ruff: noqa: SIM105 - the clauses are what is tested
from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC
from functools import partial
from typing import Any

import pytest

from django_durable.core.events.events import Event
from django_durable.core.functions.steps import RunInfo, Step
from django_durable.core.replay.groups import Op
from django_durable.core.replay.interrupts import LeaseLost, Suspend
from django_durable.core.replay.operations import Memo, RunStep, StepKind, StepStatus, step_key
from django_durable.core.replay.replay import Aborted, Completed, Outcome, Raised, Replay, Suspended
from django_durable.core.values import encoding
from django_durable.exceptions import ConfigurationError, InvalidStep, NestedStep, StepKindMismatch, SuspensionSwallowed

Handler = Callable[[Event, Step], Any]


class Pass:
    """One pass over *history*: functions of steps run at once, everything else suspends."""

    def __init__(self, *memos: Memo) -> None:
        self.history = {memo.key: memo for memo in memos}
        self.performed: list[str] = []
        self.open: list[Memo | None] = []
        self.replay = Replay(self.history, self.perform)

    def perform(self, op: Op, memo: Memo | None) -> Memo:
        self.performed.append(op.ref.name)
        self.open.append(memo)
        if not isinstance(op, RunStep):
            raise Suspend(lambda: None)
        return done(
            op.ref.name, self.replay.call_body(op.ref, lambda: op.fn(*op.args, **op.kwargs)), op.ref.ordinal, op.kind
        )

    def run(self, handler: Handler) -> Outcome:
        info = RunInfo(run_id="1", app_label="test", attempt=int, timezone=UTC, largest_value=1_000)
        return self.replay.run(partial(handler, Event("test/start"), Step(self.replay, info)))


def done(name: str, value: object = None, ordinal: int = 0, kind: StepKind = StepKind.RUN) -> Memo:
    return Memo(step_key("", name, ordinal), name, kind, StepStatus.COMPLETED, encoding.encode(value))


def text(value: str) -> str:
    return value


def nothing() -> None:
    """Do nothing."""


def line_of(function: Callable[..., object], marker: str) -> str:
    """Return file and line of the line of *function* that ends in ``# <- marker``."""
    lines, start = inspect.getsourcelines(function)
    offset = next(index for index, line in enumerate(lines) if f"# <- {marker}" in line)
    return f"{__file__}:{start + offset}"


# What a pass returns


def test_a_pass_that_reaches_its_end_completes_with_the_handlers_value() -> None:
    assert Pass().run(lambda event, step: step.run("a", text, "x") + event.name) == Completed("xtest/start")


def test_a_step_without_a_memo_is_performed_and_remembered() -> None:
    this = Pass()

    this.run(lambda event, step: step.run("a", text, "x"))

    assert this.performed == ["a"]
    assert this.history[step_key("", "a", 0)].output == '"x"'


def test_a_step_with_a_memo_returns_it_and_is_not_performed() -> None:
    this = Pass(done("a", "recorded"))

    assert this.run(lambda event, step: step.run("a", text, "new")) == Completed("recorded")
    assert this.performed == []


def test_a_recorded_none_is_a_result_like_any_other() -> None:
    this = Pass(done("a", None))

    assert this.run(lambda event, step: step.run("a", text, "new")) == Completed(None)
    assert this.performed == []


def test_a_value_is_what_is_read_back_also_the_first_time() -> None:
    result = [1]

    outcome = Pass().run(lambda event, step: step.run("a", lambda: result) is result)

    assert outcome == Completed(False)


def test_the_nth_use_of_an_id_is_one_step_in_every_pass() -> None:
    this = Pass(done("a", "first"), done("a", "third", ordinal=2))

    outcome = this.run(lambda event, step: [step.run("a", text, f"new {i}") for i in range(4)])

    assert outcome == Completed(["first", "new 1", "third", "new 3"])


def test_ids_count_their_uses_apart() -> None:
    this = Pass(done("a", 1), done("b", 2), done("a", 3, ordinal=1))

    outcome = this.run(lambda event, step: [step.run(id, nothing) for id in ("b", "a", "a")])

    assert outcome == Completed([2, 1, 3])


@pytest.mark.parametrize("ids", [("a", "b", "c"), ("c", "b", "a"), ("c",), ("new", "a", "c", "b"), ()])
def test_steps_may_be_added_removed_and_reordered_under_a_running_run(ids: tuple[str, ...]) -> None:
    this = Pass(done("a", "a"), done("b", "b"), done("c", "c"))

    assert this.run(lambda event, step: [step.run(id, text, id) for id in ids]) == Completed(list(ids))
    assert this.performed == [id for id in ids if id == "new"]


def test_an_open_step_is_performed_with_what_is_known_of_it() -> None:
    waiting = Memo(step_key("", "a", 0), "a", StepKind.RUN, StepStatus.WAITING, attempt=2)
    this = Pass(waiting)

    this.run(lambda event, step: step.run("a", text, "x"))

    assert this.open == [waiting]


def test_an_error_of_the_handler_is_returned() -> None:
    error = ValueError("mine")

    def handler(event: Event, step: Step) -> None:
        raise error

    assert Pass().run(handler) == Raised(error)


def test_the_workers_death_is_no_outcome() -> None:
    def handler(event: Event, step: Step) -> None:
        raise SystemExit

    with pytest.raises(SystemExit):
        Pass().run(handler)


# Kinds


@pytest.mark.parametrize("status", [StepStatus.COMPLETED, StepStatus.WAITING])
def test_a_memo_of_another_kind_is_an_error_that_names_both_and_the_line(status: StepStatus) -> None:
    def handler(event: Event, step: Step) -> None:
        step.run("pause", nothing)  # <- step

    memo = Memo(step_key("", "pause", 0), "pause", StepKind.SLEEP, status)
    outcome = Pass(memo).run(handler)

    assert isinstance(outcome, Aborted)
    assert isinstance(outcome.error, StepKindMismatch)
    assert "recorded as step.sleep and now called as step.run" in str(outcome.error)
    assert outcome.error.where == line_of(handler, "step")


def test_an_atomic_step_is_another_kind_than_a_plain_one() -> None:
    outcome = Pass(done("a")).run(lambda event, step: step.atomic("a", nothing))

    assert isinstance(outcome, Aborted)
    assert isinstance(outcome.error, StepKindMismatch)


# Suspension


def test_a_step_that_must_wait_suspends_the_pass() -> None:
    this = Pass()

    def handler(event: Event, step: Step) -> None:
        step.sleep("nap", "1h")
        step.run("after", nothing)

    assert isinstance(this.run(handler), Suspended)
    assert this.performed == ["nap"]


def test_except_exception_does_not_swallow_a_suspension() -> None:
    def handler(event: Event, step: Step) -> None:
        try:
            step.sleep("nap", "1h")
        except Exception:
            pytest.fail("caught the suspension")

    assert isinstance(Pass().run(handler), Suspended)


def test_except_star_does_not_swallow_a_suspension() -> None:
    def handler(event: Event, step: Step) -> None:
        try:
            step.sleep("nap", "1h")
        except* ValueError:
            pytest.fail("caught the suspension")

    assert isinstance(Pass().run(handler), Suspended)


def test_finally_blocks_run_when_the_pass_suspends() -> None:
    cleaned = []

    def handler(event: Event, step: Step) -> None:
        try:
            step.sleep("nap", "1h")
        finally:
            cleaned.append("up")

    assert isinstance(Pass().run(handler), Suspended)
    assert cleaned == ["up"]


def test_a_step_in_a_finally_block_suspends_again_and_is_no_error() -> None:
    this = Pass()

    def handler(event: Event, step: Step) -> None:
        try:
            step.sleep("nap", "1h")
        finally:
            step.run("release", nothing)

    assert isinstance(this.run(handler), Suspended)
    assert this.performed == ["nap"]


def test_a_step_in_the_exit_of_a_context_manager_suspends_again_and_is_no_error() -> None:
    @contextmanager
    def room(step: Step) -> Iterator[None]:
        try:
            yield
        finally:
            step.run("leave", nothing)

    def handler(event: Event, step: Step) -> None:
        with room(step):
            step.sleep("nap", "1h")

    assert isinstance(Pass().run(handler), Suspended)


def test_the_finally_step_runs_once_the_pass_gets_there() -> None:
    this = Pass(done("nap", kind=StepKind.SLEEP))

    def handler(event: Event, step: Step) -> None:
        try:
            step.sleep("nap", "1h")
        finally:
            step.run("release", nothing)

    assert this.run(handler) == Completed(None)
    assert this.performed == ["release"]


# Swallowed suspensions: the clause and the step are marked


def bare_except(event: Event, step: Step) -> None:
    try:
        step.sleep("nap", "1h")  # <- step
    except:  # noqa: E722  # <- swallowed
        pass


def except_base_exception(event: Event, step: Step) -> None:
    try:
        step.sleep("nap", "1h")  # <- step
    except BaseException:  # <- swallowed
        pass


def return_in_finally(event: Event, step: Step) -> str:
    try:
        step.sleep("nap", "1h")  # <- step
    finally:
        return "value"  # noqa: B012  # <- swallowed


def raise_in_finally(event: Event, step: Step) -> None:
    try:
        step.sleep("nap", "1h")  # <- step
    finally:
        raise ValueError  # <- swallowed


def raise_in_except(event: Event, step: Step) -> None:
    try:
        step.sleep("nap", "1h")  # <- step
    except BaseException as error:  # <- swallowed
        raise ValueError from error


def suppressed(event: Event, step: Step) -> None:
    with suppress(BaseException):  # <- swallowed
        step.sleep("nap", "1h")  # <- step


def break_in_finally(event: Event, step: Step) -> None:
    while True:
        try:
            step.sleep("nap", "1h")  # <- step
        finally:
            break  # noqa: B012  # <- swallowed


def except_star(event: Event, step: Step) -> None:
    try:
        step.sleep("nap", "1h")  # <- step
    except* BaseException:  # <- swallowed
        pass


def swallowed_before_another_step(event: Event, step: Step) -> None:
    try:
        step.sleep("nap", "1h")  # <- step
    except:  # noqa: E722  # <- swallowed
        pass
    step.run("next", nothing)


def swallowed_twice(event: Event, step: Step) -> None:
    with suppress(BaseException):  # <- swallowed
        try:
            step.sleep("nap", "1h")  # <- step
        finally:
            step.run("more", nothing)


SWALLOWING = [
    bare_except,
    except_base_exception,
    return_in_finally,
    raise_in_finally,
    raise_in_except,
    suppressed,
    break_in_finally,
    except_star,
    swallowed_before_another_step,
    swallowed_twice,
]


@pytest.mark.parametrize("handler", SWALLOWING, ids=lambda handler: handler.__name__)
def test_a_swallowed_suspension_names_the_step_its_line_and_the_clause(handler: Handler) -> None:
    outcome = Pass().run(handler)

    assert isinstance(outcome, Aborted)
    error = outcome.error
    assert isinstance(error, SuspensionSwallowed)
    assert (error.step_id, error.where) == ("nap", line_of(handler, "step"))
    assert error.handler == line_of(handler, "swallowed")
    assert "Catch Exception instead of BaseException" in str(error)


def test_after_a_swallowed_suspension_no_step_is_performed() -> None:
    this = Pass()

    def handler(event: Event, step: Step) -> None:
        with suppress(BaseException):
            step.sleep("nap", "1h")
        step.run("after", nothing)

    this.run(handler)

    assert this.performed == ["nap"]


@pytest.mark.parametrize("error", [LeaseLost(), OSError("the database is away")], ids=["lease lost", "engine broken"])
def test_swallowing_what_stops_the_engine_changes_nothing(error: BaseException) -> None:
    def perform(op: Op, memo: Memo | None) -> Memo:
        raise error

    this = Pass()
    this.replay = Replay({}, perform)

    with pytest.raises(type(error)):
        this.run(except_base_exception)


# Steps inside steps


def test_a_step_in_the_body_of_a_step_is_refused_with_both_names_and_the_line() -> None:
    def handler(event: Event, step: Step) -> None:
        step.run("outer", lambda: step.run("inner", nothing))  # <- step

    outcome = Pass().run(handler)

    assert isinstance(outcome, Aborted)
    assert isinstance(outcome.error, NestedStep)
    assert "'inner'" in str(outcome.error)
    assert "inside the body of step 'outer'" in str(outcome.error)
    assert outcome.error.where == line_of(handler, "step")


@pytest.mark.parametrize(
    "inner",
    [
        lambda step: step.sleep("inner", "1h"),
        lambda step: step.atomic("inner", nothing),
        lambda step: step.wait_for_event("inner", "a/b", timeout="1h"),
        lambda step: step.invoke("inner", "a/b"),
        lambda step: step.send_event("inner", Event("a/b")),
    ],
    ids=["sleep", "atomic", "wait", "invoke", "send"],
)
def test_no_kind_of_step_may_be_inside_another(inner: Callable[[Step], object]) -> None:
    this = Pass()

    outcome = this.run(lambda event, step: step.run("outer", inner, step))

    assert isinstance(outcome, Aborted)
    assert isinstance(outcome.error, NestedStep)
    assert this.performed == ["outer"]


def test_a_body_that_catches_everything_cannot_hide_a_step_inside_it() -> None:
    def body(step: Step) -> str:
        with suppress(BaseException):
            step.run("inner", nothing)
        return "as if nothing had happened"

    this = Pass()
    outcome = this.run(lambda event, step: step.run("outer", body, step))

    assert isinstance(outcome, Aborted)
    assert isinstance(outcome.error, NestedStep)
    assert this.history == {}


def test_a_handler_that_catches_everything_cannot_hide_a_step_inside_a_step() -> None:
    def handler(event: Event, step: Step) -> None:
        with suppress(BaseException):
            step.run("outer", lambda: step.run("inner", nothing))

    outcome = Pass().run(handler)

    assert isinstance(outcome, Aborted)
    assert isinstance(outcome.error, NestedStep)


def test_a_recorded_step_inside_a_step_is_refused_too() -> None:
    outcome = Pass(done("inner")).run(lambda event, step: step.run("outer", lambda: step.run("inner", nothing)))

    assert isinstance(outcome, Aborted)


# Calls that can never work


def test_an_error_of_the_package_at_a_step_names_the_step_and_its_line() -> None:
    def perform(op: Op, memo: Memo | None) -> Memo:
        raise ConfigurationError("there is no such thing")

    def handler(event: Event, step: Step) -> None:
        step.run("a", nothing)  # <- step

    this = Pass()
    this.replay = Replay({}, perform)
    outcome = this.run(handler)

    assert isinstance(outcome, Aborted)
    assert isinstance(outcome.error, InvalidStep)
    assert str(outcome.error) == f"Step 'a' ({line_of(handler, 'step')}): there is no such thing"


def test_an_error_of_the_engine_is_not_the_handlers() -> None:
    lost = OSError("the database is away")

    def perform(op: Op, memo: Memo | None) -> Memo:
        raise lost

    this = Pass()
    this.replay = Replay({}, perform)

    with pytest.raises(OSError, match="is away") as raised:
        this.run(lambda event, step: step.run("a", nothing))
    assert raised.value is lost


def test_a_step_called_by_a_helper_is_at_the_helpers_line() -> None:
    def helper(step: Step) -> None:
        step.sleep("nap", "soon")  # <- step

    outcome = Pass().run(lambda event, step: helper(step))

    assert isinstance(outcome, Aborted)
    assert isinstance(outcome.error, InvalidStep)
    assert outcome.error.where == line_of(helper, "step")


def test_a_package_whose_name_only_starts_like_ours_is_the_users() -> None:
    import django_durable

    file = f"{django_durable.__path__[0]}_demo/handlers.py"
    names: dict[str, Any] = {}
    exec(compile("def handler(event, step):\n    step.sleep('nap', 'soon')", file, "exec"), names)

    outcome = Pass().run(names["handler"])

    assert isinstance(outcome, Aborted)
    assert isinstance(outcome.error, InvalidStep)
    assert outcome.error.where == f"{file}:2"


def test_memos_that_the_pass_did_not_ask_for_are_unused() -> None:
    one = Pass(done("kept"), done("renamed"), done("kept", ordinal=1))

    one.run(lambda event, step: step.run("kept", nothing))

    assert [(memo.name, memo.key) for memo in one.replay.unused()] == [
        ("renamed", step_key("", "renamed", 0)),
        ("kept", step_key("", "kept", 1)),
    ]


def test_an_open_step_and_the_steps_of_branches_are_never_unused() -> None:
    waiting = Memo(step_key("", "wait", 0), "wait", StepKind.WAIT, StepStatus.WAITING)
    branch = Memo(step_key("group/0", "step", 0), "step", StepKind.RUN, StepStatus.COMPLETED)
    one = Pass(waiting, branch)

    one.run(lambda event, step: None)

    assert one.replay.unused() == []
