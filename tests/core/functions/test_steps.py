from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from django_durable.core.events.events import Event
from django_durable.core.functions import registry
from django_durable.core.functions.functions import function
from django_durable.core.functions.steps import RunInfo, Step
from django_durable.core.replay.groups import Group, GroupMode, Op
from django_durable.core.replay.interrupts import Suspend
from django_durable.core.replay.operations import (
    Invoke,
    Memo,
    RunStep,
    SendEvents,
    Sleep,
    StepKind,
    WaitForEvent,
    WaitForSignal,
)
from django_durable.core.replay.replay import Aborted, Completed, Replay, Suspended
from django_durable.exceptions import InvalidStep

INFO = RunInfo(
    run_id="run-1", app_label="shop", attempt=lambda: 2, timezone=ZoneInfo("Europe/Vienna"), largest_value=100
)


class Asked:
    """What the first step call of a handler asks the engine for."""

    def __init__(self, call: Callable[[Step], object]) -> None:
        self.op: Any = None
        replay = Replay({}, self.perform)
        self.outcome = replay.run(partial(call, Step(replay, INFO)))

    def perform(self, op: Op, memo: Memo | None) -> Memo:
        self.op = op
        raise Suspend(lambda: None)


def asked(call: Callable[[Step], object]) -> Any:
    this = Asked(call)
    assert isinstance(this.outcome, Suspended)
    return this.op


def refused(call: Callable[[Step], object]) -> str:
    """Return the message of the refusal; the engine was not asked for anything."""
    this = Asked(call)
    assert isinstance(this.outcome, Aborted)
    assert isinstance(this.outcome.error, InvalidStep)
    assert this.op is None
    assert f"({__file__}:" in str(this.outcome.error)
    return str(this.outcome.error)


def nothing() -> None:
    """Do nothing."""


@pytest.fixture
def _registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_functions", {})
    monkeypatch.setattr(registry, "_locate", lambda module: "shop")


# Identity


def test_a_step_knows_its_run_and_the_handlers_failed_attempts() -> None:
    step = Step(Replay({}, lambda op, memo: pytest.fail("performed")), INFO)

    assert (step.run_id, step.attempt) == ("run-1", 2)


@pytest.mark.parametrize("id", ["a", "x" * 255, "send welcome/email #7 é日本\n", "42"])
def test_text_up_to_255_characters_is_a_step_id(id: str) -> None:
    assert asked(lambda step: step.run(id, nothing)).ref.name == id


@pytest.mark.parametrize("id", ["", "x" * 256, "a\0b", "\ud800", 42, None, b"a", nothing, ["a"]])
@pytest.mark.parametrize(
    "call",
    [
        lambda step, id: step.run(id, nothing),
        lambda step, id: step.atomic(id, nothing),
        lambda step, id: step.sleep(id, "1h"),
        lambda step, id: step.sleep_until(id, "2030-01-01"),
        lambda step, id: step.wait_for_event(id, "a/b", timeout="1h"),
        lambda step, id: step.invoke(id, "a/b"),
        lambda step, id: step.send_event(id, Event("a/b")),
        lambda step, id: step.wait_for_signal(id, "a", timeout="1h"),
        lambda step, id: step.parallel(nothing, id=id),
        lambda step, id: step.race(nothing, id=id),
        lambda step, id: step.map(id, str, [1]),
    ],
    ids=["run", "atomic", "sleep", "sleep_until", "wait", "invoke", "send", "signal", "parallel", "race", "map"],
)
def test_anything_else_is_no_step_id(call: Callable[[Step, Any], object], id: Any) -> None:
    assert "a step's id is text of 1 to 255 characters" in refused(lambda step: call(step, id))


# run and atomic


@pytest.mark.parametrize(("name", "kind"), [("run", StepKind.RUN), ("atomic", StepKind.ATOMIC)])
def test_a_function_is_asked_for_with_its_arguments(name: str, kind: StepKind) -> None:
    op = asked(lambda step: getattr(step, name)("a", dict, (), id=1, fn=2))

    assert isinstance(op, RunStep)
    assert (op.fn, op.args, op.kwargs, op.kind) == (dict, ((),), {"id": 1, "fn": 2}, kind)


