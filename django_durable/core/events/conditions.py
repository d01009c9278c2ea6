"""Conditions on events, written in CEL, and the rule by which an arriving event is recognised.

A condition reads ``event`` (what started the run) and ``async`` (the event that arrives). The CEL library parses,
checks and evaluates it; this module adds limits, plain error texts and the equalities that an index can use. The
library is imported on first use, because its import takes 26 ms.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from ...exceptions import EvaluationFailed, InvalidExpression, InvalidPath
from .cel_ast import ARRIVING, TRIGGER, Equality, equalities, nested_macros
from .match_keys import LONGEST_PATH, MISSING, SEPARATOR, UNMATCHABLE, key_of, lookup, parse_path, same

if TYPE_CHECKING:
    from cel_expr_python import cel  # type: ignore[import-untyped]

MAX_LENGTH: Final = 1_000
MAX_NESTED_MACROS: Final = 3
"""The library bounds the iterations, yet each macro inside another multiplies the size of ``[x, x, x]``."""

_UNREADABLE = re.compile("[\x00\ud800-\udfff]")
_LOCATED = re.compile(r"ERROR: <input>:(-?\d+):(-?\d+): (.*)")
_NOISE = re.compile(r"^[A-Z_]+: | expecting .*| \[[A-Z_]+\]$| \(in container ''\)")
_MAX_REASON = 200


@dataclass(frozen=True, slots=True)
class Condition:
    """A compiled condition; ``equalities`` are those that its top-level ``&&`` join."""

    source: str
    variables: tuple[str, ...]
    equalities: tuple[Equality, ...]
    _program: cel.Expression = field(repr=False, compare=False)

    def holds(self, **documents: Mapping[str, Any]) -> bool:
        """Tell whether the condition is true of *documents*: plain JSON, each named like its variable.

        Raises EvaluationFailed where it is neither true nor false: a key is missing, types do not fit, an integer
        has more than 64 bits, or the evaluation takes too many steps.

        Example::

            compile_condition("async.data.id == event.data.id").holds(event=trigger, **{"async": arriving})
        """
        try:
            outcome = self._program.eval(data={name: dict(document) for name, document in documents.items()})
        except (RuntimeError, TypeError, ValueError) as error:
            raise EvaluationFailed(self.source, _plain(str(error))) from error
        value = outcome.value()
        if isinstance(value, bool):
            return value
        kind = outcome.type().name()
        raise EvaluationFailed(self.source, _plain(value) if kind == "ERROR" else _not_bool(kind))


@lru_cache(maxsize=1024)
def compile_condition(source: str, variables: tuple[str, ...] = (TRIGGER, ARRIVING)) -> Condition:
    """Compile a condition over *variables*, or return the one that was compiled before.

    Raises InvalidExpression, with the position where there is one.

    Example::

        compile_condition("event.data.total > 100", ("event",)).holds(event={"data": {"total": 120}})
    """
    _refuse_unreadable(source)
    program = _program(source, variables)
    serialized = program.serialize()
    if nested_macros(serialized) > MAX_NESTED_MACROS:
        reason = f"more than {MAX_NESTED_MACROS} macros (all, exists, map, filter) are nested or chained"
        raise InvalidExpression(source, reason)
    return Condition(source, variables, tuple(equalities(serialized)), program)


def _refuse_unreadable(source: object) -> None:
    if not isinstance(source, str):
        raise InvalidExpression(repr(source), f"an expression is CEL text, not {type(source).__name__}")
    if len(source) > MAX_LENGTH:
        reason = f"it has {len(source):,} characters, the limit is {MAX_LENGTH:,}. Check the rest in the handler"
        raise InvalidExpression(source[:60] + "…", reason)
    if found := _UNREADABLE.search(source):
        line = source.count("\n", 0, found.start()) + 1
        column = found.start() - source.rfind("\n", 0, found.start())
        raise InvalidExpression(source, f"the character {found[0]!r} is not allowed", line=line, column=column)


def _program(source: str, variables: tuple[str, ...]) -> cel.Expression:
    try:
        program = _environment(variables).compile(source)
    except (RuntimeError, TypeError, ValueError) as error:
        raise _invalid(source, variables, str(error)) from error
    if (kind := program.return_type().name()) not in ("BOOL", "DYN"):
        raise InvalidExpression(source, _not_bool(kind))
    return program


@lru_cache(maxsize=16)
def _environment(variables: tuple[str, ...]) -> cel.Env:
    from cel_expr_python import cel

    return cel.NewEnv(variables=dict.fromkeys(variables, cel.Type.DYN))


def _invalid(source: str, variables: tuple[str, ...], message: str) -> InvalidExpression:
    located = _LOCATED.search(message)
    if located is None:
        return InvalidExpression(source, _plain(message))
    line, column, reason = int(located[1]), int(located[2]), _plain(located[3])
    if reason.startswith("undeclared reference"):
        reason += f"; the variables are {', '.join(variables)}"
    if line < 1:  # the library's sign for no position
        return InvalidExpression(source, reason)
    return InvalidExpression(source, reason, line=line, column=column)


def _plain(message: str) -> str:
    """Keep the part of the library's *message* that an author needs."""
    # Cut before it is searched: it may quote a text of the event, as long as an event may be.
    start = message[: 2 * _MAX_REASON].partition("\n")[0]
    reason = re.sub(r"\w+ input '<EOF>'", "unexpected end", _NOISE.sub("", start))
    return reason if len(reason) <= _MAX_REASON else reason[:_MAX_REASON] + "…"


