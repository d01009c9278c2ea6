# ruff: noqa: SIM105 - the clauses are what is tested
from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path

import pytest

from django_durable.core.replay.swallowed import swallowing_place


class Lost(BaseException):
    """What the functions below swallow, at the line marked as such."""


def step(lost: Lost) -> None:
    raise lost


def bare_except(lost: Lost) -> None:
    try:
        step(lost)
    except ValueError:
        pass
    except:  # noqa: E722  # <- swallowed
        pass


def except_base_exception(lost: Lost) -> None:
    try:
        step(lost)
    except BaseException:  # <- swallowed
        pass


def except_a_tuple(lost: Lost) -> None:
    try:
        step(lost)
    except (ValueError, BaseException):  # <- swallowed
        pass


def except_replaces_it(lost: Lost) -> None:
    try:
        step(lost)
    except BaseException as error:  # <- swallowed
        raise ValueError from error


def return_in_finally(lost: Lost) -> None:
    try:
        step(lost)
    finally:
        return  # noqa: B012  # <- swallowed


def break_in_finally(lost: Lost) -> None:
    while True:
        try:
            step(lost)
        finally:
            break  # noqa: B012  # <- swallowed


def raise_in_finally(lost: Lost) -> None:
    try:
        step(lost)
    finally:
        raise ValueError  # <- swallowed


def finally_after_an_except_clause_for_others(lost: Lost) -> None:
    try:
        step(lost)
    except Exception:
        pass
    finally:
        return  # noqa: B012  # <- swallowed


def finally_after_the_step_of_an_except_clause(lost: Lost) -> None:
    try:
        raise ValueError
    except ValueError:
        step(lost)
    finally:
        return  # noqa: B012  # <- swallowed


def suppressed(lost: Lost) -> None:
    with suppress(BaseException):  # <- swallowed
        step(lost)


def outer_clause(lost: Lost) -> None:
    try:
        try:
            step(lost)
        except Exception:
            pass
    except BaseException:  # <- swallowed
        pass


def inner_clause(lost: Lost) -> None:
    try:
        try:
            step(lost)
        except BaseException:  # <- swallowed
            pass
    except BaseException:
        pass


def clause_beside(lost: Lost) -> None:
    try:
        pass
    except BaseException:
        pass
    try:
        step(lost)
    except BaseException:  # <- swallowed
        pass


def clause_around_one_that_raises_again(lost: Lost) -> None:
    try:
        try:
            step(lost)
        except BaseException:
            print("cleaned up")
            raise
    except BaseException:  # <- swallowed
        pass


def clause_around_a_harmless_with(lost: Lost) -> None:
    try:
        with nullcontext():
            step(lost)
    except BaseException:  # <- swallowed
        pass


def clause_around_a_harmless_finally(lost: Lost) -> None:
    try:
        try:
            step(lost)
        finally:
            print("cleaned up")
    except BaseException:  # <- swallowed
        pass


def several_lines(lost: Lost) -> None:
    try:
        print(
            "a call of several lines",
            step(lost),  # type: ignore[func-returns-value]
        )
    except BaseException:  # <- swallowed
        pass


def in_a_helper(lost: Lost) -> None:
    except_base_exception(lost)


def in_a_callback(lost: Lost) -> None:
    with ExitStack() as stack:
        stack.callback(suppressed, lost)


SWALLOWING = [
    bare_except,
    except_base_exception,
    except_a_tuple,
    except_replaces_it,
    return_in_finally,
    break_in_finally,
    raise_in_finally,
    finally_after_an_except_clause_for_others,
    finally_after_the_step_of_an_except_clause,
    suppressed,
    outer_clause,
    inner_clause,
    clause_beside,
    clause_around_one_that_raises_again,
    clause_around_a_harmless_with,
    clause_around_a_harmless_finally,
    several_lines,
]


def place_in(handler: Callable[[Lost], None]) -> str:
    lost = Lost()
    with suppress(ValueError):
        handler(lost)
    return swallowing_place(lost.__traceback__)


def marked_place(function: Callable[..., object]) -> str:
    lines, start = inspect.getsourcelines(function)
    return f"{__file__}:{start + next(index for index, line in enumerate(lines) if '# <- swallowed' in line)}"


@pytest.mark.parametrize("handler", SWALLOWING, ids=lambda handler: handler.__name__)
def test_the_clause_is_found(handler: Callable[[Lost], None]) -> None:
    assert place_in(handler) == marked_place(handler)


@contextmanager
def quietly() -> Iterator[None]:
    try:
        yield
    except BaseException:  # <- swallowed
        pass


def test_the_clause_is_found_in_a_helper() -> None:
    assert place_in(in_a_helper) == marked_place(except_base_exception)


def test_the_clause_is_found_in_a_callback() -> None:
    assert place_in(in_a_callback) == marked_place(suppressed)


def test_the_clause_is_found_in_a_context_manager() -> None:
    def handler(lost: Lost) -> None:
        with quietly():
            step(lost)

    assert place_in(handler) == marked_place(inspect.unwrap(quietly))


def test_without_source_the_line_of_the_step_is_named() -> None:
    names: dict[str, Callable[[Lost], None]] = {"step": step}
    exec("def handler(lost):\n    try:\n        step(lost)\n    except BaseException:\n        pass", names)

    assert place_in(names["handler"]) == "<string>:3"


def test_with_a_source_that_changed_since_the_line_of_the_step_is_named(tmp_path: Path) -> None:
    file = tmp_path / "handlers.py"
    file.write_text("this is no Python")
    source = "def handler(lost):\n    try:\n        step(lost)\n    except BaseException:\n        pass"
    names: dict[str, Callable[[Lost], None]] = {"step": step}
    exec(compile(source, file, "exec"), names)

    assert place_in(names["handler"]) == f"{file}:3"


def test_an_exception_that_was_never_raised_has_no_place() -> None:
    assert swallowing_place(None) == "an unknown line"
