"""Commands that run until a signal tells them to stop."""

from __future__ import annotations

import signal

import pytest

from django_durable.management.stopping import stop_on_signals

NUMBERS = (signal.SIGINT, signal.SIGTERM)


@pytest.mark.parametrize("number", NUMBERS)
def test_the_first_signal_asks_to_stop(number: signal.Signals) -> None:
    with stop_on_signals() as stop:
        assert not stop.is_set()
        signal.raise_signal(number)
        assert stop.is_set()


def test_the_second_signal_does_what_it_did_before() -> None:
    with stop_on_signals() as stop:
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)

    assert stop.is_set()


def test_the_handlers_from_before_come_back() -> None:
    before = [signal.getsignal(number) for number in NUMBERS]

    with stop_on_signals():
        assert [signal.getsignal(number) for number in NUMBERS] != before

    assert [signal.getsignal(number) for number in NUMBERS] == before
