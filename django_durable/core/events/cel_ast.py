"""The tree of a compiled CEL expression: the equalities in it that an index can use, and how deep its macros are.

The CEL library gives the tree as a protobuf message, ``cel.expr.CheckedExpr``. The few fields that matter here are
read by their numbers (cel/expr/checked.proto, cel/expr/syntax.proto), which takes no protobuf library.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from .match_keys import MISSING, ROOTS, SEGMENT

TRIGGER: Final = "event"
ARRIVING: Final = "async"

Literal: TypeAlias = bool | float | str | None
_Fields: TypeAlias = dict[int, list[Any]]

_CONSTANT, _IDENTIFIER, _SELECT, _CALL, _LIST, _STRUCT, _COMPREHENSION = range(3, 10)
_OPERANDS = {_SELECT: (1,), _CALL: (1, 3), _LIST: (1,), _COMPREHENSION: (2, 4, 5, 6, 7)}
_NULL, _BOOL, _INT, _UINT, _DOUBLE, _TEXT = range(1, 7)


@dataclass(frozen=True, slots=True)
class Equality:
    """An equality that must hold for the whole expression to be true.

    ``path`` is dotted and leads into the arriving event. Its value equals the one at ``source``, a dotted path into
    the trigger, or, where ``source`` is None, ``literal``.
    """

    path: str
    source: str | None
    literal: Literal = None


def equalities(serialized: bytes) -> Iterator[Equality]:
    """Yield the equalities at the top level, joined by ``&&``, of a path in ``async`` with a value known before."""
    pending = [_root(serialized)]
    while pending:
        function, operands = _call(pending.pop())
        if function == "_&&_":
            pending.extend(reversed(operands))
        elif function == "_==_":
            left, right = operands
            if equality := _equality(left, right) or _equality(right, left):
                yield equality


def nested_macros(serialized: bytes) -> int:
    """Count how many macros (all, exists, map, filter) are nested or chained at the deepest place."""
    return _loops(_root(serialized))


def _equality(target: _Fields, other: _Fields) -> Equality | None:
    path = _path(target, ARRIVING)
    if path is None or path.partition(".")[0] not in ROOTS:
        return None
    source = _path(other, TRIGGER)
    if source is not None:
        return Equality(path, source)
    literal = _literal(other)
    return None if literal is MISSING else Equality(path, None, literal)


def _path(node: _Fields, variable: str) -> str | None:
    """Return the dotted path of a chain of selects and constant indexes on *variable*; None for all else."""
    segments: list[str] = []
    while _IDENTIFIER not in node:
        step = _selected(node) or _indexed(node)
        if step is None or not SEGMENT.fullmatch(step[1]):
            return None
        node = step[0]
        segments.insert(0, step[1])
    name = _fields(node[_IDENTIFIER][0])[1][0].decode()
    return ".".join(segments) if segments and name == variable else None


def _selected(node: _Fields) -> tuple[_Fields, str] | None:
    if _SELECT not in node:
        return None
    select = _fields(node[_SELECT][0])
    is_presence_test = 3 in select  # has(a.b)
    return None if is_presence_test else (_fields(select[1][0]), select[2][0].decode())


def _indexed(node: _Fields) -> tuple[_Fields, str] | None:
    function, operands = _call(node)
    if function != "_[_]":
        return None
    index = _literal(operands[1])
    return (operands[0], str(index)) if type(index) in (str, int) else None


def _call(node: _Fields) -> tuple[str, list[_Fields]]:
    if _CALL not in node:
        return "", []
    call = _fields(node[_CALL][0])
    return call[2][0].decode(), [_fields(operand) for operand in call[3]]


def _literal(node: _Fields) -> Any:
    """Return the value of a constant that JSON knows; MISSING for all else."""
    if _CONSTANT not in node:
        return MISSING
    [(kind, [value])] = _fields(node[_CONSTANT][0]).items()
    if kind == _NULL:
        return None
    if kind == _BOOL:
        return bool(value)
    if kind == _INT:
        return value - (value >> 63 << 64)
    if kind == _UINT:
        return value
    if kind == _DOUBLE:
        return struct.unpack("<d", value)[0]
    return value.decode() if kind == _TEXT else MISSING


def _loops(node: _Fields) -> int:
    inner = max(map(_loops, _operands(node)), default=0)
    return inner + (_COMPREHENSION in node)


def _operands(node: _Fields) -> Iterator[_Fields]:
    for kind, numbers in _OPERANDS.items():
        yield from _parts(node, kind, numbers)
    for entry in _parts(node, _STRUCT, (2,)):
        yield from map(_fields, (*entry.get(3, ()), *entry.get(4, ())))


def _parts(node: _Fields, kind: int, numbers: tuple[int, ...]) -> Iterator[_Fields]:
    for body in map(_fields, node.get(kind, ())):
        for number in numbers:
            yield from map(_fields, body.get(number, ()))


def _root(serialized: bytes) -> _Fields:
    checked = _fields(_fields(serialized)[2][0])  # inside a google.protobuf.Any
    return _fields(checked[4][0])


def _fields(message: bytes) -> _Fields:
    fields: _Fields = defaultdict(list)
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        value, position = _value(message, position, wire_type=tag & 7)
        fields[tag >> 3].append(value)
    return fields


def _value(message: bytes, position: int, *, wire_type: int) -> tuple[Any, int]:
    if wire_type == 0:
        return _varint(message, position)
    if wire_type == 2:
        size, position = _varint(message, position)
    else:
        size = 8 if wire_type == 1 else 4
    return message[position : position + size], position + size


def _varint(message: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while message[position] & 0x80:
        value |= (message[position] & 0x7F) << shift
        position += 1
        shift += 7
    return value | message[position] << shift, position + 1
