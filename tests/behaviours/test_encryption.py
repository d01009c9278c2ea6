"""A project whose payloads are encrypted: what runs, what stands in the tables, and what a change of keys does."""

from __future__ import annotations

import contextlib
import datetime
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.db import connection
from django.test import override_settings

import django_durable as durable
from django_durable.core import clock
from django_durable.core.ids import uuid7
from django_durable.engine.runs import ending, replays
from django_durable.engine.store import stored_events
from django_durable.models import Event, EventId, EventKey, MatchFailure, Run, Step, StepAttempt, Wait
from tests.engine.conftest import Engine, failure_of

NEWEST, OLDER, OTHER = (Fernet.generate_key().decode() for _ in range(3))
SECRET = "plain-secret"
CODEC = {"DRIVER": "inline", "CODEC": "django_durable.encryption.FernetCodec"}


def encrypted(*keys: str, **options: Any) -> Any:
    """Return the settings of a project that encrypts with the first of these keys."""
    durable_settings = {**CODEC, "ENCRYPTION_KEYS": keys, "MATCH_KEYS": ["matching"], **options}
    return override_settings(DURABLE=durable_settings)


@pytest.fixture
def encryption() -> Iterator[None]:
    """Encrypt with the older key."""
    with encrypted(OLDER):
        yield


def stored(*tables: str) -> str:
    """Return all that stands in these tables of the app, as a person with SQL sees it."""
    texts = []
    with connection.cursor() as cursor:
        for table in tables:
            cursor.execute(f"SELECT * FROM django_durable_{table}")
            texts += [repr([bytes(each) if isinstance(each, memoryview) else each for each in row]) for row in cursor]
    assert texts
    return "\n".join(texts)


EVERY_TABLE = ("event", "eventid", "run", "step", "stepattempt", "wait", "eventkey", "matchpath", "matchfailure")


def fails_once() -> Callable[[str], str]:
    """Return a step's function that raises at its first call, with its argument in the message."""
    calls: list[str] = []

    def fn(text: str) -> str:
        calls.append(text)
        if len(calls) == 1:
            raise ValueError(f"cannot take {text}")
        return text

    return fn


def waiting(engine: Engine, **options: Any) -> None:
    """Register a function that waits for a reply and returns what came."""

    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> Any:
        came = step.wait_for_event("reply", event="test/reply", timeout="1h", **options)
        return came and came.data["text"]


# What is stored


def test_no_payload_stands_in_clear_in_any_table(engine: Engine, encryption: None) -> None:
    flaky, child_id, failures = fails_once(), [], []

    @durable.function("child")
    def child(event: durable.Event, step: durable.Step) -> str:
        child_id.append(step.run_id)
        raise durable.NonRetriable(event.data["text"])

    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> str:
        text = step.run("flaky", flaky, event.data["user"])
        step.send_event("send", durable.Event("test/other", {"text": text}, user={"name": text}))
        try:
            step.invoke("child", child, {"text": text})
        except durable.InvokeError as error:
            failures.append(error.message)
        step.wait_for_event(
            "a", event="test/none", match="data.user", if_="async.data[async.data.user] > 1", timeout="1h"
        )
        return text

    durable.send_event("test/start", {"user": SECRET}, id="start", user={"name": SECRET})
    waits_for = engine.run().waiting_for
    engine.advance("30s")
    durable.send_event("test/none", {"user": SECRET})
    tables = stored(*EVERY_TABLE)
    engine.advance("2h")

    first = Run.objects.order_by("id")[0]
    assert (first.status, first.output) == ("completed", f'"{SECRET}"')
    assert failure_of(Run.objects.get(id=child_id[0])).message == SECRET
    assert {*failures} == {SECRET}
    assert "ValueError" in waits_for
    assert SECRET not in waits_for + tables + stored("run", "step", "event")
    assert MatchFailure.objects.get().reason == "it errored; the reason is not kept, because payloads are encoded"


def test_what_is_stored_is_read_as_it_was_given(engine: Engine, encryption: None) -> None:
    seen: list[durable.Event] = []

    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> tuple[str, ...]:
        seen.append(event)
        first = step.run("first", lambda: (SECRET,))
        step.sleep("nap", "1h")
        return first

    engine.start({"user": SECRET, "$": [1]}, user={"name": SECRET})
    run = engine.advance("1h")

    assert (run.status, run.output) == ("completed", '{"$":"tuple","v":["plain-secret"]}')
    assert {(event.data["user"], str(event.data["$"]), event.user["name"]) for event in seen} == {
        (SECRET, "[1]", SECRET)
    }
    assert engine.step("first").input.startswith("test_what_is_stored")


def test_the_engine_gives_a_discarded_value_to_nobody_but_key_holders(engine: Engine, encryption: None) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        def cancelling() -> str:
            ending.cancel(engine.run().id)
            return SECRET

        step.run("late", cancelling)

    engine.start()

    assert StepAttempt.objects.get().output == f'"{SECRET}"'
    assert SECRET not in stored("stepattempt")


