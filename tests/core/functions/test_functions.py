from __future__ import annotations

from typing import Any

import pytest

from django_durable.core.functions import registry
from django_durable.core.functions.functions import DurableFunction, function
from django_durable.core.functions.triggers import On
from django_durable.exceptions import ConfigurationError


@pytest.fixture(autouse=True)
def _empty_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_functions", {})
    monkeypatch.setattr(registry, "_locate", lambda module: None)


def handler(event: Any, step: Any) -> str:
    """Return something."""
    return f"{event} {step}"


def make(id: str = "greet", **options: Any) -> DurableFunction[str]:
    return function(id, **options)(handler)


def test_the_decorator_makes_and_registers_a_function() -> None:
    @function("activation-email", trigger="app/user.created", retries=2, queue="mail", checkpoint=False)
    def activation_email(event: Any, step: Any) -> None:
        """Do nothing."""

    assert registry.get("project/activation-email") is activation_email
    assert activation_email.triggers == (On("app/user.created"),)
    assert (activation_email.retries, activation_email.queue, activation_email.checkpoint) == (2, "mail", False)


def test_the_decorator_without_parentheses_is_refused() -> None:
    """Else the handler would be taken for the id, and no function registered."""
    with pytest.raises(ConfigurationError, match=r"write @durable\.function\(\), with parentheses"):
        function(handler)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "option", ["trigger", "retries", "backoff", "queue", "checkpoint", "on_failure", "on_cancel", "replay"]
)
def test_an_unknown_option_is_refused_with_a_suggestion(option: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"has no option '{option}_'; did you mean '{option}'\?"):
        make(**{f"{option}_": None})


def test_an_unknown_option_like_no_other_is_refused_with_those_that_exist() -> None:
    with pytest.raises(ConfigurationError, match="has no option 'colour'; the options are id, trigger, retries"):
        make(colour="red")


def test_a_failure_handler_becomes_a_function_of_its_own() -> None:
    order = make("shop/order", queue="slow")

    @order.on_failure
    def refund(event: Any, step: Any) -> None:
        """Do nothing."""

    assert registry.end_function(order, "on_failure") is refund
    assert (refund.id, refund.queue) == ("shop/order.on_failure", "slow")
    assert registry.get("shop/order.on_failure") is refund


def test_a_failure_handler_can_be_given_as_an_option() -> None:
    order = make("order", on_failure=handler)

    assert registry.end_function(order, "on_failure") is registry.get("project/order.on_failure")


def test_a_failure_function_can_be_a_durable_function() -> None:
    refund = make("refund")

    assert registry.end_function(make("order", on_failure=refund), "on_failure") is refund


def test_a_failure_function_can_be_named_before_it_exists() -> None:
    order = make("shop/order", on_failure="refund")

    refund = make("shop/refund")

    assert registry.end_function(order, "on_failure") is refund


def test_a_failure_function_that_never_comes_is_refused_when_it_is_needed() -> None:
    order = make("shop/order", on_failure="refund")

    with pytest.raises(ConfigurationError, match="no durable function 'shop/refund'"):
        registry.end_function(order, "on_failure")


def test_a_failure_function_of_another_type_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="decorates a function, not 7"):
        make("order", on_failure=7)


def test_a_function_shows_its_id() -> None:
    assert repr(make("blog/greet")) == "<DurableFunction blog/greet>"
