"""Events from Django's signals: a saved or deleted row for ``OnModel``, any signal for ``OnSignal``.

Functions that listen to the same change of a model share one event. Its data is ``id`` (the primary key), the union of
their ``fields=``, and, where one of them has ``changed=``, ``changed_fields``: the names among those whose column this
save changed. The event is stored in the transaction around the save, so a rollback takes it along; without one, Django
commits the row before it announces it. Where the model lives in another database than the durable rows, the event is
sent once that database has committed: a crash between the two loses it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.db import models, transaction
from django.db.models.signals import post_delete, post_save, pre_delete, pre_save
from django.dispatch import Signal

from .conf import get_settings
from .core.events.events import Event
from .core.functions import registry
from .core.functions.definitions import FunctionDefinition
from .core.functions.triggers import Change, OnModel, OnSignal
from .core.suggestions import did_you_mean
from .engine.events import sending
from .exceptions import ConfigurationError

if TYPE_CHECKING:
    Field = models.Field[Any, Any]
    Fields = dict[str, Field]  #: by the name that a trigger gives it: ``author`` or ``author_id``

_UID = "django_durable.model_events"
_BEFORE = "_durable_before"  #: attribute of an instance from pre_save to post_save: its watched columns, by event


@dataclass(frozen=True, slots=True)
class _Announcement:
    """The event that is sent when a row of *model* changes in one way."""

    name: str
    model: type[models.Model]
    sent: Fields
    watched: Fields
    always: bool  #: a function listens to every change, not only to one of watched fields


#: By the class that Django announces and the change; several where functions listen to a model and to its proxy.
_announcements: dict[tuple[type[models.Model], Change], list[_Announcement]] = {}


def connect() -> None:
    """Connect the signals that registered functions listen to; a second call also connects those registered since.

    Raises ConfigurationError for a trigger that names no installed model, or no field of it.
    """
    _announcements.clear()
    for change_of_model, triggers in _on_models().items():
        _announce(change_of_model, triggers)
    for function in registry.functions():
        for index, trigger in enumerate(function.triggers):
            if isinstance(trigger, OnSignal):
                receiver = functools.partial(_on_signal, function.id, trigger.data)
                _reconnect(trigger.signal, receiver, f"{_UID}.{function.id}.{index}")


def _on_models() -> dict[tuple[type[models.Model], Change], list[OnModel]]:
    found: dict[tuple[type[models.Model], Change], list[OnModel]] = {}
    for function in registry.functions():
        for trigger in function.triggers:
            if isinstance(trigger, OnModel):
                found.setdefault((_model(trigger.label, function), trigger.change), []).append(trigger)
    return found


def _announce(change_of_model: tuple[type[models.Model], Change], triggers: list[OnModel]) -> None:
    model, change = change_of_model
    announcement = _Announcement(
        name=triggers[0].on.name,
        model=model,
        sent={"id": model._meta.pk} | _fields(model, [name for trigger in triggers for name in trigger.fields]),
        watched=_fields(model, [name for trigger in triggers for name in trigger.changed]),
        always=not all(trigger.changed for trigger in triggers),
    )
    for sender in _senders(model, change):
        _announcements.setdefault((sender, change), []).append(announcement)
        if change == "deleted":
            _reconnect(pre_delete, _before_delete, _UID, sender)
            _reconnect(post_delete, _after_delete, _UID, sender)
        else:
            _reconnect(pre_save, _before_save, _UID, sender)
            _reconnect(post_save, _after_save, _UID, sender)


def _senders(model: type[models.Model], change: Change) -> Iterator[type[models.Model]]:
    """Yield the classes under which Django announces rows of *model*: its proxies and children, too.

    A child's row is deleted together with its parent's, which Django announces by itself.
    """
    for sender in apps.get_models():
        same_row = sender._meta.concrete_model is model._meta.concrete_model
        if issubclass(sender, model) and (same_row or change != "deleted"):
            yield sender


def _reconnect(signal: Signal, receiver: Callable[..., None], uid: str, sender: Any = None) -> None:
    # A signal ignores a second receiver of the same uid, and the first may be out of date.
    signal.disconnect(sender=sender, dispatch_uid=uid)
    signal.connect(receiver, sender=sender, dispatch_uid=uid, weak=False)


def _model(label: str, function: FunctionDefinition[Any, Any]) -> type[models.Model]:
    try:
        model = apps.get_model(label)
    except LookupError:
        labels = [each._meta.label for each in apps.get_models()]
        raise ConfigurationError(
            f"{function.id!r} ({function.place}) starts on OnModel({label!r}), which is not an installed model; "
            + did_you_mean(label, labels, "is its app in INSTALLED_APPS?")
        ) from None
    if model._meta.swapped:
        raise ConfigurationError(
            f"{function.id!r} ({function.place}) starts on OnModel({label!r}), which this project has replaced; "
            f"name {model._meta.swapped!r}"
        )
    return model


def _fields(model: type[models.Model], names: Iterable[str]) -> Fields:
    known = {name: field for field in model._meta.concrete_fields for name in (field.attname, field.name)}
    for name in names:
        if name not in known:
            raise ConfigurationError(
                f"OnModel({model._meta.label!r}): {name!r} is not a field of the model that has a column; "
                + did_you_mean(name, known, f"they are {', '.join(sorted(known))}")
            )
    return {name: known[name] for name in sorted(set(names))}


def _before_save(
    sender: type[models.Model], instance: models.Model, raw: bool, using: str, update_fields: Any, **kwargs: Any
) -> None:
    """Remember the watched columns as the row has them: the instance may be older than its row, or lack some."""
    before = {}
    for announcement in () if raw else _announcements.get((sender, "updated"), ()):
        watched = {name: field for name, field in announcement.watched.items() if _is_written(field, update_fields)}
        before[announcement.name] = _read(announcement, instance, watched, using)
    setattr(instance, _BEFORE, before)


def _after_save(
    sender: type[models.Model],
    instance: models.Model,
    created: bool,
    raw: bool,
    using: str,
    update_fields: Any,
    **kwargs: Any,
) -> None:
    remembered = instance.__dict__.pop(_BEFORE, {})
    for announcement in () if raw else _announcements.get((sender, "created" if created else "updated"), ()):
        before = remembered.get(announcement.name, {})
        fields = announcement.sent | {name: announcement.watched[name] for name in before}
        row = _row(announcement, instance, fields, update_fields, using)
        changed = [name for name in before if row.get(name) != before[name]]
        if changed or announcement.always:
            data = {name: row.get(name) for name in announcement.sent}
            listed = {"changed_fields": changed} if announcement.watched else {}
            _send(announcement.name, data | listed, "model", using)


def _before_delete(sender: type[models.Model], instance: models.Model, **kwargs: Any) -> None:
    """Load deferred columns while the row is still there."""
    for announcement in _announcements.get((sender, "deleted"), ()):
        _loaded(instance, announcement.sent)


def _after_delete(sender: type[models.Model], instance: models.Model, using: str, **kwargs: Any) -> None:
    for announcement in _announcements.get((sender, "deleted"), ()):
        _send(announcement.name, _loaded(instance, announcement.sent), "model", using)


def _row(
    announcement: _Announcement, instance: models.Model, fields: Fields, update_fields: Any, using: str
) -> dict[str, Any]:
    """Return these columns of a saved instance's row, reading only those that the instance cannot tell."""
    sure = {name: field for name, field in fields.items() if _is_sure(instance, field, update_fields)}
    unsure = {name: field for name, field in fields.items() if name not in sure}
    return _loaded(instance, sure) | _read(announcement, instance, unsure, using)