def test_an_event_that_looks_sealed_is_an_event_like_any_other(engine: Engine) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> Any:
        return event.data

    sent = {"$": "codec", "v": "codec:x"}
    plain = engine.start(sent)
    with encrypted(NEWEST):
        sealed = engine.start(sent)

    assert (
        plain.output
        == sealed.output
        == json.dumps({"$": "dict", "v": [["$", "codec"], ["v", "codec:x"]]}).replace(" ", "")
    )


# Switching it on, and changing keys


def test_a_wait_of_the_time_before_encryption_is_resolved_after_it(engine: Engine) -> None:
    waiting(engine, match="data.user")

    engine.start({"user": 7})
    with encrypted(NEWEST):
        durable.send_event("test/reply", {"user": 8, "text": "not this one"})
        durable.send_event("test/reply", {"user": 7, "text": "came"})

        assert engine.run().output == '"came"'


def test_an_event_of_the_time_before_encryption_is_found_by_a_wait_after_it(engine: Engine) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> Any:
        if event.data["user"] == 1:  # makes the path known, so that the reply gets a key
            return step.wait_for_event("other", event="test/reply", match="data.user", timeout="1m")
        step.sleep("nap", "1h")
        came = step.wait_for_event("reply", event="test/reply", match="data.user", timeout="1h")
        return came and came.data["text"]

    engine.start({"user": 1})
    engine.start({"user": 7})
    durable.send_event("test/reply", {"user": 7, "text": "came"})
    with encrypted(NEWEST):
        run = engine.advance("1h")

        assert run.output == '"came"'
        assert EventKey.objects.count() == 1


def test_an_event_resolves_a_wait_by_match_after_a_rotation(engine: Engine) -> None:
    waiting(engine, match="data.user")

    with encrypted(OLDER):
        engine.start({"user": SECRET})
        key = bytes(Wait.objects.get().match_key)
    with encrypted(NEWEST, OLDER):
        engine.start({"user": SECRET})
        assert {bytes(wait.match_key) for wait in Wait.objects.all()} == {key}
        durable.send_event("test/reply", {"user": SECRET, "text": "came"})

        assert [run.output for run in Run.objects.all()] == ['"came"', '"came"']
    assert SECRET not in stored(*EVERY_TABLE[:4])


def test_a_look_back_finds_an_event_by_match_after_a_rotation(engine: Engine) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> Any:
        step.sleep("nap", "1h")
        came = step.wait_for_event("reply", event="test/reply", match="data.user", timeout="1h")
        return came and came.data["text"]

    with encrypted(OLDER):
        engine.start({"user": SECRET})
        durable.send_event("test/reply", {"user": SECRET, "text": "came"})
    with encrypted(NEWEST, OLDER):
        assert engine.advance("1h").output == '"came"'


@pytest.mark.parametrize("keys", [["newest", "matching"], ["matching", "newest"]])
def test_a_wait_is_found_by_every_key_of_matching(engine: Engine, keys: list[str]) -> None:
    waiting(engine, match="data.user")

    with encrypted(NEWEST):
        engine.start({"user": 7})
    with encrypted(NEWEST, MATCH_KEYS=keys):
        durable.send_event("test/reply", {"user": 7, "text": "came"})

        assert engine.run().output == '"came"'


def test_the_hash_of_a_value_cannot_be_made_without_the_key(engine: Engine) -> None:
    waiting(engine, match="data.user")

    with encrypted(NEWEST):
        engine.start({"user": 7})
        durable.send_event("test/reply", {"user": 7, "text": "x"}, id="1")
    engine.start({"user": 7})
    durable.send_event("test/reply", {"user": 7, "text": "x"}, id="2")

    assert len({bytes(each.payload) for each in EventId.objects.all()}) == 2
    assert len({bytes(each.key) for each in EventKey.objects.all()}) == 2


