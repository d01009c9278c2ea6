"""The function of the small project."""

from __future__ import annotations

import time

import django_durable as durable


@durable.function(trigger="site/visited")
def greet(event: durable.Event, step: durable.Step) -> str:
    """Greet whoever visited, after a moment."""
    greeting: str = step.run("greet", "Hello {}".format, event.data["name"])
    step.sleep("pause", "100ms")
    return greeting


@durable.function(trigger="site/asked")
def ponder(event: durable.Event, step: durable.Step) -> None:
    """Work on one step for longer than anybody waits."""
    step.run("ponder", time.sleep, 60)
