"""A broker may be down, frozen, wiped, slow or talkative: that changes when something happens, and nothing else."""

from __future__ import annotations

import random
import statistics
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from .brokers import OwnRedis, RedisQueue, free_port, silence
from .conftest import Start
from .workers import Project, Served, until

WELCOME = ["send-welcome-email"]
A_MOMENT = 0.1  #: seconds: sending takes a few milliseconds, an attempt to reach a broker that is down 0.6 s
AT_EXIT = 1.0  #: seconds that a process waits at its end for hints to leave
FROZEN = 4.0  #: seconds
SLOW_MACHINE = 1.5  #: seconds that ending a process may take there besides
ENDED = ("completed", "failed", "cancelled")


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[OwnRedis]:
    """A Redis that the test may stop and freeze."""
    server = OwnRedis(tmp_path)
    yield server
    server.stop()


@pytest.fixture
def on_redis(project_on: Start) -> Project:
    """The project on the shared Redis."""
    return project_on("redis")


def status_of(site: Served, event: str) -> str | None:
    """Return the status of the run that the event started, if it did."""
    run = site("run_of", event)
    return run and run["status"]


def until_waiting(site: Served, *events: str) -> list[dict[str, Any]]:
    """Wait until these users have been welcomed; return their runs."""
    for event in events:
        until(lambda event=event: status_of(site, event) == "waiting", "the run waits for a post")
    return [site("run_of", event) for event in events]


# A broker that does not answer


@pytest.mark.needs("postgresql")
@pytest.mark.parametrize("scheme", ["redis", "amqp"])
@pytest.mark.parametrize("broker", ["down", "silent"])
def test_a_broker_that_does_not_answer_delays_no_request_and_no_exit(
    project_on: Start, scheme: str, broker: str
) -> None:
    with silence() as silent_port:
        site = project_on(f"{scheme}://127.0.0.1:{silent_port if broker == 'silent' else free_port()}//").site()
        site("problems")  # What a process does once is no part of a request.

        seconds = []
        for user in range(5):
            site("sign_up", user)
            seconds.append(site.seconds)
        exit_seconds = site.close()

    assert statistics.median(seconds) < A_MOMENT
    assert exit_seconds < AT_EXIT + SLOW_MACHINE


@pytest.mark.needs("postgresql")
def test_what_was_sent_while_the_broker_was_down_runs_when_it_is_back(project_on: Start, own_redis: OwnRedis) -> None:
    project = project_on(own_redis.url)
    site = project.site()
    event = site("sign_up", 1)
    assert status_of(site, event) is None

    own_redis.start()
    project.worker("--pool=solo")

    (run,) = until_waiting(site, event)
    assert project.bodies(run["id"]) == WELCOME


@pytest.mark.needs("postgresql")
def test_what_was_sent_while_the_broker_was_frozen_runs_when_it_thaws(project_on: Start, own_redis: OwnRedis) -> None:
    own_redis.start()
    project = project_on(own_redis.url)
    site = project.site()
    project.worker("--pool=solo")
    until_waiting(site, site("sign_up", 1))

    own_redis.freeze()
    event = site("sign_up", 2)
    assert status_of(site, event) is None
    own_redis.thaw()

    (run,) = until_waiting(site, event)
    assert project.bodies(run["id"]) == WELCOME


@pytest.mark.needs("postgresql")
def test_no_request_notices_that_the_broker_is_frozen(project_on: Start, own_redis: OwnRedis) -> None:
    own_redis.start()
    project = project_on(own_redis.url)
    site = project.site()
    project.worker("--pool=solo")
    until_waiting(site, site("sign_up", 0))
    queue = RedisQueue(own_redis.url, project.queue, patience=0.2)
    ordinary_exit = project.site().close()

    before = seconds_to_sign_up(site, range(1, 21))
    own_redis.freeze()
    during = seconds_to_sign_up(site, range(21, 41), pause=FROZEN / 20)
    with pytest.raises(redis.TimeoutError):
        queue.raw()
    seconds_to_exit = site.close()
    own_redis.thaw()

    # A request that waited for Redis would not end before it thaws.
    assert max(during) < FROZEN
    assert statistics.median(during) < A_MOMENT + 2 * statistics.median(before)
    assert seconds_to_exit < ordinary_exit + AT_EXIT + SLOW_MACHINE
    again = project.site()
    until(lambda: again("count", "waiting") == 41, "every run waits for a post")


def seconds_to_sign_up(site: Served, users: Iterable[int], pause: float = 0.0) -> list[float]:
    """Sign these users up; return how long each request took."""
    seconds = []
    for user in users:
        site("sign_up", user)
        seconds.append(site.seconds)
        time.sleep(pause)
    return seconds


@pytest.mark.needs("postgresql")
def test_a_broker_that_lost_everything_is_told_again(project_on: Start, own_redis: OwnRedis) -> None:
    own_redis.start()
    project = project_on(own_redis.url)
    site = project.site()
    event = site("sign_up", 1)
    until(lambda: RedisQueue(own_redis.url, project.queue).raw(), "the hint has left")
    own_redis.stop()
    own_redis.start()

    project.worker("--pool=solo")

    (run,) = until_waiting(site, event)
    assert project.bodies(run["id"]) == WELCOME


# No broker


@pytest.mark.needs("postgresql")
def test_without_a_broker_nothing_is_published_and_a_check_says_what_to_start(project_on: Start) -> None:
    project = project_on(None)
    site = project.serve("site")
    site("migrate")

    site("sign_up", 1)
    found = {number: f"{problem} {hint}" for number, problem, hint in site("problems")}
    site.close()

    assert project.ledger("messages") == []
    assert "durable dev" in found["durable.W011"]
    assert "celery -A" in found["durable.W011"]