def _not_bool(kind: str) -> str:
    return f"it gives {kind.lower()}, not true or false"


@dataclass(frozen=True, slots=True)
class MatchRule:
    """The rule by which a wait recognises its event; see :func:`match_rule`.

    ``index_path`` is the canonical text of the paths that an index can use: sorted, joined by " & ", and empty where
    the rule has none, or so many that no index holds their text.
    """

    match: str | None
    condition: Condition | None
    index_path: str

    def key_for(self, trigger: Mapping[str, Any], secret: bytes = b"") -> bytes:
        """Return the 16-byte key of a wait by this rule in a run that *trigger* started.

        Every arriving event that matches has this key. Where none can match, the key is UNMATCHABLE, which no event
        has: the trigger lacks a value that the condition compares, or has null at the path of ``match``. Raises
        InvalidPath where the trigger lacks the path of ``match`` altogether.
        """
        wanted = {equality.path: _wanted(equality, trigger) for equality in _equalities(self.condition)}
        if self.match is not None:
            wanted[self.match] = _matched(self.match, trigger)
        return key_of(self.index_path, [wanted[path] for path in sorted(wanted)], secret) or UNMATCHABLE

    def matches(self, trigger: Mapping[str, Any], arriving: Mapping[str, Any]) -> bool:
        """Tell whether *arriving* resolves a wait by this rule in a run that *trigger* started.

        Raises EvaluationFailed where the condition cannot be evaluated, which counts as a mismatch.
        """
        if self.match is not None and not _match_agrees(self.match, trigger, arriving):
            return False
        return self.condition is None or self.condition.holds(**{TRIGGER: trigger, ARRIVING: arriving})


@lru_cache(maxsize=1024)
def match_rule(match: str | None, condition: str | None) -> MatchRule:
    """Combine ``match=`` and ``if_=``; with neither, every event matches.

    ``match`` is a path that must lead to the same value, not null, in both events. ``condition`` is CEL over ``event``
    and ``async``. Raises InvalidPath and InvalidExpression.

    Example::

        match_rule("data.user.id", "async.data.amount > 100")
    """
    compiled = None if condition is None else compile_condition(condition)
    paths = {equality.path for equality in _equalities(compiled)}
    if match is not None:
        parse_path(match)
        paths.add(match)
    index_path = SEPARATOR.join(sorted(paths))
    return MatchRule(match, compiled, index_path if len(index_path) <= LONGEST_PATH else "")


def _equalities(condition: Condition | None) -> tuple[Equality, ...]:
    return () if condition is None else condition.equalities


def _wanted(equality: Equality, trigger: Mapping[str, Any]) -> object:
    return equality.literal if equality.source is None else lookup(trigger, equality.source.split("."))


def _matched(path: str, trigger: Mapping[str, Any]) -> object:
    value = lookup(trigger, path.split("."))
    if value is MISSING:
        raise InvalidPath(
            f"The event {trigger.get('name')!r} that started the run has no {path!r}, so match={path!r} can find "
            "nothing. Match by a path that both events have, or compare two paths with if_="
        )
    return MISSING if value is None else value


def _match_agrees(path: str, trigger: Mapping[str, Any], arriving: Mapping[str, Any]) -> bool:
    segments = path.split(".")
    expected, actual = lookup(trigger, segments), lookup(arriving, segments)
    return expected is not MISSING and expected is not None and same(expected, actual)