def test_the_same_payload_under_one_id_is_known_again_after_encryption(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    first = durable.send_event("test/paid", {"order": 1}, id="order-1")
    with encrypted(NEWEST):
        same = durable.send_event("test/paid", {"order": 1}, id="order-1")
        assert not caplog.records
        other = durable.send_event("test/paid", {"order": 2}, id="order-1")

    assert first == same == other
    assert "another payload" in caplog.text


# Without the key


def test_a_run_that_cannot_be_decoded_waits_for_a_worker_with_the_key(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> str:
        text = step.run("first", lambda: SECRET)
        step.sleep("nap", "1h")
        return text

    with encrypted(OLDER):
        engine.start({"user": SECRET})
    with encrypted(NEWEST):
        waiting_run = engine.advance("1h")
        assert (waiting_run.status, waiting_run.crashes) == ("queued", 0)
    with encrypted(NEWEST, OLDER):
        run = engine.advance("1m")

    assert (run.status, run.output) == ("completed", f'"{SECRET}"')
    assert 'no key of DURABLE["ENCRYPTION_KEYS"] fits' in caplog.text
    assert SECRET not in caplog.text


def test_without_a_codec_the_error_names_the_setting(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        step.sleep("nap", "1h")

    with encrypted(OLDER):
        engine.start()
    run = engine.advance("1h")

    assert run.status == "queued"
    assert 'it was written through a codec, and DURABLE["CODEC"] is not set' in caplog.text


def store_silently(data: dict[str, Any]) -> Event:
    """Store an event whose hint is lost."""
    at = clock.now()
    return Event.objects.create(id=uuid7(), name="test/start", data=data, ts=at, received_at=at, ingest_at=at)


def test_an_event_that_cannot_be_decoded_is_put_off_and_holds_up_no_other(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[Any] = []

    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> None:
        seen.append(event.data)

    with encrypted(OTHER):
        hidden = store_silently({"n": 1})
    with encrypted(NEWEST):
        engine.start({"n": 2})
        assert seen == [{"n": 2}]
    with encrypted(NEWEST, OTHER):
        engine.settle()
        assert seen == [{"n": 2}]
        engine.advance(datetime.timedelta(minutes=1))

    assert seen == [{"n": 2}, {"n": 1}]
    assert f"Event test/start {hidden.id} cannot be decoded" in caplog.text


def test_a_wait_whose_trigger_cannot_be_decoded_holds_up_no_other(engine: Engine) -> None:
    waiting(engine, match="data.user")

    with encrypted(OTHER):
        engine.start({"user": 7})
    with encrypted(NEWEST):
        engine.start({"user": 7})
        durable.send_event("test/reply", {"user": 7, "text": "came"})

        assert [run.status for run in Run.objects.order_by("id")] == ["waiting", "completed"]
        assert MatchFailure.objects.get().expression == "data.user"


def test_a_stored_event_that_cannot_be_decoded_is_passed_over_by_a_look_back(engine: Engine) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> Any:
        step.sleep("nap", "1h")
        came = step.wait_for_event("reply", event="test/reply", timeout="1h")
        return came and came.data["text"]

    with encrypted(NEWEST, OTHER):
        engine.start()
    with encrypted(OTHER):
        durable.send_event("test/reply", {"text": "hidden"})
    with encrypted(NEWEST):
        durable.send_event("test/reply", {"text": "came"})

        assert engine.advance("1h").output == '"came"'


def test_a_replay_takes_the_input_over(engine: Engine) -> None:
    @durable.function("child")
    def child(event: durable.Event, step: durable.Step) -> Any:
        return event.data["text"]

    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> Any:
        return step.invoke("child", child, {"text": SECRET})

    with encrypted(OLDER):
        engine.start()
        child_run = Run.objects.get(function_id="project/child")
    with encrypted(NEWEST, OLDER):
        replays.replay(child_run.id)

        assert engine.run().output == f'"{SECRET}"'
        assert stored_events.trigger_of_run(engine.run()).data == {"text": SECRET}
    assert Step.objects.exists()
    assert SECRET not in stored("run", "step")


# Branches


def test_no_payload_of_a_branch_stands_in_clear(engine: Engine, encryption: None) -> None:
    flaky = fails_once()

    def refuse(text: str) -> None:
        raise durable.NonRetriable(text)

    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> list[str]:
        text = event.data["user"]
        values = step.map("flaky", flaky, [text])
        values += step.parallel(lambda: step.run("inside", str, text), lambda: step.run("other", str, text))
        with contextlib.suppress(durable.StepError):
            step.map("refused", refuse, [text])
        return values

    durable.send_event("test/start", {"user": SECRET})
    waits = stored("run", "step")
    run = engine.advance("2h")

    assert (run.status, run.output) == ("completed", json.dumps([SECRET] * 3, separators=(",", ":")))
    assert SECRET not in waits + stored("event", "run", "step", "stepattempt")


def test_a_handle_gives_the_opened_result_and_error(engine: Engine, encryption: None) -> None:
    @engine.function(retries=0)
    def fn(event: durable.Event, step: durable.Step) -> str:
        if event.data["fail"]:
            raise ValueError(SECRET)
        return SECRET

    good, bad = engine.start({"fail": False}), engine.start({"fail": True})

    assert durable.get_run(good.id).result() == SECRET
    with pytest.raises(durable.RunFailed, match=SECRET):
        durable.get_run(bad.id).result()


def test_a_handle_says_that_it_lacks_the_key(engine: Engine, encryption: None) -> None:
    engine.function()(lambda event, step: SECRET)
    run = engine.start()

    with encrypted(OTHER), pytest.raises(durable.CodecError):
        durable.get_run(run.id)


def test_a_cancelled_run_is_told_of_with_its_payloads_opened(engine: Engine, encryption: None) -> None:
    seen: list[Any] = []

    @engine.function(on_cancel=lambda event, step: seen.append((event.reason, event.original.data)))
    def fn(event: durable.Event, step: durable.Step) -> None:
        step.sleep("nap", "1d")

    run = engine.start({"text": SECRET})
    ending.cancel(run.id, SECRET)

    assert seen == [(SECRET, {"text": SECRET})]
    assert SECRET not in stored("event", "run")