# What is in a message


@pytest.mark.needs("redis", "postgresql")
def test_a_message_holds_ids_and_nothing_that_delays_or_keeps_it(on_redis: Project) -> None:
    site = on_redis.site()
    run_id = str(uuid.uuid4())
    site("sign_up", 1)
    queue = RedisQueue(str(on_redis.broker_url), on_redis.queue)
    until(queue.raw, "the event is announced")
    queue.replace([])
    site("hint", run_id)

    (message,) = until(queue.messages, "the run is announced")

    assert queue.arguments(message) == [on_redis.queue, [run_id], True]
    assert message["headers"]["eta"] is None
    assert message["headers"]["expires"] is None
    assert message["headers"]["ignore_result"] is True
    assert message["content-type"] == "application/json"


@pytest.mark.needs("redis", "postgresql")
def test_no_message_or_result_holds_what_an_event_or_a_step_does(on_redis: Project) -> None:
    on_redis.celery = {
        "RESULT_BACKEND": on_redis.broker_url,
        "RESULT_BACKEND_TRANSPORT_OPTIONS": {"global_keyprefix": f"{on_redis.queue}:"},
    }
    site = on_redis.site()
    queue = RedisQueue(str(on_redis.broker_url), on_redis.queue)
    event = site("sign_up", 1)
    hints = until(queue.raw, "the event is announced")
    on_redis.worker("--pool=solo")

    until_waiting(site, event)

    assert not any(b"ann@example.com" in hint for hint in hints)
    assert queue.results() == []


@pytest.mark.needs("redis", "postgresql")
def test_a_run_of_1000_steps_takes_at_most_2_messages(on_redis: Project) -> None:
    # On a slow machine it would give way to others now and then, and ask to go on.
    on_redis.durable = {"TURN_BUDGET": "10m", "SCHEDULER": "command"}
    site = on_redis.site()
    on_redis.worker("--pool=solo")

    event = site("receive_batch", 1_000)

    until(lambda: status_of(site, event) == "completed", "the run ends")
    assert site("run_of", event)["output"] == 1_000
    assert len(on_redis.ledger("messages")) <= 2


# Hints that are lost, doubled and in the wrong order


@pytest.mark.needs("redis", "postgresql")
@pytest.mark.parametrize("pool", ["threads", "prefork"])
def test_doubled_and_shuffled_hints_run_nothing_twice(on_redis: Project, pool: str) -> None:
    site = on_redis.site()
    events = [site("sign_up", user) for user in range(5)]
    options = (f"--pool={pool}", "--concurrency=4", "--without-mingle")
    first = on_redis.worker(*options)
    runs = until_waiting(site, *events)
    first.kill()
    queue = RedisQueue(str(on_redis.broker_url), on_redis.queue)
    queue.replace([])
    site("write_post", 0)
    until(queue.raw, "the post is announced")
    site("hint", *(run["id"] for run in runs), str(uuid.uuid4()))
    hints = 10 * until(lambda: queue.raw()[1:] and queue.raw(), "the runs are announced, too")
    random.Random(7).shuffle(hints)
    queue.replace(hints)

    second = on_redis.worker(*options)
    until(lambda: second.log.read_text().count(" succeeded in ") >= len(hints), "every hint is worked on")

    assert [status_of(site, event) for event in events] == ["completed", *["waiting"] * 4]
    assert Counter(line["run"] for line in on_redis.ledger()) == Counter({run["id"]: 1 for run in runs})


@pytest.mark.needs("redis", "postgresql")
def test_lost_hints_are_given_again_by_the_scheduler(on_redis: Project) -> None:
    on_redis.durable = {"REHINT": "1s"}
    site = on_redis.site()
    queue = RedisQueue(str(on_redis.broker_url), on_redis.queue)
    event = site("sign_up", 1)
    until(queue.raw, "the event is announced")
    queue.replace([])

    on_redis.worker("--pool=solo")

    (run,) = until_waiting(site, event)
    assert on_redis.bodies(run["id"]) == WELCOME


# Celery configured otherwise


@pytest.mark.needs("redis", "postgresql")
@pytest.mark.parametrize(
    "celery",
    [
        {"TASK_ACKS_LATE": True, "TASK_REJECT_ON_WORKER_LOST": True},
        {"TASK_ALWAYS_EAGER": True, "TASK_EAGER_PROPAGATES": True},
    ],
    ids=["acks late", "always eager"],
)
def test_settings_of_celery_that_other_tasks_need_do_no_harm(on_redis: Project, celery: dict[str, Any]) -> None:
    on_redis.celery = celery
    site = on_redis.site()
    on_redis.worker("--pool=prefork")
    event = site("sign_up", 1)
    (run,) = until_waiting(site, event)

    site("write_post", 1)

    until(lambda: status_of(site, event) in ENDED, "the run ends")
    assert status_of(site, event) == "completed"
    assert on_redis.bodies(run["id"]) == WELCOME


@pytest.mark.needs("redis", "postgresql")
def test_a_forked_process_publishes_too(on_redis: Project) -> None:
    site = on_redis.site()
    queue = RedisQueue(str(on_redis.broker_url), on_redis.queue)
    site("sign_up", 1)
    until(queue.raw, "the event is announced")
    queue.replace([])

    assert site("sign_up_in_a_fork", 2) == 0

    assert len(until(queue.raw, "the other event is announced")) == 1