def _is_written(field: Field, update_fields: Collection[str] | None) -> bool:
    return update_fields is None or field.name in update_fields or field.attname in update_fields


def _is_sure(instance: models.Model, field: Field, update_fields: Collection[str] | None) -> bool:
    """Tell whether a saved instance holds the value of its row: not if it holds ``F("count") + 1``."""
    if field.primary_key:
        return True
    computed = field.generated or hasattr(instance.__dict__.get(field.attname), "resolve_expression")
    return not computed and _is_written(field, update_fields)


def _loaded(instance: models.Model, fields: Fields) -> dict[str, Any]:
    return {name: field.get_prep_value(field.value_from_object(instance)) for name, field in fields.items()}


def _read(announcement: _Announcement, instance: models.Model, fields: Fields, using: str) -> dict[str, Any]:
    """Return these columns of the instance's row; nothing if there is no such row."""
    if not fields:
        return {}
    key = announcement.model._meta.pk.value_from_object(instance)
    rows = announcement.model._base_manager.using(using).filter(pk=key)
    row = rows.values(*{field.attname for field in fields.values()}).first()
    return {name: field.get_prep_value(row[field.attname]) for name, field in fields.items()} if row else {}


def _on_signal(
    function_id: str, data: Callable[..., dict[str, Any] | None], /, *, sender: Any, signal: Signal, **kwargs: Any
) -> None:
    content = data(sender, **kwargs)
    if content is not None:
        _send(f"signal/{function_id}", content, "signal", kwargs.get("using"))


def _send(name: str, data: dict[str, Any], source: str, using: str | None) -> None:
    event = Event(name, data)
    if using in (None, get_settings().database):
        sending.send([event], source=source)
    else:
        later = functools.partial(sending.send, [event], source=source, outside_transaction=True)
        transaction.on_commit(later, using=using)
