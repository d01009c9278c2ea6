"""How people name a step of a run: by its id, or by ``("id", 2)`` or ``"id#2"`` where the id is used again."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from django.db.models import Q

from ...exceptions import StepNotFound
from ...models import Step
from .transactions import alias

StepName = str | tuple[str, int]
_MOST = 1_000  #: steps read to name them in an error


def named(step: StepName) -> Q:
    """Return the condition of the steps that *step* may mean: several branches may have one each."""
    if not isinstance(step, str):
        name, ordinal = step
        return Q(name=name, ordinal=ordinal)
    name, mark, ordinal_text = step.rpartition("#")
    repeated = Q(name=name, ordinal=int(ordinal_text)) if mark and _is_ordinal(ordinal_text) else Q()
    return Q(name=step, ordinal=0) | repeated


def _is_ordinal(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 10


def title(name: str, ordinal: int) -> str:
    """Return the text that names a step."""
    return f"{name}#{ordinal}" if ordinal else name


def not_found(run_id: UUID, step: StepName) -> StepNotFound:
    """Return the error that names the steps that the run has, in the order in which they were reached."""
    rows = Step.objects.using(alias()).filter(run_id=run_id).in_order().values_list("name", "ordinal")[:_MOST]
    return StepNotFound(run_id, step, _unique(title(*row) for row in rows))


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
