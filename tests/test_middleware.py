"""The setting MIDDLEWARE."""

from __future__ import annotations

import os
from typing import Any

import pytest
from django.core.checks import run_checks

from django_durable import Middleware
from django_durable.exceptions import ConfigurationError
from django_durable.middleware import get_hooks


class Fine(Middleware):
    """Counts its instances."""

    made = 0

    def __init__(self) -> None:
        Fine.made += 1

    def encode(self, value: Any) -> Any:
        return [value]


class Broken(Middleware):
    """Cannot be made."""

    def __init__(self) -> None:
        raise ValueError("no key")


def name(settings: Any, path: str) -> None:
    settings.DURABLE = {"DRIVER": "inline", "MIDDLEWARE": [path]}


def test_each_process_makes_one_instance(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    name(settings, f"{__name__}.Fine")
    monkeypatch.setattr(Fine, "made", 0)

    assert get_hooks().encode(1) == get_hooks().encode(1) == [1]
    assert Fine.made == 1
    if not (fork := os.fork()):
        os._exit(0 if get_hooks().encode(1) == [1] and Fine.made == 2 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(fork, 0)[1]) == 0


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("nowhere.Tracing", "'nowhere.Tracing' cannot be imported (No module named 'nowhere'); name the dotted path"),
        (f"{__name__}.Tracing", "cannot be imported"),
        ("os.path.join", "'os.path.join' is not a class derived from durable.Middleware"),
        ("decimal.Decimal", "is not a class derived from durable.Middleware"),
        (f"{__name__}.Broken", "cannot be made (ValueError('no key'))"),
    ],
)
def test_a_class_that_cannot_be_used_is_refused_by_name_and_found_by_the_checks(
    settings: Any, path: str, reason: str
) -> None:
    name(settings, path)

    with pytest.raises(ConfigurationError) as refused:
        get_hooks()

    assert reason in str(refused.value)
    assert "durable.E001" in [message.id for message in run_checks(tags=["durable"])]
