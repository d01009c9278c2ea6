from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from django_durable.core.functions import registry
from django_durable.core.functions.functions import DurableFunction, function
from django_durable.core.functions.triggers import On
from django_durable.exceptions import ConfigurationError


@pytest.fixture(autouse=True)
def _empty_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_functions", {})
    monkeypatch.setattr(registry, "_unnamed", [])
    monkeypatch.setattr(registry, "_locate", lambda module: None)


def make(id: str, **options: Any) -> DurableFunction[None]:
    @function(id, **options)
    def handler(event: Any, step: Any) -> None:
        """Do nothing."""

    return handler


def make_elsewhere(id: str) -> DurableFunction[None]:
    @function(id)
    def other_handler(event: Any, step: Any) -> None:
        """Do nothing."""

    return other_handler


def test_a_registered_function_is_found_by_its_id() -> None:
    greet = make("blog/greet")

    assert registry.get("blog/greet") is greet
    assert registry.get("blog/other") is None


def test_functions_are_listed_by_id() -> None:
    second, first = make("blog/b"), make("blog/a")

    assert registry.functions() == [first, second]


def test_two_functions_of_one_id_are_refused_with_both_places() -> None:
    first = make("blog/greet")

    with pytest.raises(ConfigurationError) as refused:
        make_elsewhere("blog/greet")

    assert str(refused.value).startswith(f"Two durable functions have the id 'blog/greet': {first.place} and ")
    assert registry.get("blog/greet") is first


def test_a_function_whose_module_is_loaded_again_replaces_itself() -> None:
    make("blog/greet")

    again = make("blog/greet")

    assert registry.get("blog/greet") is again


def test_a_slug_is_found_in_the_app_that_names_it() -> None:
    greet = make("blog/greet")
    make("shop/greet")

    assert registry.find("greet", "blog") is greet
    assert registry.find("blog/greet", "shop") is greet


def test_an_unknown_id_is_refused_with_a_suggestion() -> None:
    make("blog/greet")

    with pytest.raises(ConfigurationError, match=r"no durable function 'blog/gret'; did you mean 'blog/greet'\?"):
        registry.find("blog/gret")


def test_an_unknown_id_like_no_other_is_refused_with_where_to_look() -> None:
    with pytest.raises(ConfigurationError, match=r"'project/greet'; is its durable\.py in an installed app\?"):
        registry.find("greet")


@pytest.mark.parametrize(
    ("trigger", "listens"),
    [("app/user.created", True), ("app/user.*", True), ("app/*", True), ("app/user.deleted", False), (None, False)],
)
def test_functions_listen_by_name_and_wildcard(trigger: str | None, listens: bool) -> None:
    greet = make("blog/greet", trigger=trigger)

    heard = [listener for listener, _ in registry.listening_to("app/user.created")]

    assert heard == ([greet] if listens else [])


def test_a_listening_function_comes_once_with_all_triggers_that_listen() -> None:
    vip = On("app/user.created", if_="event.data.vip")
    greet = make("blog/greet", trigger=["app/*", "shop/paid", vip])

    assert list(registry.listening_to("app/user.created")) == [(greet, [On("app/*"), vip])]


@pytest.fixture
def locate_apps(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Go back to before the apps were ready; return what makes them ready."""
    monkeypatch.setattr(registry, "_locate", None)
    return lambda: registry.locate_apps_by(lambda module: "blog" if module == __name__ else None)


def test_a_function_made_before_the_apps_are_ready_waits_for_its_app(locate_apps: Callable[[], None]) -> None:
    greet = make("greet")
    assert registry.functions() == []

    locate_apps()

    assert registry.functions() == [greet]
    assert (greet.id, greet.app_label) == ("blog/greet", "blog")


def test_equal_ids_are_noticed_also_among_functions_made_early(locate_apps: Callable[[], None]) -> None:
    make("greet")
    make_elsewhere("blog/greet")

    with pytest.raises(ConfigurationError, match="Two durable functions have the id 'blog/greet'"):
        locate_apps()


def test_a_module_outside_every_app_belongs_to_the_project(locate_apps: Callable[[], None]) -> None:
    locate_apps()

    assert registry.app_label("scripts.nightly") == "project"
