from __future__ import annotations

from typing import Any

import pytest

from django_durable.core.events.conditions import compile_condition
from django_durable.core.functions.triggers import On, OnModel, OnSignal, make_triggers
from django_durable.exceptions import ConfigurationError


class FakeMeta:
    """What Django keeps of a model."""

    label_lower = "blog.post"


class FakeModel:
    """A model, as far as a trigger looks at it."""

    _meta = FakeMeta()


class FakeSignal:
    """A signal, as far as a trigger looks at it."""

    def connect(self, receiver: object) -> None:
        """Do nothing."""


def nothing(sender: object, **kwargs: object) -> None:
    """Send nothing."""


def starts(on: On, data: dict[str, Any]) -> bool:
    """Tell whether an event with that data starts a function by *on*."""
    event = {"name": on.name, "data": data}
    return on.if_ is None or compile_condition(on.if_, ("event",)).holds(event=event)


def test_no_trigger_is_allowed() -> None:
    assert make_triggers(None) == ()


def test_a_text_is_the_name_of_an_event() -> None:
    assert make_triggers("app/user.created") == (On("app/user.created"),)


def test_several_triggers_keep_their_order() -> None:
    condition = On("app/paid", if_="event.data.total > 100")

    assert make_triggers(["app/*", condition]) == (On("app/*"), condition)


@pytest.mark.parametrize("trigger", [7, FakeModel, ["app/paid", 7], {"app/paid": 1}.items()])
def test_anything_else_is_refused_with_what_could_be_given(trigger: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^trigger must be an event's name, On\(\.\.\.\), .*, not "):
        make_triggers(trigger)


@pytest.mark.parametrize("name", ["", "app*", "a\n"])
def test_a_name_that_no_event_can_have_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match=r"The trigger .* cannot be used"):
        make_triggers(name)


def test_a_condition_that_does_not_compile_is_refused_with_its_position() -> None:
    with pytest.raises(ConfigurationError, match=r"The trigger 'app/paid' cannot be used.*at line 1, column"):
        On("app/paid", if_="event.data.total >")


def test_a_trigger_knows_no_arriving_event() -> None:
    with pytest.raises(ConfigurationError, match="the variables are event"):
        On("app/paid", if_="async.data.id == 1")


@pytest.mark.parametrize("model", ["blog.Post", "Blog.post", FakeModel])
def test_a_model_is_given_by_label_or_class(model: Any) -> None:
    trigger = OnModel(model, "created")

    assert (trigger.label, trigger.on) == ("blog.post", On("blog/post.created"))


@pytest.mark.parametrize("model", ["Post", "blog.models.Post", 7, None])
def test_a_model_given_otherwise_is_refused_with_an_example(model: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"takes a model or its label such as 'blog\.Post'"):
        OnModel(model, "created")


@pytest.mark.parametrize("change", ["created", "updated", "deleted"])
def test_each_change_has_an_event_of_its_own(change: Any) -> None:
    trigger = OnModel("blog.Post", change)

    assert (trigger.change, trigger.on.name) == (change, f"blog/post.{change}")


def test_an_unknown_change_is_refused_with_those_that_exist() -> None:
    with pytest.raises(ConfigurationError, match="must be one of 'created', 'updated', 'deleted', not 'saved'"):
        OnModel("blog.Post", "saved")  # type: ignore[arg-type]


def test_fields_are_names_or_a_single_name() -> None:
    trigger = OnModel("blog.Post", "updated", fields=["title", "body"], changed="title")

    assert (trigger.fields, trigger.changed) == (("title", "body"), ("title",))


@pytest.mark.parametrize("change", ["created", "deleted"])
def test_watched_fields_go_with_updates_only(change: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"changed= goes with 'updated', not with '{change}'"):
        OnModel("blog.Post", change, changed=["title"])


@pytest.mark.parametrize(
    ("changed_fields", "started"), [(["title"], True), (["views", "body"], True), (["views"], False), ([], False)]
)
def test_watched_fields_start_on_events_that_say_one_of_them_changed(changed_fields: list[str], started: bool) -> None:
    trigger = OnModel("blog.Post", "updated", changed=["title", "body"])

    assert starts(trigger.on, {"changed_fields": changed_fields}) is started


def test_watched_fields_do_not_start_on_an_event_that_says_nothing_of_changes() -> None:
    assert starts(OnModel("blog.Post", "updated", changed=["title"]).on, {}) is False


@pytest.mark.parametrize("condition", ["event.data.id == 1 || event.data.id == 2", "event.data.id < 3 // the first"])
def test_watched_fields_and_a_condition_must_both_hold(condition: str) -> None:
    on = OnModel("blog.Post", "updated", changed=["title"], if_=condition).on

    assert starts(on, {"id": 2, "changed_fields": ["title"]}) is True
    assert starts(on, {"id": 2, "changed_fields": ["body"]}) is False
    assert starts(on, {"id": 3, "changed_fields": ["title"]}) is False


def test_a_bad_condition_beside_watched_fields_is_shown_as_it_was_written() -> None:
    with pytest.raises(ConfigurationError, match=r"The expression 'event.data >' does not compile"):
        OnModel("blog.Post", "updated", changed=["title"], if_="event.data >")


def test_a_signal_sends_an_event_named_for_the_function() -> None:
    trigger = OnSignal(FakeSignal(), data=nothing, if_="event.data.id > 0")

    assert trigger.on("shop/greet") == On("signal/shop/greet", "event.data.id > 0")


def test_something_that_is_no_signal_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="OnSignal takes a Django signal, not 'user_logged_in'"):
        OnSignal("user_logged_in", data=nothing)


def test_data_of_a_signal_that_cannot_be_called_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"takes a callable of \(sender, \*\*kwargs\), not \{\}"):
        OnSignal(FakeSignal(), data={})  # type: ignore[arg-type]


def test_a_bad_condition_of_a_signal_is_refused_at_once() -> None:
    with pytest.raises(ConfigurationError, match=r"The expression 'event.data >' does not compile"):
        OnSignal(FakeSignal(), data=nothing, if_="event.data >")
