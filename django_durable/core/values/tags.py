"""The types that JSON lacks and that hold no other values: how each is written, read back and shown.

A tagged value is an object whose key ``$`` names the tag: ``{"$": "decimal", "v": "1.50"}``.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

_MICROSECOND = timedelta(microseconds=1)
_LARGEST_INT = 1 << 2000
"""Larger ones are written as hexadecimal text: Python refuses to read long decimal ones, from 640 digits on."""


class Unstorable(Exception):
    """A value cannot be written; each container on the way out adds its part of the path."""

    def __init__(self, problem: str, remedy: str) -> None:
        self.problem = problem
        self.remedy = remedy
        self.path: list[str] = []
        super().__init__(problem)


@dataclass(frozen=True, slots=True)
class Tag:
    """How values of *type* become a JSON object and come back.

    *write* returns the fields beside ``$``, *read* takes them, *plain* turns them into JSON without tags.
    """

    name: str
    type: type
    write: Callable[[Any], dict[str, Any]]
    read: Callable[[dict[str, Any]], Any]
    plain: Callable[[dict[str, Any]], Any] = lambda fields: fields["v"]


def write_int(value: int) -> Any:
    """Write an int of any size."""
    number = int.__int__(value)
    return number if -_LARGEST_INT < number < _LARGEST_INT else {"$": "int", "v": hex(number)}


def write_float(value: float) -> float:
    """Write a finite float; refuse any other, for which JSON has no form."""
    if not math.isfinite(value):
        raise Unstorable(f"{value} is not a JSON number", "Store None or a text in its place, or a Decimal")
    return float.__float__(value)


def _write_complex(value: complex) -> dict[str, Any]:
    return {"v": [write_float(value.real), write_float(value.imag)]}


def _write_moment(value: datetime | time) -> dict[str, Any]:
    fields = {"v": value.isoformat()}
    # The offset in the text fixes the moment, the zone's name lets later arithmetic follow its rules.
    if isinstance(value.tzinfo, ZoneInfo) and value.tzinfo.key:
        fields["zone"] = value.tzinfo.key
    return {**fields, "fold": 1} if value.fold else fields


def _read_datetime(fields: dict[str, Any]) -> datetime:
    moment = datetime.fromisoformat(fields["v"]).replace(fold=fields.get("fold", 0))
    zone = _zone(fields)
    if zone is None:
        return moment
    local = moment.replace(tzinfo=zone)
    # Where the rules of the zone have changed since, the moment is kept and the wall time gives way.
    return local if local.utcoffset() == moment.utcoffset() else moment.astimezone(zone)


def _read_time(fields: dict[str, Any]) -> time:
    value = time.fromisoformat(fields["v"]).replace(fold=fields.get("fold", 0))
    zone = _zone(fields)
    return value if zone is None else value.replace(tzinfo=zone)


def _zone(fields: dict[str, Any]) -> ZoneInfo | None:
    try:
        return ZoneInfo(fields["zone"]) if "zone" in fields else None
    except (KeyError, ValueError, OSError):
        # A machine without that zone still has the offset.
        return None


def _plain_duration(fields: dict[str, Any]) -> float:
    microseconds: int = fields["v"]
    return microseconds / 1_000_000 if microseconds % 1_000_000 else microseconds // 1_000_000


LEAVES = (
    # A datetime is a date too, so it comes first.
    Tag("datetime", datetime, _write_moment, _read_datetime),
    Tag("date", date, lambda value: {"v": value.isoformat()}, lambda fields: date.fromisoformat(fields["v"])),
    Tag("time", time, _write_moment, _read_time),
    Tag(
        "timedelta",
        timedelta,
        lambda value: {"v": value // _MICROSECOND},
        lambda fields: timedelta(microseconds=fields["v"]),
        _plain_duration,
    ),
    Tag("decimal", Decimal, lambda value: {"v": Decimal.__str__(value)}, lambda fields: Decimal(fields["v"])),
    Tag("uuid", UUID, lambda value: {"v": str(value)}, lambda fields: UUID(fields["v"])),
    Tag(
        "bytes",
        bytes,
        lambda value: {"v": base64.b64encode(value).decode()},
        lambda fields: base64.b64decode(fields["v"]),
    ),
    Tag("complex", complex, _write_complex, lambda fields: complex(*fields["v"])),
    Tag("int", int, write_int, lambda fields: int(fields["v"], 16)),
)
BY_NAME = {tag.name: tag for tag in LEAVES}
