"""Several lines of work at once: parallel, race and map in plain handlers, asyncio's own means in async ones.

Both forms of each scenario stand side by side, because they differ by nature.
"""

from __future__ import annotations

import asyncio
from typing import Any

import django_durable as durable
from django_durable.models import Event, Run, Step, StepAttempt, Wait
from tests.scenarios.conftest import Play

# All of them


def test_results_come_in_the_order_of_the_branches(play: Play) -> None:
    a, b = play.body("a", "A"), play.body("b", "B")

    def plain(event: durable.Event, step: durable.Step) -> Any:
        def slow() -> str:
            step.sleep("nap", "1h")
            return step.run("a", a)

        return list(step.parallel(slow, lambda: step.run("b", b)))

    async def asynchronous(event: durable.Event, step: durable.Step) -> Any:
        async def slow() -> str:
            await step.sleep("nap", "1h")
            return await step.run("a", a)

        return await asyncio.gather(slow(), step.run("b", b))

    play.start(plain, asynchronous)
    assert play.calls == ["b"]
    play.advance("1h")

    assert play.result == ["A", "B"]
    assert play.calls == ["b", "a"]


def test_branches_wait_at_the_same_time(play: Play) -> None:
    def plain(event: durable.Event, step: durable.Step) -> Any:
        return len(step.parallel(lambda: step.sleep("long", "2h"), lambda: step.sleep("short", "1h")))

    async def asynchronous(event: durable.Event, step: durable.Step) -> Any:
        return len(await asyncio.gather(step.sleep("long", "2h"), step.sleep("short", "1h")))

    play.start(plain, asynchronous)
    assert play.advance("1h").status == "waiting"
    play.advance("1h")

    assert play.result == 2


def test_a_branch_may_use_steps_of_every_kind(play: Play) -> None:
    work = play.body("work", 1)

    async def child(event: durable.Event, step: durable.Step) -> int:
        await step.sleep("nap", "1h")
        return 2

    def plain(event: durable.Event, step: durable.Step) -> Any:
        def wait() -> Any:
            reply = step.wait_for_event("wait", "test/reply", timeout="3h")
            return reply.data["n"]

        def send() -> int:
            return len(step.send_event("send", durable.Event("test/sent")))

        return sum(
            step.parallel(
                lambda: step.run("work", work),
                lambda: step.invoke("ask", "child"),
                lambda: step.sleep("nap", "2h") or 3,
                wait,
                send,
            )
        )

    async def asynchronous(event: durable.Event, step: durable.Step) -> Any:
        async def nap() -> int:
            await step.sleep("nap", "2h")
            return 3

        async def wait() -> Any:
            reply = await step.wait_for_event("wait", "test/reply", timeout="3h")
            return reply.data["n"]

        async def send() -> int:
            return len(await step.send_event("send", durable.Event("test/sent")))

        return sum(await asyncio.gather(step.run("work", work), step.invoke("ask", "child"), nap(), wait(), send()))

    play.function("child", child)
    play.start(plain, asynchronous)
    play.advance("1h")
    durable.send_event("test/reply", {"n": 4})
    assert play.status == "waiting"
    play.advance("1h")

    assert play.result == 1 + 2 + 3 + 4 + 1
    assert play.calls == ["work"]
    assert Event.objects.filter(name="test/sent").count() == 1


def test_a_wait_in_a_branch_times_out(play: Play) -> None:
    work = play.body("work", 1)

    def plain(event: durable.Event, step: durable.Step) -> Any:
        first, second = step.parallel(
            lambda: step.wait_for_event("wait", "test/reply", timeout="1h"), lambda: step.run("work", work)
        )
        return [first, second]

    async def asynchronous(event: durable.Event, step: durable.Step) -> Any:
        waiting = step.wait_for_event("wait", "test/reply", timeout="1h")
        return await asyncio.gather(waiting, step.run("work", work))

    play.start(plain, asynchronous)
    assert play.status == "waiting"
    play.advance("1h")

    assert play.result == [None, 1]


def test_one_event_resolves_the_waits_of_all_branches(play: Play) -> None:
    def plain(event: durable.Event, step: durable.Step) -> Any:
        def wait(name: str) -> Any:
            return step.wait_for_event(name, "test/reply", timeout="1h").id

        return len(set(step.parallel(lambda: wait("a"), lambda: wait("b"))))

    async def asynchronous(event: durable.Event, step: durable.Step) -> Any:
        a = step.wait_for_event("a", "test/reply", timeout="1h")
        b = step.wait_for_event("b", "test/reply", timeout="1h")
        return len({event.id for event in await asyncio.gather(a, b)})

    play.start(plain, asynchronous)
    durable.send_event("test/reply")

    assert play.result == 1


