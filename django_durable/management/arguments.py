"""The arguments of the command line; argparse shows their errors and ends with exit code 2."""

from __future__ import annotations

import json
from argparse import ArgumentTypeError
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.core.management.commands.runserver import naiveip_re

from ..core.events.events import check_sendable
from ..exceptions import InvalidEvent

MOST_RUNS = 1_000


def run_id(text: str) -> UUID:
    """Return the id of a run, written in full."""
    try:
        return UUID(text)
    except ValueError:
        raise ArgumentTypeError(
            f"{text!r} is not the id of a run: give the full UUID that 'durable runs' prints"
        ) from None


def event_name(text: str) -> str:
    """Return a name that an event may have."""
    try:
        return check_sendable(text)
    except InvalidEvent as error:
        raise ArgumentTypeError(str(error)) from error


def json_value(text: str) -> Any:
    """Return the value that JSON text writes."""
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise ArgumentTypeError(
            f"this is not JSON: {error.msg} at line {error.lineno}, column {error.colno} of {text[:200]!r}"
        ) from error
    except (ValueError, RecursionError) as error:
        # Too many digits in a number, or too many brackets in one another.
        raise ArgumentTypeError(f"this JSON cannot be read ({type(error).__name__}): {text[:200]!r}") from error


def json_object(text: str) -> dict[str, Any]:
    """Return a JSON object."""
    value = json_value(text)
    if not isinstance(value, dict):
        raise ArgumentTypeError(f'an event\'s data is an object such as {{"order_id": 7}}, not {text[:200]!r}')
    return value


def limit(text: str) -> int:
    """Return how many runs to print."""
    if not text.isdecimal() or not 1 <= int(text) <= MOST_RUNS:
        raise ArgumentTypeError(f"{text!r} is not a number from 1 to {MOST_RUNS}")
    return int(text)


@dataclass(frozen=True, slots=True)
class Address:
    """The address that the site listens on; port 0 is any free port."""

    host: str = "127.0.0.1"
    port: int = 8000
    ipv6: bool = False


def address(text: str) -> Address:
    """Return a port, or host and port: ``8000``, ``0.0.0.0:8000``, ``[::1]:8000``."""
    match = naiveip_re.match(text)
    if match is None or int(match["port"]) > 65535:
        raise ArgumentTypeError(f"{text!r} is not a port or an address:port pair, such as 8000 or 0.0.0.0:8000")
    host = match["addr"] or Address().host
    return Address(host.strip("[]"), int(match["port"]), ipv6=match["ipv6"] is not None)


def _refuse_constant(name: str) -> Any:
    raise ArgumentTypeError(f"{name} is not JSON; write null, or a text")
