"""Values of which each process has one of its own."""

from __future__ import annotations

import os
import threading
import weakref

import pytest

from django_durable.core.processes import per_process


def test_a_value_is_made_once_when_it_is_first_asked_for() -> None:
    made: list[object] = []

    @per_process
    def value() -> object:
        made.append(object())
        return made[-1]

    assert made == []
    assert value() is value()
    assert len(made) == 1


def test_a_value_that_is_empty_is_made_once_too() -> None:
    value = per_process(list[int])

    assert value() == []
    assert value() is value()


def test_a_fork_makes_its_own_and_leaves_its_parents_alone() -> None:
    value = per_process(lambda: [os.getpid()])
    parents = value()

    if not (child := os.fork()):
        os._exit(0 if value() == [os.getpid()] and parents == [os.getppid()] else 1)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert value() is parents


class Connection:
    """Is known to the server until nobody refers to it."""


def test_a_fork_does_not_let_go_of_its_parents_value() -> None:
    value = per_process(Connection)
    parents = weakref.ref(value())

    if not (child := os.fork()):
        own = value()
        os._exit(0 if parents() not in (None, own) else 1)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_threads_that_ask_at_once_are_given_one_value() -> None:
    meeting, given = threading.Barrier(4), []
    made: list[object] = []

    @per_process
    def value() -> object:
        made.append(object())
        return made[-1]

    def ask() -> None:
        meeting.wait(10)
        given.append(value())

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert (len(given), len(made)) == (4, 1)
    assert len(set(map(id, given))) == 1


def test_an_error_is_raised_again_until_the_value_can_be_made() -> None:
    errors = [ValueError("no key"), ValueError("no key")]

    @per_process
    def value() -> str:
        if errors:
            raise errors.pop()
        return "made"

    for _ in range(2):
        with pytest.raises(ValueError, match="no key"):
            value()
    assert value() == "made"
