from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.checks import CheckMessage, Info, run_checks
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

from django_durable.core.functions import registry
from django_durable.core.functions.functions import function
from django_durable.drivers.base import BaseDriver


@pytest.fixture(autouse=True)
def _no_other_functions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_functions", {})


def found(check_id: str) -> list[CheckMessage]:
    return [message for message in run_checks(tags=["durable"]) if message.id == f"durable.{check_id}"]


def handler(event: Any, step: Any) -> None:
    """Do nothing."""


def test_the_project_of_these_tests_has_no_problem() -> None:
    assert [message for message in run_checks(tags=["durable"]) if not isinstance(message, Info)] == []


def test_an_unknown_setting_is_an_error_with_a_suggestion(settings: Any) -> None:
    settings.DURABLE = {"RETRIS": 3}

    [message] = found("E001")

    assert (message.msg, message.hint) == ("The setting DURABLE has no key 'RETRIS'.", "Did you mean 'RETRIES'?")


def test_an_invalid_setting_is_an_error_that_names_it(settings: Any) -> None:
    settings.DURABLE = {"LEASE": "soon"}

    [message] = found("E001")

    assert message.msg.startswith("DURABLE['LEASE']: Cannot read 'soon' as a duration")
    assert message.msg.endswith("seconds as a number.")
    assert message.hint == "Correct it in the project's settings."


@pytest.mark.parametrize("driver", ["rabbits", "rabbits.Driver", "django_durable.Driver"])
def test_a_driver_that_cannot_be_imported_is_an_error(driver: str, settings: Any) -> None:
    settings.DURABLE = {"DRIVER": driver}

    [message] = found("E001")

    assert message.msg.startswith(f"DURABLE['DRIVER']: '{driver}' cannot be imported")
    assert message.hint == "Name 'celery', 'inline' or the dotted path of a driver."


class PickyDriver(BaseDriver):
    """A driver that misses something."""

    def check(self) -> list[CheckMessage]:
        return [Info("Nothing carries messages.", id="durable.I099")]


def test_the_driver_adds_what_it_finds(settings: Any) -> None:
    settings.DURABLE = {"DRIVER": f"{__name__}.PickyDriver"}

    assert [message.msg for message in found("I099")] == ["Nothing carries messages."]


@pytest.mark.parametrize("option", ["on_failure", "on_cancel", "on_complete"])
def test_an_unknown_end_function_is_an_error_with_a_suggestion(option: str) -> None:
    function("refund-order")(handler)
    function("fulfil-order", **{option: "refund-ordr"})(handler)  # type: ignore[arg-type]

    [message] = found("E008")

    assert message.msg == f"{option} of 'project/fulfil-order': There is no durable function 'project/refund-ordr'."
    assert message.hint == "Did you mean 'project/refund-order'?"


def test_a_known_failure_function_is_fine() -> None:
    function("refund-order")(handler)
    function("fulfil-order", on_failure="refund-order")(handler)

    assert found("E008") == []


def saving(event: Any, step: Any) -> None:
    """Save what it gets, in every pass."""
    event.data.save()


def saving_by_intent(event: Any, step: Any) -> None:
    """Save what it gets, and say so."""
    event.data.save()  # durable: ok


def test_a_side_effect_outside_steps_is_a_warning_that_names_function_and_line() -> None:
    function("save-it")(saving)

    [message] = found("W022")

    line = saving.__code__.co_firstlineno + 2
    assert message.msg == (
        f"event.data.save() stands outside a step: it happens in every pass. (project/save-it, {__file__}:{line})"
    )
    assert message.hint == 'Do it in a step: step.atomic("an-id", function) writes exactly once.'
    assert not message.is_serious()


def test_a_comment_says_that_a_side_effect_is_meant() -> None:
    function("save-it")(saving_by_intent)

    assert found("W022") == []


def test_a_warning_about_handlers_can_be_silenced_for_the_project(settings: Any) -> None:
    function("save-it")(saving)
    settings.SILENCED_SYSTEM_CHECKS = ["durable.W022"]

    assert [message for message in run_checks(tags=["durable"]) if not message.is_silenced()] == [
        message for message in run_checks(tags=["durable"]) if message.id != "durable.W022"
    ]


def test_a_handler_without_source_is_passed_over() -> None:
    namespace: dict[str, Any] = {"__name__": __name__}
    exec("def saving(event, step):\n    event.data.save()", namespace)
    function("save-it")(namespace["saving"])

    assert found("W022") == []


@pytest.fixture
def other(monkeypatch: pytest.MonkeyPatch, settings: Any) -> Iterator[BaseDatabaseWrapper]:
    """Return the connection, never made, of another database that holds the durable rows."""
    database = connections.settings["default"] | {"ENGINE": "django.db.backends.dummy", "OPTIONS": {}}
    monkeypatch.setitem(connections.settings, "other", database)
    settings.DURABLE = {"DATABASE": "other"}
    yield connections["other"]
    del connections["other"]