def test_a_failed_branch_raises_where_the_branches_are_joined(play: Play) -> None:
    bad, good = play.body("bad", fails=durable.NonRetriable("no")), play.body("good", 1)

    def plain(event: durable.Event, step: durable.Step) -> Any:
        try:
            step.parallel(lambda: step.run("good", good), lambda: step.run("bad", bad))
        except durable.StepError as error:
            return [error.message, error.is_a(durable.NonRetriable)]

    async def asynchronous(event: durable.Event, step: durable.Step) -> Any:
        try:
            await asyncio.gather(step.run("good", good), step.run("bad", bad))
        except durable.StepError as error:
            return [error.message, error.is_a(durable.NonRetriable)]

    play.start(plain, asynchronous)

    assert play.result == ["no", True]
    assert sorted(play.calls) == ["bad", "good"]


def test_all_branches_settle_before_the_first_failure_in_order_raises(play: Play) -> None:
    first = play.body("first", fails=durable.NonRetriable("first"))
    second = play.body("second", fails=durable.NonRetriable("second"))
    last = play.body("last")

    def plain(event: durable.Event, step: durable.Step) -> Any:
        def late() -> Any:
            step.sleep("nap", "1h")
            step.run("last", last)
            return step.run("first", first)

        try:
            step.parallel(late, lambda: step.run("second", second))
        except durable.StepError as error:
            return error.message

    async def asynchronous(event: durable.Event, step: durable.Step) -> Any:
        async def late() -> Any:
            await step.sleep("nap", "1h")
            await step.run("last", last)
            return await step.run("first", first)

        # asyncio.gather itself raises the failure that comes first in time, and leaves the others to themselves.
        ends = await asyncio.gather(late(), step.run("second", second), return_exceptions=True)
        return next(end.message for end in ends if isinstance(end, durable.StepError))

    play.start(plain, asynchronous)
    assert play.status == "waiting"
    play.advance("1h")

    assert play.result == "first"
    assert play.calls == ["second", "last", "first"]


def test_an_uncaught_failure_of_a_branch_fails_the_run_without_more_attempts(play: Play) -> None:
    bad = play.body("bad", fails=ValueError("no"))

    def plain(event: durable.Event, step: durable.Step) -> Any:
        step.parallel(lambda: step.run("bad", bad), lambda: step.sleep("nap", "1m"))

    async def asynchronous(event: durable.Event, step: durable.Step) -> Any:
        await asyncio.gather(step.run("bad", bad), step.sleep("nap", "1m"))

    play.start(plain, asynchronous, retries=2)
    play.to_the_end()

    assert play.failure.type == "django_durable.exceptions.StepError"
    assert play.calls == ["bad"] * 3


def test_the_error_of_a_branch_is_that_of_its_step(play: Play) -> None:
    bad = play.body("bad", fails=KeyError("price"))

    def plain(event: durable.Event, step: durable.Step) -> Any:
        def nested() -> Any:
            return step.parallel(lambda: step.run("bad", bad))

        try:
            step.parallel(lambda: step.sleep("nap", "1m"), nested)
        except durable.StepError as error:
            return [error.step_id, error.type, error.attempts, error.is_a(LookupError)]

    async def asynchronous(event: durable.Event, step: durable.Step) -> Any:
        try:
            await asyncio.gather(step.sleep("nap", "1m"), step.run("bad", bad))
        except durable.StepError as error:
            return [error.step_id, error.type, error.attempts, error.is_a(LookupError)]

    play.start(plain, asynchronous, retries=1)
    play.to_the_end()

    assert play.result == ["bad", "builtins.KeyError", 2, True]


def test_the_error_of_a_branch_that_invoked_is_an_invoke_error(play: Play) -> None:
    async def child(event: durable.Event, step: durable.Step) -> None:
        raise durable.NonRetriable("out of stock")

    def plain(event: durable.Event, step: durable.Step) -> Any:
        try:
            step.parallel(lambda: step.invoke("ask", "child"))
        except durable.InvokeError as error:
            return [error.step_id, error.run_id, error.status]

    async def asynchronous(event: durable.Event, step: durable.Step) -> Any:
        try:
            await asyncio.gather(step.invoke("ask", "child"))
        except durable.InvokeError as error:
            return [error.step_id, error.run_id, error.status]

    play.function("child", child)
    play.start(plain, asynchronous)

    assert play.result == ["ask", str(Run.objects.get(parent=play.run).id), "failed"]


