"""Calls that a handler must not make outside a step, and the code to write in place of each."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

Origin = Callable[[ast.AST], str | None]

_ATOMIC = 'Do it in a step: step.atomic("an-id", function) writes exactly once.'
_RUN = 'Do it in a step: step.run("an-id", function, …).'
_SEND = 'Use step.send_event("an-id", Event(…)): it sends exactly once.'
_SLEEP = 'Use step.sleep("an-id", duration): the run waits without a worker.'
_NOW = 'Use step.now(), or take the time in a step: step.run("an-id", timezone.now).'
_UUID = 'Use step.uuid(), or make it in a step: step.run("an-id", uuid.uuid4).'
_RANDOM = 'Use step.random(), or draw in a step: step.run("an-id", random.random).'


@dataclass(frozen=True, slots=True)
class Remedies:
    """Calls whose full dotted name matches *names*, and the code to write in their place."""

    names: str
    remedy: str

    def matches(self, name: str) -> bool:
        """Tell whether the call of that dotted name is one of these."""
        return re.fullmatch(self.names, name) is not None


SIDE_EFFECTS = (
    Remedies(r"django_durable\.a?send_events?", _SEND),
    Remedies(r"django_durable\.a?send_signal", _RUN),
    Remedies(r"django\.core\.mail\.(send_mail|send_mass_mail|mail_admins|mail_managers)", _RUN),
    Remedies(r"(requests|httpx)(\.api|\._api)?\.(get|post|put|patch|delete|head|options|request|stream)", _RUN),
    Remedies(r"urllib\.request\.(urlopen|urlretrieve)", _RUN),
    Remedies(r"subprocess\.(run|Popen|call|check_call|check_output)", _RUN),
    Remedies(r"(os|posix|nt)\.(system|remove|unlink|rename|replace|mkdir|makedirs|rmdir)", _RUN),
    Remedies(r"shutil\.(copy\w*|move|rmtree)", _RUN),
)
CLOCKS = (
    Remedies(r"datetime\.(datetime\.(now|utcnow|today)|date\.today)", _NOW),
    Remedies(r"django\.utils\.timezone\.(now|localtime|localdate)", _NOW),
    Remedies(r"time\.(time|time_ns)", _NOW),
)
RANDOMNESS = (
    Remedies(r"uuid\.uuid[14678]", _UUID),
    Remedies(r"random\.(Random\.)?(?!Random$|seed$|getstate$|setstate$)\w+", _RANDOM),
    Remedies(r"secrets\.\w+|(os|posix|nt)\.urandom", _RANDOM),
    Remedies(r"django\.utils\.crypto\.get_random_string", _RANDOM),
)
SLEEPS = (Remedies(r"time\.sleep|asyncio\.(tasks\.)?sleep", _SLEEP),)

_READ_THE_CLOCK_WITHOUT_ARGUMENTS = ("localtime", "localdate")
_QUERYSET = re.compile(r"objects|_default_manager|_base_manager|filter|exclude|all|using|\w+_set")
_WRITES = re.compile(r"a?(save|delete|bulk_create|bulk_update|get_or_create|update_or_create)")
_QUERYSET_WRITES = re.compile(r"a?(create|update)")
_QUEUES = re.compile(r"delay|apply_async")
_WRITES_FILES = re.compile(r"write_text|write_bytes")


def side_effect(call: ast.Call, origin: Origin) -> str | None:
    """Return the remedy of a call that likely changes the world; None for any other."""
    known = _remedy(SIDE_EFFECTS, call, origin)
    if known is not None:
        return known
    if _opens_for_writing(call, origin):
        return _RUN
    return _side_effect_of_method(call.func) if isinstance(call.func, ast.Attribute) else None


def _side_effect_of_method(method: ast.Attribute) -> str | None:
    if _WRITES.fullmatch(method.attr):
        return _ATOMIC
    if _QUERYSET_WRITES.fullmatch(method.attr) and any(map(_QUERYSET.fullmatch, _attributes(method.value))):
        return _ATOMIC
    return _RUN if _QUEUES.fullmatch(method.attr) or _WRITES_FILES.fullmatch(method.attr) else None


def _attributes(node: ast.AST) -> Iterator[str]:
    """Yield the attributes that an expression goes through: ``Order.objects.filter(…)`` has filter and objects."""
    while isinstance(node, (ast.Attribute, ast.Call, ast.Subscript)):
        if isinstance(node, ast.Attribute):
            yield node.attr
        node = node.func if isinstance(node, ast.Call) else node.value


def _opens_for_writing(call: ast.Call, origin: Origin) -> bool:
    if origin(call.func) not in {"_io.open", "io.open", "builtins.open"}:
        return False
    modes = [*call.args[1:2], *(each.value for each in call.keywords if each.arg == "mode")]
    return any(isinstance(mode, ast.Constant) and set(str(mode.value)) & set("wax+") for mode in modes)


def clock(call: ast.Call, origin: Origin) -> str | None:
    """Return the remedy of a call that reads the clock."""
    name = origin(call.func) or ""
    # With a value, these two convert it.
    if name.endswith(_READ_THE_CLOCK_WITHOUT_ARGUMENTS) and (call.args or call.keywords):
        return None
    return _remedy(CLOCKS, call, origin)


def randomness(call: ast.Call, origin: Origin) -> str | None:
    """Return the remedy of a call that gives another value each time."""
    return _remedy(RANDOMNESS, call, origin)


def sleep(call: ast.Call, origin: Origin) -> str | None:
    """Return the remedy of a call that holds up a worker."""
    return _remedy(SLEEPS, call, origin)


def _remedy(known: tuple[Remedies, ...], call: ast.Call, origin: Origin) -> str | None:
    name = origin(call.func)
    return next((each.remedy for each in known if name is not None and each.matches(name)), None)