async def asynchronous() -> None:
    """Do nothing."""


@pytest.mark.parametrize("name", ["run", "atomic"])
@pytest.mark.parametrize(
    ("fn", "said"),
    [
        (None, "needs a function to run, not None. Pass the function itself"),
        ("name", "needs a function to run, not 'name'"),
    ],
)
def test_what_cannot_be_called_is_refused_with_the_remedy(name: str, fn: Any, said: str) -> None:
    assert said in refused(lambda step: getattr(step, name)("a", fn))


def test_an_async_function_has_no_transaction_to_run_in() -> None:
    assert "asynchronous() is async, and a transaction needs plain code" in refused(
        lambda step: step.atomic("a", asynchronous)
    )


# sleep


@pytest.mark.parametrize(
    ("duration", "seconds"),
    [
        ("24h", 86_400),
        ("1 day", 86_400),
        ("1h30m", 5_400),
        ("500ms", 0.5),
        ("P1D", 86_400),
        ("PT1H30M", 5_400),
        (timedelta(minutes=1), 60),
        (90, 90),
        (0.25, 0.25),
        (0, 0),
        ("-1h", -3_600),
        ("3653d", 3653 * 86_400),
    ],
)
def test_forms_of_a_duration(duration: Any, seconds: float) -> None:
    op = asked(lambda step: step.sleep("a", duration))

    assert isinstance(op, Sleep)
    assert (op.duration, op.until) == (timedelta(seconds=seconds), None)


@pytest.mark.parametrize(
    ("duration", "said"),
    [
        ("soon", "Cannot read 'soon' as a duration"),
        ("10", "a number needs a unit"),
        ([], "Cannot read [] as a duration. Accepted"),
        (True, "Cannot read True as a duration. Accepted"),
        (float("nan"), "not a finite length of time"),
        ("3654d", "the longest wait is 10 years"),
        (timedelta.max, "the longest wait is 10 years"),
        ("1 month", "months and years have no fixed length"),
    ],
)
@pytest.mark.parametrize(
    "call",
    [
        lambda step, duration: step.sleep("a", duration),
        lambda step, duration: step.wait_for_event("a", "a/b", timeout=duration),
        lambda step, duration: step.invoke("a", "a/b", timeout=duration),
    ],
    ids=["sleep", "wait", "invoke"],
)
def test_a_duration_that_cannot_be_used_is_refused(
    call: Callable[[Step, Any], object], duration: Any, said: str
) -> None:
    assert said in refused(lambda step: call(step, duration))


# sleep_until


@pytest.mark.parametrize(
    ("when", "moment"),
    [
        (datetime(2030, 6, 1, 12, tzinfo=UTC), datetime(2030, 6, 1, 12, tzinfo=UTC)),
        (datetime(2030, 6, 1, 12), datetime(2030, 6, 1, 10, tzinfo=UTC)),
        (date(2030, 6, 1), datetime(2030, 5, 31, 22, tzinfo=UTC)),
        ("2030-06-01", datetime(2030, 5, 31, 22, tzinfo=UTC)),
        ("2030-06-01T12:00", datetime(2030, 6, 1, 10, tzinfo=UTC)),
        ("2030-06-01T12:00Z", datetime(2030, 6, 1, 12, tzinfo=UTC)),
        ("2030-06-01T12:00+05:00", datetime(2030, 6, 1, 7, tzinfo=UTC)),
    ],
)
def test_forms_of_a_moment_naive_ones_in_the_current_time_zone(when: Any, moment: datetime) -> None:
    op = asked(lambda step: step.sleep_until("a", when))

    assert (op.until, op.duration) == (moment, None)


@pytest.mark.parametrize("when", ["tomorrow", "01.06.2030", "", None, 1_900_000_000, timedelta(1)])
def test_a_moment_that_cannot_be_read_is_refused_with_the_forms(when: Any) -> None:
    assert "Accepted: a datetime, a date, or ISO text" in refused(lambda step: step.sleep_until("a", when))


def test_a_moment_outside_of_time_is_refused() -> None:
    assert "outside the years 1 to 9999" in refused(lambda step: step.sleep_until("a", datetime.min))


