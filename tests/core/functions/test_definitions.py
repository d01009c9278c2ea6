from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest

from django_durable.core.functions import registry
from django_durable.core.functions.functions import DurableFunction, function
from django_durable.core.functions.triggers import OnModel, OnSignal
from django_durable.core.retries import Exponential
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


def test_options_that_are_not_given_are_left_to_the_settings() -> None:
    greet = make()

    assert (greet.retries, greet.backoff, greet.queue, greet.checkpoint) == (None, None, None, None)
    assert (greet.triggers, registry.end_function(greet, "on_failure")) == ((), None)


def test_without_an_id_the_handlers_name_is_used_with_dashes() -> None:
    @function()
    def _import_all(event: Any, step: Any) -> None:
        """Do nothing."""

    assert _import_all.id == "project/import-all"


def test_an_id_may_name_the_app() -> None:
    greet = make("blog/greet")

    assert (greet.id, greet.app_label, greet.slug) == ("blog/greet", "blog", "greet")


@pytest.mark.parametrize("id", ["Greet", "a b", "/greet", "blog/", "a/b/c", "Blog/greet", "-greet", "x" * 101, "ü"])
def test_an_id_that_cannot_be_used_is_refused_with_the_form_and_the_place(id: str) -> None:
    with pytest.raises(
        ConfigurationError, match=r"definitions\.py:\d+\): its id cannot be used: write 'slug' or 'app/slug'"
    ):
        make(id)


def test_an_id_that_is_no_text_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"durable function 7 .*: its id must be text"):
        make(7)  # type: ignore[arg-type]


async def async_handler(event: Any, step: Any) -> None:
    """Do nothing."""


async def async_generator(event: Any, step: Any) -> Any:
    """Yield once."""
    yield


def generator(event: Any, step: Any) -> Any:
    """Yield once."""
    yield


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (7, "decorates a function, not 7"),
        (str, "decorates a function, not <class 'str'>"),
        (functools.partial(handler, 1), "decorates a function, not functools.partial"),
        (async_generator, "handler contains 'yield'"),
        (generator, "contains 'yield'"),
        (lambda event: None, r"must take exactly two positional parameters: \(event, step\)"),
        (lambda event, step, more: None, "exactly two positional parameters"),
        (lambda event, *, step: None, "exactly two positional parameters"),
        (lambda *args: None, "exactly two positional parameters"),
    ],
)
def test_a_handler_that_cannot_run_is_refused_with_the_reason(wrong: Any, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        function("greet")(wrong)


@pytest.mark.parametrize(("given", "is_async"), [(handler, False), (async_handler, True)])
def test_a_function_knows_whether_its_handler_is_async(given: Any, is_async: bool) -> None:
    assert function("greet")(given).is_async is is_async


def test_a_refused_handler_is_named_with_its_place() -> None:
    with pytest.raises(
        ConfigurationError,
        match=r"^The durable function 'greet' \(.*test_definitions\.py:\d+\): its handler contains 'yield'",
    ):
        function("greet")(generator)


def test_the_place_of_a_wrapped_handler_is_that_of_its_own_code() -> None:
    @functools.wraps(handler)
    def wrapper(event: Any, step: Any) -> str:
        return handler(event, step)

    assert function("wrapped")(wrapper).place == make().place


@pytest.mark.parametrize("retries", [-1, 1.5, "3", True])
def test_retries_that_are_no_count_are_refused(retries: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"retries must be a whole number, 0 or more, not"):
        make(retries=retries)


def test_no_retries_at_all_can_be_asked_for() -> None:
    assert make(retries=0).retries == 0


@pytest.mark.parametrize("replay", ["allow", "confirm", "deny"])
def test_what_may_be_done_with_replays_is_taken_as_it_is(replay: str) -> None:
    assert make(replay=replay).replay == replay


@pytest.mark.parametrize("replay", ["never", "", None, True, []])
def test_another_word_on_replays_is_refused_with_those_that_are(replay: Any) -> None:
    with pytest.raises(ConfigurationError, match="must be one of 'allow', 'confirm', 'deny'"):
        make(replay=replay)


def test_a_back_off_is_taken_as_it_is() -> None:
    assert make(backoff=Exponential("2s")).backoff == Exponential("2s")


def test_a_bad_back_off_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="backoff must be a duration, a list of durations, Exponential"):
        make(backoff=object)


@pytest.mark.parametrize("queue", ["q", "q" * 100])
def test_a_queue_has_a_name_that_its_column_can_hold(queue: str) -> None:
    assert make(queue=queue).queue == queue


@pytest.mark.parametrize("queue", [7, "", "q" * 101])
def test_a_queue_that_is_no_name_is_refused(queue: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"greet.* queue must be the name of a queue"):
        make(queue=queue)


def test_a_checkpoint_that_is_neither_true_nor_false_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"checkpoint must be True or False, not 'no'"):
        make(checkpoint="no")


class FakeSignal:
    """A signal, as far as a trigger looks at it."""

    def connect(self, receiver: object) -> None:
        """Do nothing."""


def test_a_function_listens_to_events_of_names_models_and_signals() -> None:
    signal = OnSignal(FakeSignal(), data=lambda sender, **kwargs: None)

    greet = make("blog/greet", trigger=["app/*", OnModel("blog.Post", "created"), signal])

    assert [on.name for on in greet.listens] == ["app/*", "blog/post.created", "signal/blog/greet"]


def test_the_code_version_follows_the_code() -> None:
    def change(event: Any, step: Any) -> str:
        return "changed"

    versions = [make().code_version, make().code_version, function("change")(change).code_version]

    assert versions[0] == versions[1] != versions[2]
    assert len(versions[0]) == 16


def test_a_handler_without_source_has_a_code_version_too() -> None:
    def compiled(body: str) -> DurableFunction[Any]:
        names: dict[str, Callable[..., Any]] = {}
        exec(f"def handler(event, step): return {body}", names)
        return function("compiled")(names["handler"])

    assert compiled("event").code_version != compiled("event.data['id'] + 1").code_version
