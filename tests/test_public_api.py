"""What ``import django_durable`` offers."""

from __future__ import annotations

import inspect
import pkgutil
from typing import Any

import pytest

import django_durable as durable


def _ours(value: Any) -> bool:
    return not inspect.ismodule(value) and getattr(value, "__module__", "").partition(".")[0] == durable.__name__


def test_all_names_exactly_the_public_objects() -> None:
    objects = {name for name, value in vars(durable).items() if not name.startswith("_") and _ours(value)}

    assert sorted(durable.__all__) == sorted(objects)


@pytest.mark.parametrize("name", durable.__all__)
def test_every_public_object_is_documented(name: str) -> None:
    assert (inspect.getdoc(getattr(durable, name)) or "").strip()


def test_no_public_name_is_also_a_submodule() -> None:
    """Importing the submodule would silently replace the object."""
    submodules = {module.name for module in pkgutil.iter_modules(durable.__path__)}

    assert submodules.isdisjoint(durable.__all__)
