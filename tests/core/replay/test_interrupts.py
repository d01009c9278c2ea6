"""Control flow that project code does not catch by accident."""

from __future__ import annotations

import pytest

from django_durable.core.replay.interrupts import Abort, EngineFailed, Interrupt, LeaseLost, Suspend
from django_durable.exceptions import DurableError

INTERRUPTS = [
    Suspend(lambda: None),
    Abort(DurableError("never")),
    LeaseLost(),
    EngineFailed(OSError("the disk is full")),
]


def handler(interrupt: Interrupt) -> None:
    """Call a step, as handlers that are careful do."""
    try:
        raise interrupt
    except Exception:
        pytest.fail("the handler swallowed it")


@pytest.mark.parametrize("interrupt", INTERRUPTS, ids=lambda interrupt: type(interrupt).__name__)
def test_except_exception_in_a_handler_lets_control_flow_pass(interrupt: Interrupt) -> None:
    with pytest.raises(Interrupt) as caught:
        handler(interrupt)

    assert caught.value is interrupt


def test_an_interrupt_that_tells_of_an_error_shows_its_text() -> None:
    assert str(Abort(DurableError("never"))) == "never"
    assert str(EngineFailed(OSError("the disk is full"))) == "the disk is full"