def test_the_error_of_a_branch_that_invoked_in_vain_is_an_invoke_timeout(play: Play) -> None:
    async def child(event: durable.Event, step: durable.Step) -> None:
        await step.sleep("nap", "5h")

    def plain(event: durable.Event, step: durable.Step) -> Any:
        try:
            step.parallel(lambda: step.invoke("ask", "child", timeout="1h"))
        except durable.InvokeTimeout as error:
            return error.step_id

    async def asynchronous(event: durable.Event, step: durable.Step) -> Any:
        try:
            await asyncio.gather(step.invoke("ask", "child", timeout="1h"))
        except durable.InvokeTimeout as error:
            return error.step_id

    play.function("child", child)
    play.start(plain, asynchronous)
    play.advance("1h")

    assert play.result == "ask"


def test_a_branch_catches_the_failure_of_its_own_step(play: Play) -> None:
    bad = play.body("bad", fails=ValueError("no"))

    def plain(event: durable.Event, step: durable.Step) -> Any:
        def careful() -> str:
            try:
                return step.run("bad", bad)
            except durable.StepError:
                return "caught"

        return list(step.parallel(careful, lambda: step.sleep("nap", "1m")))

    async def asynchronous(event: durable.Event, step: durable.Step) -> Any:
        async def careful() -> str:
            try:
                return await step.run("bad", bad)
            except durable.StepError:
                return "caught"

        return await asyncio.gather(careful(), step.sleep("nap", "1m"))

    play.start(plain, asynchronous, retries=1)
    play.to_the_end()

    assert play.result == ["caught", None]
    assert play.calls == ["bad", "bad"]


def test_steps_of_branches_are_tried_again_each_on_its_own(play: Play) -> None:
    a, b = play.body("a", "A", fails=1), play.body("b", "B", fails=3)

    def plain(event: durable.Event, step: durable.Step) -> Any:
        return list(step.parallel(lambda: step.run("a", a), lambda: step.run("b", b)))

    async def asynchronous(event: durable.Event, step: durable.Step) -> Any:
        return await asyncio.gather(step.run("a", a), step.run("b", b))

    play.start(plain, asynchronous)
    play.to_the_end()

    assert play.result == ["A", "B"]
    assert (play.calls.count("a"), play.calls.count("b")) == (2, 4)


def test_branches_may_have_branches(play: Play) -> None:
    work = play.body("work", does=lambda text: text)

    def plain(event: durable.Event, step: durable.Step) -> Any:
        def pair(name: str) -> list[str]:
            step.sleep("nap", "1h")
            return list(
                step.parallel(lambda: step.run("work", work, f"{name}1"), lambda: step.run("work", work, f"{name}2"))
            )

        return [*step.parallel(lambda: pair("a"), lambda: pair("b"))]

    async def asynchronous(event: durable.Event, step: durable.Step) -> Any:
        async def pair(name: str) -> list[str]:
            await step.sleep(f"nap {name}", "1h")
            ids = [f"{name}1", f"{name}2"]
            return await asyncio.gather(*[step.run(id, work, id) for id in ids])

        return await asyncio.gather(pair("a"), pair("b"))

    play.start(plain, asynchronous)
    play.advance("1h")

    assert play.result == [["a1", "a2"], ["b1", "b2"]]
    assert play.calls == ["work"] * 4


def test_no_branches_give_no_results(play: Play) -> None:
    def plain(event: durable.Event, step: durable.Step) -> Any:
        return [list(step.parallel()), step.map("none", str, [])]

    async def asynchronous(event: durable.Event, step: durable.Step) -> Any:
        return [await asyncio.gather(), []]

    play.start(plain, asynchronous)

    assert play.result == [[], []]


def test_steps_follow_when_all_branches_are_done(play: Play) -> None:
    a, b, after = play.body("a", 1), play.body("b", 2), play.body("after", does=sum)

    def plain(event: durable.Event, step: durable.Step) -> Any:
        values = step.parallel(lambda: step.run("a", a), lambda: step.run("b", b))
        step.sleep("nap", "1h")
        return step.run("after", after, values)

    async def asynchronous(event: durable.Event, step: durable.Step) -> Any:
        values = await asyncio.gather(step.run("a", a), step.run("b", b))
        await step.sleep("nap", "1h")
        return await step.run("after", after, values)

    play.start(plain, asynchronous)
    play.advance("1h")

    assert play.result == 3
    assert sorted(play.calls) == ["a", "after", "b"]


