"""The steps of async handlers as type checkers see them; what they say of uses is in tests/typing."""

from __future__ import annotations

import inspect
from typing import Any, get_overloads

import pytest

from django_durable.core.functions.async_steps import AsyncStep
from django_durable.core.functions.steps import Step

WITH_ASYNCIO = {"parallel", "race", "map"}


def public(cls: type) -> dict[str, Any]:
    return {name: value for name, value in vars(cls).items() if not name.startswith("_")}


def parameters(fn: Any) -> list[tuple[str, Any, Any]]:
    return [(each.name, each.kind, each.default) for each in inspect.signature(fn).parameters.values()]


def test_an_async_handler_has_every_step_but_those_that_asyncio_stands_for() -> None:
    assert set(public(AsyncStep)) == set(public(Step)) - WITH_ASYNCIO


@pytest.mark.parametrize("name", [name for name, value in public(AsyncStep).items() if inspect.isfunction(value)])
def test_each_step_takes_what_that_of_a_plain_handler_takes(name: str) -> None:
    ours, plain = public(AsyncStep)[name], public(Step)[name]
    forms = get_overloads(plain)

    # The decorator form of run, which is its first overload, is for plain handlers.
    expected = [parameters(form) for form in (forms[1:] * 2 if name == "run" else forms or [plain])]
    assert [parameters(form) for form in get_overloads(ours) or [ours]] == expected
    assert inspect.getdoc(ours)


@pytest.mark.parametrize("name", [name for name, value in public(AsyncStep).items() if inspect.isfunction(value)])
def test_each_step_is_awaited_and_what_is_no_step_is_not(name: str) -> None:
    ours = public(AsyncStep)[name]
    is_async = {inspect.iscoroutinefunction(form) for form in get_overloads(ours) or [ours]}

    assert is_async == {name not in ("options", "idempotency_key")}


def test_the_steps_are_for_annotations_only() -> None:
    with pytest.raises(TypeError, match="Instance and class checks"):
        isinstance(object(), AsyncStep)
