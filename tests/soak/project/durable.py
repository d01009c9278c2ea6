"""The functions of the soak: they play the program that their event brings."""

from __future__ import annotations

from collections import Counter
from typing import Any

import django_durable as durable
from django_durable import AsyncStep, Event, Step
from tests.scenarios.programs import play_async, play_plain
from tests.soak.programs import read

from .bodies import SoakWorld

# A database that restarts costs the attempts of step.atomic that are under way; more than that many cannot be.
ATTEMPTS: dict[str, Any] = {"retries": 5, "backoff": "50ms"}


def world(event: Event, step: Any) -> SoakWorld:
    """Return the world of one pass."""
    return SoakWorld(Counter(), run_id=step.run_id, program=event.data.get("program", ""))


@durable.function("plain", trigger="soak/plain", **ATTEMPTS)
def plain(event: Event, step: Step) -> list[Any]:
    """Play the program as a plain handler."""
    return play_plain(world(event, step), step, read(event.data["lines"]))


@durable.function("async", trigger="soak/async", **ATTEMPTS)
async def asynchronous(event: Event, step: AsyncStep) -> list[Any]:
    """Play the program as an async handler."""
    return await play_async(world(event, step), step, read(event.data["lines"]))  # type: ignore[arg-type]


@durable.function("child", **ATTEMPTS)
def child(event: Event, step: Step) -> str:
    """Do what programs invoke."""
    return world(event, step).child(event, step)


@durable.function("sent", trigger="soak/sent", **ATTEMPTS)
def sent(event: Event, step: Step) -> str:
    """Note that an event came that a program has sent."""
    return step.atomic("note", world(event, step).atomic_body, "sent", 0)
