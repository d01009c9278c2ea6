"""The examples of the pages about steps run to their end, with stand-ins for what a project would have."""

from __future__ import annotations

import builtins
import datetime
import functools
import types
from typing import Any
from unittest.mock import MagicMock

import pytest

import django_durable as durable
from django_durable.core.functions import registry
from django_durable.models import Run
from tests.engine.conftest import Engine
from tests.test_docs import BLOCK, DOCS

PAGES = [
    *("steps/run", "steps/parallel", "steps/race", "steps/map", "steps/wait-for-event", "steps/wait-for-signal"),
    *("steps/invoke", "steps/options", "steps/values", "steps/continue-as-new", "steps/sleep", "howto/approval-links"),
    "concepts/async-handlers",
]
EXAMPLES = [
    pytest.param(text, id=f"{page}-{number}")
    for page in PAGES
    for number, text in enumerate(BLOCK.findall((DOCS / f"{page}.md").read_text()), 1)
]
DATA = {"order_id": 7, "claim_id": 3, "total": 5, "album_id": 1, "user": {"id": 7}, "email": "ada@example.org"}
PROJECT: dict[str, Any] = {
    "__name__": "shop.durable",
    "durable": durable,
    "datetime": datetime,
    "timedelta": datetime.timedelta,
    "partial": functools.partial,
    "order_id": 7,
    "claim_id": 3,
    "album_id": 1,
    "email": "ada@example.org",
    "token": "t0ken",
    "image_ids": [1, 2],
    "order_ids": [7, 8],
    "missing": ["a"],
    "lines": [types.SimpleNamespace(price=2), types.SimpleNamespace(price=3)],
    "list_images": lambda album: [album, 2],
    "fetch_page": lambda cursor: {"products": [1, 2], "next": None if cursor else 2},
    "campaign": types.SimpleNamespace(pk=1),
    "bank": types.SimpleNamespace(charge=lambda amount, idempotency_key: idempotency_key),
    "Order": MagicMock(),
    "Invoice": MagicMock(),
    "send_receipt": "project/send-receipt",
    "render_film": "project/render",
}


class Project(dict[str, Any]):
    """The names of a module; what it lacks is a function that takes anything."""

    def __missing__(self, name: str) -> Any:
        """Return a builtin, or a function that returns its own name."""
        return getattr(builtins, name, lambda *args, **kwargs: name)


@pytest.mark.parametrize("text", EXAMPLES)
def test_an_example_runs_to_its_end(engine: Engine, text: str) -> None:
    names = Project(PROJECT)
    for id in ("project/send-receipt", "project/render"):
        durable.function(id)(lambda event, step: "R-7")
    if "@durable.function" in text or "step." not in text:
        registry._functions.clear()
        exec(text, names)
        for function in registry.functions():
            function.start(DATA)
    else:

        @engine.function(retries=0)
        def handler(event: durable.Event, step: durable.Step) -> None:
            exec(text, Project({**names, "event": event, "step": step}))

        engine.start(DATA)
    for _ in range(20 if Run.objects.exists() else 0):
        engine.advance("1d")

    started = "durable.function" in text or "step." in text
    assert {run.status: run.error for run in Run.objects.all()} == ({"completed": None} if started else {})