@pytest.mark.parametrize(("alias", "suggested"), [("othre", "other"), ("xyz", "default")])
def test_an_unknown_database_is_an_error_that_names_a_known_one(
    alias: str, suggested: str, other: BaseDatabaseWrapper, settings: Any
) -> None:
    settings.DURABLE = {"DATABASE": alias}

    [message] = found("E010")

    assert message.msg == f"DURABLE['DATABASE'] names the unknown database '{alias}'."
    assert message.hint == f"Name an alias of DATABASES, such as '{suggested}'."


def test_a_database_that_cannot_hold_durable_rows_is_an_error(other: BaseDatabaseWrapper) -> None:
    other.vendor = "oracle"

    [message] = found("E010")

    assert message.msg == "The database 'other' (oracle) cannot hold durable rows."
    assert message.hint is not None
    assert "PostgreSQL, SQLite, MariaDB or MySQL" in message.hint


@pytest.mark.parametrize("vendor", ["postgresql", "mysql"])
def test_a_database_server_needs_no_advice(vendor: str, other: BaseDatabaseWrapper) -> None:
    other.vendor = vendor

    assert found("E010") + found("I002") == []


@pytest.fixture
def sqlite(other: BaseDatabaseWrapper) -> BaseDatabaseWrapper:
    other.vendor = "sqlite"
    return other


def test_sqlite_is_advised_to_take_its_lock_early(sqlite: BaseDatabaseWrapper) -> None:
    [message] = found("I002")

    assert not message.is_serious()
    assert message.hint is not None
    assert '{"transaction_mode": "IMMEDIATE"} to DATABASES[\'other\']' in message.hint


def test_sqlite_that_takes_its_lock_early_needs_no_advice(sqlite: BaseDatabaseWrapper) -> None:
    sqlite.settings_dict["OPTIONS"] = {"transaction_mode": "immediate"}

    assert found("I002") == []


def test_a_project_without_aware_times_is_warned(settings: Any) -> None:
    settings.USE_TZ = False

    [message] = found("E015")

    assert message.msg.startswith("USE_TZ is False")
    assert message.hint == "Remove USE_TZ = False from the project's settings."


def test_another_distribution_of_the_same_package_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metadata = tmp_path / "django_durable-0.1.1.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Metadata-Version: 2.1\nName: django-durable\nVersion: 0.1.1\n")
    monkeypatch.syspath_prepend(tmp_path)

    [message] = found("E014")

    assert message.msg.startswith("django-durable 0.1.1 is installed")
    assert message.hint is not None
    assert "pip uninstall django-durable" in message.hint


def test_wrong_settings_hide_no_other_problem(settings: Any) -> None:
    settings.DURABLE = {"RETRIS": 3}
    settings.USE_TZ = False

    assert {message.id for message in run_checks(tags=["durable"])} == {"durable.E001", "durable.E015"}


def test_django_starts_with_wrong_settings_so_that_the_check_can_speak(tmp_path: Path) -> None:
    (tmp_path / "misspelt.py").write_text("from tests.settings import *\nDURABLE = {'RETRIS': 3}\n")
    command = [sys.executable, "-m", "django", "check"]
    paths = os.pathsep.join([str(tmp_path), *sys.path])

    result = subprocess.run(
        command, env=os.environ | {"DJANGO_SETTINGS_MODULE": "misspelt", "PYTHONPATH": paths}, capture_output=True
    )

    assert result.returncode != 0
    assert b"(durable.E001) The setting DURABLE has no key 'RETRIS'." in result.stderr


def test_a_codec_without_usable_keys_is_an_error_that_names_the_remedy(settings: Any) -> None:
    settings.DURABLE = {
        "CODEC": "django_durable.encryption.FernetCodec",
        "ENCRYPTION_KEYS": ["no key"],
        "MATCH_KEYS": ["matching"],
    }

    [message] = found("E016")

    assert message.msg == 'DURABLE["ENCRYPTION_KEYS"][0] is not a key.'
    assert message.hint == "Make one with cryptography.fernet.Fernet.generate_key().decode()."


def test_a_codec_that_cannot_be_imported_is_an_error(settings: Any) -> None:
    settings.DURABLE = {"CODEC": "project.codecs.Gone"}

    [message] = found("E016")

    assert message.msg.startswith("DURABLE['CODEC']: 'project.codecs.Gone' cannot be imported")
    assert message.hint == "Name a class with encode and decode."


def test_a_codec_is_not_asked_for_in_settings_that_cannot_be_read(settings: Any) -> None:
    settings.DURABLE = {"CODEC": 7}

    assert len(found("E001")) == 1
    assert found("E016") == []
