"""Statements that insert rows: prepared, where those of the ORM are built and planned anew each time."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Field, Model

from ....codecs import get_codec, seal_text
from ....managers import DatabaseNow
from ..portable.turn_writes import STEP_CHANGES
from ..rows import AttemptRow, StepRow, WaitRow
from .expressions import NOW, SETTLED

# Parts of a turn's writes, after the one that locks the row of its run

# Branches and their groups, which have more columns, are written many at once, by the portable store.
_ONLY_BRANCHES = ("path", "open")
_CHANGING = tuple(name for name in STEP_CHANGES if name not in _ONLY_BRANCHES)
_FIXED = tuple(name for name in StepRow.__slots__ if name not in (*STEP_CHANGES, *_ONLY_BRANCHES))
STEP = (*_FIXED, *_CHANGING)  #: columns of a step
_PREFIXES: dict[type, str] = {StepRow: "step", WaitRow: "wait", AttemptRow: "attempt"}  #: of parameters
_PAYLOADS = ("input", "output", "error")  #: columns that a codec seals
_CHOICES = ("kind", "status")  #: columns that store the text of an enum
_ATTEMPT = tuple(AttemptRow.__slots__)
_WAIT = tuple(WaitRow.__slots__)

ATTEMPT = f"""
INSERT INTO django_durable_stepattempt (run_id, owner, {", ".join(_ATTEMPT)})
SELECT run.id, %(owner)s, {", ".join(f"%(attempt_{name})s" for name in _ATTEMPT)} FROM run
"""
WAIT = f"""
INSERT INTO django_durable_wait (run_id, {", ".join(_WAIT)})
SELECT run.id, {", ".join(f"%(wait_{name})s" for name in _WAIT)} FROM run
"""


def step_part(filled: tuple[str, ...]) -> str:
    """Return the part that writes a step: a column without a value needs no parameter, which each step would bind."""
    return f"""
INSERT INTO django_durable_step (run_id, seq, path, fence, owner, crashes, {", ".join(filled)})
SELECT run.id, run.seq, '', 0, '', 0, {", ".join(f"%(step_{name})s" for name in filled)} FROM run
ON CONFLICT (run_id, key) DO UPDATE SET
    seq = excluded.seq, {", ".join(f"{name} = excluded.{name}" for name in _CHANGING)}
WHERE django_durable_step.status NOT IN {SETTLED}
RETURNING seq
"""


def parameters(*rows: StepRow | WaitRow | AttemptRow | None) -> dict[str, Any]:
    """Return the columns of these rows as they are stored, as the parameters of their parts."""
    values: dict[str, Any] = {}
    seals = get_codec() is not None
    for row in rows:
        for name in row.__slots__ if row is not None else ():
            value = getattr(row, name)
            if seals and value and name in _PAYLOADS:
                value = seal_text(value)
            elif name in _CHOICES:
                value = str(value)
            values[f"{_PREFIXES[type(row)]}_{name}"] = value
    return values


# What ingest stores

INGESTED = """
UPDATE django_durable_event event SET ingested_at = given.moment
FROM unnest((SELECT %(ids)s::uuid[]), (SELECT %(moments)s::timestamptz[])) AS given (id, moment)
WHERE event.id = given.id RETURNING event.id
"""
NEW_RUNS = f"SELECT id, {NOW} FROM django_durable_run WHERE id = ANY(%(run_ids)s)"


@lru_cache
def ingested_and(new_run: str) -> str:
    """Return the statement that marks events as ingested and inserts the run that they start."""
    return f"WITH marked AS ({INGESTED}), new AS ({new_run}) SELECT id, {NOW} FROM new"


# One row of any model


def statement(row: Model, connection: BaseDatabaseWrapper, *, ignore_conflicts: bool) -> tuple[str, dict[str, Any]]:
    """Return the statement that inserts *row*, and its parameters; columns without a value are left out."""
    moments: list[str] = []
    values: dict[str, Any] = {}
    for name, field in _fields(type(row)):
        value = getattr(row, name)
        if isinstance(value, DatabaseNow):
            moments.append(name)
            values[name] = value.later
        elif value is not None:
            values[name] = field.get_db_prep_save(value, connection)
    return _insert(row._meta.db_table, tuple(values), tuple(moments), ignore_conflicts), values


@lru_cache
def _fields(model: type[Model]) -> list[tuple[str, Field[Any, Any]]]:
    return [(field.attname, field) for field in model._meta.concrete_fields]


@lru_cache
def _insert(table: str, columns: tuple[str, ...], moments: tuple[str, ...], ignore_conflicts: bool) -> str:
    names = ", ".join(f'"{name}"' for name in columns)
    values = ", ".join(f"{NOW} + %({name})s" if name in moments else f"%({name})s" for name in columns)
    return f"""
INSERT INTO {table} ({names}) VALUES ({values}){" ON CONFLICT DO NOTHING" if ignore_conflicts else ""} RETURNING id
"""
