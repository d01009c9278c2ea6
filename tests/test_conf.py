from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.test import override_settings

from django_durable.conf import Settings, cached_setting, get_settings, read_settings
from django_durable.core.retries import Exponential
from django_durable.drivers.base import BaseDriver, get_driver
from django_durable.exceptions import ConfigurationError


class OwnDriver(BaseDriver):
    """A project's own driver."""


def test_without_settings_the_defaults_hold(settings: Any) -> None:
    settings.DURABLE = {}

    assert get_settings() == Settings(
        autodiscover_module="durable",
        database="default",
        driver="celery",
        celery_app=None,
        queue=None,
        retries=4,
        backoff=None,
        lease=timedelta(seconds=15),
        rehint=timedelta(seconds=10),
        turn_budget=timedelta(seconds=5),
        checkpoint=True,
        scheduler="worker",
        on_code_change="continue",
        middleware=(),
        max_payload=1_048_576,
        max_event=524_288,
        max_steps=10_000,
        max_run=33_554_432,
        codec=None,
        encryption_keys=(),
        match_keys=(),
    )


def test_every_setting_can_be_given() -> None:
    given = {
        "AUTODISCOVER_MODULE": "workflows",
        "DATABASE": "durable",
        "DRIVER": "inline",
        "CELERY_APP": "project.celery:app",
        "QUEUE": "slow",
        "RETRIES": 0,
        "BACKOFF": Exponential("1s"),
        "LEASE": "1m",
        "REHINT": timedelta(seconds=3),
        "TURN_BUDGET": 2.5,
        "CHECKPOINT": False,
        "SCHEDULER": "command",
        "ON_CODE_CHANGE": "pin",
        "MIDDLEWARE": ["project.tenancy.Tenancy"],
        "MAX_PAYLOAD": 10,
        "MAX_EVENT": 20,
        "MAX_STEPS": 30,
        "MAX_RUN": 40,
        "CODEC": "project.codecs.Compressing",
        "ENCRYPTION_KEYS": ["new", "old"],
        "MATCH_KEYS": ("secret",),
    }

    assert read_settings(given) == Settings(
        autodiscover_module="workflows",
        database="durable",
        driver="inline",
        celery_app="project.celery:app",
        queue="slow",
        retries=0,
        backoff=Exponential("1s"),
        lease=timedelta(minutes=1),
        rehint=timedelta(seconds=3),
        turn_budget=timedelta(seconds=2.5),
        checkpoint=False,
        scheduler="command",
        on_code_change="pin",
        middleware=("project.tenancy.Tenancy",),
        max_payload=10,
        max_event=20,
        max_steps=30,
        max_run=40,
        codec="project.codecs.Compressing",
        encryption_keys=("new", "old"),
        match_keys=("secret",),
    )
    assert len(given) == len(Settings.__slots__)


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("AUTODISCOVER_MODULE", None, "must be text, not None"),
        ("DATABASE", 7, "must be text, not 7"),
        ("DRIVER", BaseDriver, "must be text"),
        ("CELERY_APP", 7, "must be text, not 7"),
        ("QUEUE", 7, "must be text, not 7"),
        ("RETRIES", -1, "must be a whole number, 0 or more, not -1"),
        ("RETRIES", "4", "must be a whole number"),
        ("RETRIES", True, "must be a whole number"),
        ("BACKOFF", [], "must be a duration, a list of durations, Exponential(...)"),
        ("BACKOFF", "soon", "Cannot read 'soon' as a duration"),
        ("LEASE", "0s", "must be longer than nothing, not '0s'"),
        ("REHINT", -1, "must be longer than nothing, not -1"),
        ("TURN_BUDGET", None, "Cannot read None as a duration"),
        ("CHECKPOINT", 1, "must be True or False, not 1"),
        ("SCHEDULER", "cron", "must be one of 'worker', 'command', not 'cron'"),
        ("MIDDLEWARE", "project.tenancy.Tenancy", "must be a list of dotted paths, not 'project.tenancy.Tenancy'"),
        ("MIDDLEWARE", [Settings], "must be a list of dotted paths"),
        ("ON_CODE_CHANGE", "stop", "must be one of 'continue', 'pin', 'fail', not 'stop'"),
        ("MAX_PAYLOAD", 1.5, "must be a whole number"),
        ("MAX_EVENT", "1 MB", "must be a whole number"),
        ("MAX_STEPS", None, "must be a whole number"),
        ("MAX_RUN", "32 MB", "must be a whole number"),
        ("CODEC", 7, "must be None, the dotted path of a class with encode and decode, or an instance, not 7"),
        ("CODEC", BaseDriver, "must be None, the dotted path"),
        ("ENCRYPTION_KEYS", "one key", "must be a list of texts, the newest first"),
        ("ENCRYPTION_KEYS", [b"key"], "must be a list of texts"),
        ("MATCH_KEYS", [""], "must be a list of texts"),
    ],
)
def test_a_wrong_value_is_refused_by_name(key: str, value: Any, reason: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        read_settings({key: value})

    assert str(refused.value).startswith((f"DURABLE['{key}'] must be ", f"DURABLE['{key}']: Cannot read "))
    assert reason in str(refused.value)


@pytest.mark.parametrize("key", ["ENCRYPTION_KEYS", "MATCH_KEYS"])
def test_keys_are_shown_nowhere(key: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        read_settings({key: ["my-secret", 7]})

    assert "my-secret" not in str(refused.value)
    assert "my-secret" not in repr(read_settings({key: ["my-secret"]}))


@pytest.mark.parametrize("value", ["worker", "command"])
def test_the_scheduler_runs_in_workers_or_as_a_command(value: str) -> None:
    assert read_settings({"SCHEDULER": value}).scheduler == value


@pytest.mark.parametrize("key", ["RETRIS", "retries", "Retries"])
def test_an_unknown_key_is_refused_with_a_suggestion(key: str) -> None:
    with pytest.raises(ConfigurationError, match=f"has no key '{key}'; did you mean 'RETRIES'"):
        read_settings({key: 4})


def test_an_unknown_key_like_no_other_is_refused_with_those_that_exist() -> None:
    with pytest.raises(ConfigurationError, match="has no key 'XYZ'; the keys are AUTODISCOVER_MODULE, DATABASE"):
        read_settings({"XYZ": 1})


def test_a_key_that_is_no_text_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="has no key '7'; the keys are"):
        read_settings({7: 1})


def test_settings_that_are_no_dictionary_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="DURABLE must be a dictionary, not 'inline'"):
        read_settings("inline")


