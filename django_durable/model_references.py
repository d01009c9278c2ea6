"""Model instances as references: a step's value holds model, primary key and database of an instance.

The instance is loaded afresh when the value is read. Its model is found by label among the project's own; nothing is
imported by a name from a row.
"""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.core.exceptions import FieldError, ObjectDoesNotExist, ValidationError
from django.db import DEFAULT_DB_ALIAS, DataError, connections, models

from .core.values import references
from .core.values.references import Reference
from .core.values.tags import Unstorable
from .exceptions import StaleReference


def register() -> None:
    """Let values hold model instances."""
    references.register(Reference("model", _is_instance, _write, _load))


def _is_instance(value: object) -> bool:
    return isinstance(value, models.Model)


def _write(instance: models.Model) -> dict[str, Any]:
    # Asked of the instance: a lazy object, such as request.user, answers for the instance that it stands for.
    label, pk = instance._meta.label_lower, instance.pk
    if pk is None or instance._state.adding:
        raise Unstorable(f"the {label} has not been saved", "Save it first, or return its values")
    return {"m": label, "pk": pk, "db": instance._state.db or DEFAULT_DB_ALIAS}


def _load(fields: dict[str, Any]) -> models.Model:
    try:
        label, pk, alias = fields["m"], fields["pk"], fields["db"]
    except KeyError as missing:
        raise Unstorable(f"a reference lacks {missing}", "Replay the run from the start") from None
    model = _model(label)
    if not isinstance(alias, str) or alias not in connections:
        raise Unstorable(f"{label} {pk!r} is in the unknown database {alias!r}", "Name it in DATABASES again")
    try:
        return model._base_manager.using(alias).get(pk=pk)
    except ObjectDoesNotExist:
        raise StaleReference(label, pk, alias) from None
    except (TypeError, ValueError, OverflowError, ValidationError, FieldError, DataError) as error:
        raise Unstorable(
            f"{label} has no primary keys such as {pk!r} any more ({error})", "Replay the run from the start"
        ) from None


def _model(label: str) -> type[models.Model]:
    try:
        return apps.get_model(label)
    except (LookupError, ValueError, AttributeError, TypeError):
        raise Unstorable(
            f"a recorded {label} cannot be read back: this project has no such model",
            "Restore the model, or replay the run from the start",
        ) from None