def test_a_task_group_runs_steps_at_the_same_time_as_parallel_does(play: Play) -> None:
    a, b = play.body("a", "A"), play.body("b", "B")

    def plain(event: durable.Event, step: durable.Step) -> Any:
        return list(step.parallel(lambda: step.sleep("nap", "1h") or step.run("a", a), lambda: step.run("b", b)))

    async def asynchronous(event: durable.Event, step: durable.Step) -> Any:
        async def slow() -> str:
            await step.sleep("nap", "1h")
            return await step.run("a", a)

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(slow()), group.create_task(step.run("b", b))]
        return [task.result() for task in tasks]

    play.start(plain, asynchronous)
    play.advance("1h")

    assert play.result == ["A", "B"]
    assert play.calls == ["b", "a"]


# The first of them


def test_the_first_branch_that_is_done_wins(play: Play) -> None:
    def plain(event: durable.Event, step: durable.Step) -> Any:
        first = step.race(lambda: step.sleep("long", "2h") or "long", lambda: step.sleep("short", "1h") or "short")
        return [first.index, first.value]

    async def asynchronous(event: durable.Event, step: durable.Step) -> Any:
        async def nap(name: str, duration: str) -> str:
            await step.sleep(name, duration)
            return name

        tasks = [asyncio.create_task(nap("long", "2h")), asyncio.create_task(nap("short", "1h"))]
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        (first,) = done
        return [tasks.index(first), first.result()]

    play.start(plain, asynchronous)
    play.advance("1h")

    assert play.result == [1, "short"]
    if not play.mode.asynchronous:
        assert play.step("race").winner == 1


def test_the_winner_stays_the_winner_in_later_passes(play: Play) -> None:
    winners: list[int] = []

    def plain(event: durable.Event, step: durable.Step) -> Any:
        first = step.race(lambda: step.sleep("long", "2h"), lambda: step.sleep("short", "1h"))
        winners.append(first.index)
        step.sleep("rest", "5h")

    async def asynchronous(event: durable.Event, step: durable.Step) -> Any:
        tasks = [asyncio.ensure_future(step.sleep("long", "2h")), asyncio.ensure_future(step.sleep("short", "1h"))]
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        winners.append(tasks.index(next(iter(done))))
        await step.sleep("rest", "5h")

    play.start(plain, asynchronous)
    play.advance("1h")
    play.advance("5h")

    assert play.status == "completed"
    assert winners == [1, 1]


def test_a_branch_that_lost_starts_nothing_more(play: Play) -> None:
    after = play.body("after")

    def plain(event: durable.Event, step: durable.Step) -> Any:
        def loser() -> Any:
            step.wait_for_event("wait", "test/reply", timeout="10h")
            return step.run("after", after)

        index = step.race(loser, lambda: step.sleep("nap", "1h")).index
        step.sleep("rest", "2h")
        return index

    async def asynchronous(event: durable.Event, step: durable.Step) -> Any:
        async def loser() -> Any:
            await step.wait_for_event("wait", "test/reply", timeout="10h")
            return await step.run("after", after)

        tasks = [asyncio.ensure_future(loser()), asyncio.ensure_future(step.sleep("nap", "1h"))]
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for each in pending:
            each.cancel()
        await step.sleep("rest", "2h")
        return tasks.index(next(iter(done)))

    play.start(plain, asynchronous)
    play.advance("1h")
    durable.send_event("test/reply")
    play.advance("2h")

    assert play.result == 1
    assert play.calls == []
    assert not Wait.objects.exists()


def test_a_failure_that_comes_first_is_raised_by_the_race(play: Play) -> None:
    bad = play.body("bad", fails=durable.NonRetriable("no"))

    def plain(event: durable.Event, step: durable.Step) -> Any:
        try:
            step.race(lambda: step.sleep("nap", "1h"), lambda: step.run("bad", bad))
        except durable.StepError as error:
            return error.message

    async def asynchronous(event: durable.Event, step: durable.Step) -> Any:
        tasks = [asyncio.ensure_future(step.sleep("nap", "1h")), asyncio.ensure_future(step.run("bad", bad))]
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        try:
            return next(iter(done)).result()
        except durable.StepError as error:
            return error.message

    play.start(plain, asynchronous)

    assert play.result == "no"