def test_overriding_the_settings_takes_effect_and_ends() -> None:
    before = get_settings()

    with override_settings(DURABLE={"RETRIES": 1}):
        assert get_settings().retries == 1

    assert get_settings() == before


def test_what_depends_on_the_settings_is_worked_out_once_for_each_of_them(settings: Any) -> None:
    worked_out = []

    @cached_setting
    def retries() -> int:
        worked_out.append(get_settings().retries)
        return worked_out[-1]

    settings.DURABLE = {"RETRIES": 1}
    assert (retries(), retries(), worked_out) == (1, 1, [1])

    settings.DURABLE = {"RETRIES": 2}
    assert (retries(), retries(), worked_out) == (2, 2, [1, 2])

    settings.USE_TZ = True
    assert (retries(), worked_out) == (2, [1, 2])


def test_overriding_the_driver_takes_effect_and_ends() -> None:
    before = get_driver()

    with override_settings(DURABLE={"DRIVER": f"{__name__}.OwnDriver"}):
        assert isinstance(get_driver(), OwnDriver)

    assert type(get_driver()) is type(before)


def test_a_function_without_retries_of_its_own_takes_those_of_the_settings() -> None:
    backoff = Exponential("1s")
    settings = read_settings({"RETRIES": 2, "BACKOFF": backoff})

    assert (settings.retry_policy(None, None).retries, settings.retry_policy(None, None).backoff) == (2, backoff)


def test_a_function_keeps_retries_of_its_own() -> None:
    own = Exponential("9s")
    policy = read_settings({"RETRIES": 2, "BACKOFF": "1s"}).retry_policy(0, own)

    assert (policy.retries, policy.backoff) == (0, own)
