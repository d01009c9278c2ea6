"""What ``import django_durable`` offers."""

from __future__ import annotations

import inspect
import pkgutil
from typing import Any

import pytest

import django_durable as durable
from django_durable.engine.runs.operations import OPERATIONS


def _ours(value: Any) -> bool:
    return not inspect.ismodule(value) and getattr(value, "__module__", "").partition(".")[0] == durable.__name__


def test_all_names_exactly_the_public_objects() -> None:
    objects = {name for name, value in vars(durable).items() if not name.startswith("_") and _ours(value)}

    assert sorted(durable.__all__) == sorted(objects)


@pytest.mark.parametrize("name", durable.__all__)
def test_every_public_object_is_documented(name: str) -> None:
    assert (inspect.getdoc(getattr(durable, name)) or "").strip()


def test_the_functions_that_change_a_run_are_those_of_the_table() -> None:
    functions = [value for name in durable.__all__ if inspect.isfunction(value := getattr(durable, name))]
    of_a_run = {each.__name__ for each in functions if next(iter(inspect.signature(each).parameters)) == "run_id"}
    operations = {f"{each.name}_{'wait' if each.takes_step else 'run'}" for each in OPERATIONS.values()}

    assert of_a_run - {"get_run", "export_history"} == operations


def test_no_public_name_is_also_a_submodule() -> None:
    """Importing the submodule would silently replace the object."""
    submodules = {module.name for module in pkgutil.iter_modules(durable.__path__)}

    assert submodules.isdisjoint(durable.__all__)