# wait_for_event


def test_a_wait_is_asked_for_with_its_rule() -> None:
    op = asked(lambda step: step.wait_for_event("a", "app/*", timeout="1h", match="data.id", if_="async.data.n > 1"))

    assert isinstance(op, WaitForEvent)
    assert (op.patterns, op.timeout, op.lookback) == (("app/*",), timedelta(hours=1), True)
    assert op.rule.match == "data.id"
    assert op.rule.condition is not None
    assert op.rule.condition.source == "async.data.n > 1"


@pytest.mark.parametrize(
    ("lookback", "read"),
    [(True, True), (False, False), ("1h", timedelta(hours=1)), (60, timedelta(minutes=1)), ("since:a", "since:a")],
)
def test_forms_of_a_look_back(lookback: Any, read: object) -> None:
    assert asked(lambda step: step.wait_for_event("a", "a/b", timeout="1h", lookback=lookback)).lookback == read


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"event": "app/a*"}, "The wildcard in 'app/a*' cannot be used"),
        ({"event": ""}, "An event's name must be text"),
        ({"event": []}, "waits for no event"),
        ({"event": ["a/b", 7]}, "An event's name must be text"),
        ({"event": None}, "An event's name must be text"),
        ({"match": "data..id"}, "data..id"),
        ({"if_": "async.data.n >"}, "does not compile at line 1, column 15"),
        ({"if_": "other.data.n > 1"}, "does not compile at line 1, column 1"),
        ({"if_": "1 + 1"}, "it gives int, not true or false"),
        ({"if_": 7}, "an expression is CEL text, not int"),
        ({"lookback": "whenever"}, "Cannot read 'whenever' as a duration"),
        ({"lookback": None}, "Cannot read None as a duration"),
    ],
)
def test_a_wait_that_cannot_work_is_refused(options: dict[str, Any], said: str) -> None:
    options = {"event": "a/b", "timeout": "1h", **options}

    assert said in refused(lambda step: step.wait_for_event("a", **options))


# invoke


@pytest.mark.usefixtures("_registry")
def test_a_function_is_invoked_by_itself_its_id_or_its_slug_in_the_same_app() -> None:
    @function("quote")
    def quote(event: Event, step: Step) -> None:
        """Do nothing."""

    forms: list[Any] = [quote, "shop/quote", "quote"]
    assert [asked(lambda step, form=form: step.invoke("a", form)).function_id for form in forms] == ["shop/quote"] * 3


def test_a_slug_of_another_app_needs_its_label() -> None:
    assert asked(lambda step: step.invoke("a", "mail/send")).function_id == "mail/send"


@pytest.mark.parametrize(("data", "text"), [(None, "{}"), ({"n": 1}, '{"n":1}'), ([1], "[1]"), (0, "0")])
def test_data_of_an_invocation_is_written_as_json(data: Any, text: str) -> None:
    op = asked(lambda step: step.invoke("a", "a/b", data, timeout="1m"))

    assert isinstance(op, Invoke)
    assert (op.data, op.timeout) == (text, timedelta(minutes=1))


@pytest.mark.parametrize(
    ("function", "data", "said"),
    [
        (nothing, None, "invokes a durable function or its id, not <function nothing"),
        (None, None, "invokes a durable function or its id, not None"),
        ("a/b", {"f": nothing}, 'data["f"]: a value of type function cannot be stored'),
        ("a/b", "x" * 99, "101 bytes of JSON exceed the limit of 100"),
    ],
)
def test_an_invocation_that_cannot_work_is_refused(function: Any, data: Any, said: str) -> None:
    assert said in refused(lambda step: step.invoke("a", function, data))


# send_event


def test_events_are_asked_for_as_they_are() -> None:
    sent = (Event("a/b"), Event("c/d", {"n": 1}))
    op = asked(lambda step: step.send_event("a", *sent))

    assert isinstance(op, SendEvents)
    assert op.events == sent


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        ("app/paid", "send_event takes Event objects, not 'app/paid'. Write Event(\"app/name\", {…})"),
        ({"name": "app/paid"}, "send_event takes Event objects"),
        (Event("durable/function.failed"), "is reserved"),
        (Event("app/*"), "wildcards listen, they are not sent"),
        (Event(""), "must be text"),
    ],
)
def test_what_cannot_be_sent_is_refused(sent: Any, said: str) -> None:
    assert said in refused(lambda step: step.send_event("a", Event("a/b"), sent))