def test_an_event_races_with_a_sleep(play: Play) -> None:
    def plain(event: durable.Event, step: durable.Step) -> Any:
        paid = step.race(
            lambda: step.wait_for_event("paid", "test/paid", timeout="3d"), lambda: step.sleep("remind", "1d")
        )
        return paid.index

    async def asynchronous(event: durable.Event, step: durable.Step) -> Any:
        tasks = [
            asyncio.ensure_future(step.wait_for_event("paid", "test/paid", timeout="3d")),
            asyncio.ensure_future(step.sleep("remind", "1d")),
        ]
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return tasks.index(next(iter(done)))

    play.start(plain, asynchronous)
    play.advance("1h")
    durable.send_event("test/paid")

    assert play.result == 0


# One for each item


def test_map_runs_one_step_for_each_item_in_order(play: Play) -> None:
    double = play.body("double", does=lambda number: 2 * number)

    def plain(event: durable.Event, step: durable.Step) -> Any:
        doubled = step.map("double", double, range(4))
        step.sleep("nap", "1h")
        return doubled

    async def asynchronous(event: durable.Event, step: durable.Step) -> Any:
        doubled = await asyncio.gather(*[step.run(f"double {number}", double, number) for number in range(4)])
        await step.sleep("nap", "1h")
        return doubled

    play.start(plain, asynchronous)
    play.advance("1h")

    assert play.result == [0, 2, 4, 6]
    assert play.calls == ["double"] * 4


def test_an_item_that_fails_is_tried_again_alone(play: Play) -> None:
    def work(number: int) -> int:
        play.calls.append(str(number))
        if number == 1 and play.calls.count("1") < 3:
            raise ValueError("not yet")
        return number

    def plain(event: durable.Event, step: durable.Step) -> Any:
        return step.map("work", work, range(3), limit=2)

    async def asynchronous(event: durable.Event, step: durable.Step) -> Any:
        return await asyncio.gather(*[step.run(f"work {number}", work, number) for number in range(3)])

    play.start(plain, asynchronous)
    play.to_the_end()

    assert play.result == [0, 1, 2]
    assert sorted(play.calls) == ["0", "1", "1", "1", "2"]


def test_of_a_map_the_first_item_that_failed_raises(play: Play) -> None:
    def work(number: int) -> int:
        play.calls.append("work")
        if number:
            raise durable.NonRetriable(f"no {number}")
        return number

    def plain(event: durable.Event, step: durable.Step) -> Any:
        try:
            step.map("work", work, range(3))
        except durable.StepError as error:
            return error.message

    async def asynchronous(event: durable.Event, step: durable.Step) -> Any:
        steps = [step.run(f"work {number}", work, number) for number in range(3)]
        ends = await asyncio.gather(*steps, return_exceptions=True)
        return next(end.message for end in ends if isinstance(end, durable.StepError))

    play.start(plain, asynchronous)

    assert play.result == "no 1"
    assert play.calls == ["work"] * 3


# What ends them


def test_a_cancelled_run_closes_what_its_branches_wait_for(play: Play) -> None:
    after = play.body("after")

    def plain(event: durable.Event, step: durable.Step) -> Any:
        step.parallel(
            lambda: step.wait_for_event("wait", "test/reply", timeout="10h"),
            lambda: step.sleep("nap", "1h") or step.run("after", after),
        )

    async def asynchronous(event: durable.Event, step: durable.Step) -> Any:
        async def slow() -> None:
            await step.sleep("nap", "1h")
            await step.run("after", after)

        await asyncio.gather(step.wait_for_event("wait", "test/reply", timeout="10h"), slow())

    play.start(plain, asynchronous)
    durable.cancel_run(play.run.id)
    durable.send_event("test/reply")
    play.advance("10h")

    assert play.status == "cancelled"
    assert play.calls == []
    assert not Wait.objects.exists()


def test_a_body_in_flight_when_its_run_is_cancelled_is_discarded(play: Play) -> None:
    def cancels() -> str:
        play.calls.append("cancels")
        durable.cancel_run(Run.objects.get().id)
        return "kept for people"

    def plain(event: durable.Event, step: durable.Step) -> Any:
        step.parallel(lambda: step.run("cancels", cancels), lambda: step.sleep("nap", "1h"))

    async def asynchronous(event: durable.Event, step: durable.Step) -> Any:
        await asyncio.gather(step.run("cancels", cancels), step.sleep("nap", "1h"))

    play.start(plain, asynchronous)
    play.advance("1h")

    assert play.status == "cancelled"
    assert play.calls == ["cancels"]
    assert not Step.objects.filter(name="cancels", status="completed").exists()
    assert StepAttempt.objects.filter(status="discarded", output='"kept for people"').count() == 1
