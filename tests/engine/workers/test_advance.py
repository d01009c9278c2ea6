"""Which claimed runs a worker can take further at all."""

from __future__ import annotations

import django_durable as durable
from django_durable.core.functions import registry
from tests.engine.conftest import Engine


def test_a_run_whose_function_is_not_in_the_code_waits_for_a_worker_that_knows_it(engine: Engine) -> None:
    @engine.function()
    def fn(event: durable.Event, step: durable.Step) -> str:
        step.sleep("nap", "1h")
        return "done"

    engine.start()
    registry._functions.clear()
    run = engine.advance("1h")
    assert (run.status, run.waiting_kind) == ("waiting", "code")
    assert "project/fn" in run.waiting_for

    registry.add(fn)
    assert engine.advance("1m").output == '"done"'