# wait_for_signal


def test_a_wait_for_a_signal_is_asked_for_with_its_name() -> None:
    op = asked(lambda step: step.wait_for_signal("a", "approve-7", timeout="1h", replace=True))

    assert isinstance(op, WaitForSignal)
    assert (op.signal, op.timeout, op.replace) == ("approve-7", timedelta(hours=1), True)


@pytest.mark.parametrize("signal", ["", "x" * 256, "a\0b", "\ud800", 7, None])
def test_what_is_no_name_of_a_signal_is_refused(signal: Any) -> None:
    said = refused(lambda step: step.wait_for_signal("a", signal, timeout="1h"))

    assert "a signal's name is text of 1 to 255 characters" in said


# Options


def test_options_go_with_the_calls_made_through_them() -> None:
    op = asked(lambda step: step.options(retries=8, timeout="30s", thread=True).run("a", nothing))

    assert (op.options.retries, op.options.timeout, op.options.thread) == (8, timedelta(seconds=30), True)


def test_the_key_of_a_step_is_given_by_the_name_that_its_function_has_for_it() -> None:
    op = asked(lambda step: step.options(idempotency_key="key").run("a", dict, n=1))

    assert sorted(op.kwargs) == ["key", "n"]
    assert len(op.kwargs["key"]) == 32


# parallel, race and map


def labels(op: Group) -> list[tuple[str, str]]:
    return [(branch.label, branch.path) for branch in op.branches]


def test_branches_are_known_by_their_place_or_their_label() -> None:
    op = asked(lambda step: step.parallel(nothing, nothing, label=nothing))

    assert op.mode is GroupMode.PARALLEL
    assert labels(op) == [("0", "parallel#0/0"), ("1", "parallel#0/1"), ("label", "parallel#0/label")]


def test_items_of_a_map_are_known_by_their_place() -> None:
    op = asked(lambda step: step.map("resize", str, iter("ab"), limit=1))

    assert (op.mode, op.limit) == (GroupMode.MAP, 1)
    assert [(branch.ref.name, branch.ref.ordinal) for branch in op.branches] == [("resize", 0), ("resize", 1)]


@pytest.mark.parametrize(
    ("call", "value"), [(lambda step: step.parallel(), ()), (lambda step: step.map("a", str, []), [])]
)
def test_no_branches_are_no_step(call: Callable[[Step], object], value: object) -> None:
    this = Asked(call)

    assert this.outcome == Completed(value)
    assert this.op is None


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda step: step.race(), "a race needs a branch"),
        (lambda step: step.parallel(7), "a branch is a plain callable without arguments, not 7"),
        (lambda step: step.parallel(asynchronous), "a branch is a plain callable without arguments"),
        (lambda step: step.parallel(**{"a/b": nothing}), "a branch's label has up to 100 characters, without / and >"),
        (lambda step: step.parallel(**{"a>b": nothing}), "a branch's label has up to 100 characters, without / and >"),
        (lambda step: step.parallel(**{"x" * 101: nothing}), "a branch's label has up to 100 characters"),
        (lambda step: step.parallel(nothing, id="a>b"), "the id of a group cannot contain '>'"),
        (lambda step: step.map("a", "no function", [1]), "needs a function to run, not 'no function'"),
        (lambda step: step.map("a", str, [1], limit=0), "limit must be a whole number, 1 or more, not 0"),
        (lambda step: step.map("a", str, [1], limit=True), "limit must be a whole number, 1 or more, not True"),
    ],
)
def test_branches_that_cannot_work_are_refused(call: Callable[[Any], object], said: str) -> None:
    assert said in refused(call)


# One of several events


def test_a_wait_may_name_several_events() -> None:
    op = asked(lambda step: step.wait_for_event("a", ["app/a", "app/b.*", "app/a"], timeout="1h"))

    assert op.patterns == ("app/a", "app/b.*")
