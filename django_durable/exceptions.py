"""Every error of the package, in one tree.

    DurableError
    ├── ConfigurationError        a function, trigger or setting that cannot work
    ├── InvalidDuration           (also a ValueError) text that is not a duration or a moment
    ├── InvalidExpression         (also a ValueError) bad CEL, with its position
    ├── EvaluationFailed          good CEL that is neither true nor false of these events
    ├── InvalidPath               (also a ValueError) a match path that cannot be read
    ├── InvalidEvent              a reserved or malformed name, data that is not an object
    ├── OutsideTransaction        sending while a transaction of another database is open
    ├── RunNotFound               no run has that id
    ├── StepNotFound              the run has no such step, yet or at all
    ├── NotWaiting                the run has no wait such as somebody settles by hand
    ├── ReplayRefused             the function's runs are not replayed, or not without a confirmation
    ├── RunFailed                 the result of a run that failed
    ├── RunCancelled              the result of a run that was cancelled or skipped
    ├── ResultTimeout             (also a TimeoutError) the run has not ended in time
    ├── ResultInTransaction       waiting for a result inside a transaction, which may hold the run back
    ├── CodeChanged               the code of a run's function has changed, and its option says to fail
    ├── WorkerDied                the run's workers died again and again at the same place
    ├── StaleReference            a row that a recorded value refers to is gone
    ├── CodecError                a stored payload cannot be decoded here: a key is missing, say
    ├── EncodingError             a value that cannot be stored, with its path and a remedy
    │   └── PayloadTooLarge
    ├── InvalidStep               a step call that can never work: the run fails, never retried
    │   ├── NestedStep            a step inside the body of a step
    │   ├── StepInTransaction     a step inside a transaction that the handler opened
    │   ├── StepKindMismatch      the recorded step of that id is of another kind
    │   ├── SuspensionSwallowed   the handler caught or replaced the suspension
    │   ├── TooManySteps
    │   └── RunTooLarge
    ├── StepError                 a step failed for good; raised at its call
    │   └── InvokeError           the invoked function has no result
    │       └── InvokeTimeout
    ├── StepTimeout               an attempt of a step took too long
    ├── SignalTaken               a signal's name is waited for by another step already
    ├── NonRetriable              raise it to stop further attempts
    └── RetryAfter                raise it to choose the time of the next attempt

The control flow of a pass does not concern a project's code: see :mod:`.core.replay.interrupts`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import datetime
    from collections.abc import Sequence


_MOST_NAMES = 20  #: steps that an error names


class DurableError(Exception):
    """Base of every error that the package raises."""


class ConfigurationError(DurableError):
    """A function, a trigger, an option or a setting cannot work as written."""


class InvalidDuration(DurableError, ValueError):
    """A text or value names no duration or moment."""


class InvalidPath(DurableError, ValueError):
    """A match path cannot be read."""


class InvalidExpression(DurableError, ValueError):
    """A CEL expression does not compile.

    ``line`` and ``column`` count from 1 and point into ``expression``; None where the compiler names no position.
    """

    def __init__(self, expression: str, reason: str, *, line: int | None = None, column: int | None = None) -> None:
        self.expression = expression
        self.reason = reason
        self.line = line
        self.column = column
        place = f" at line {line}, column {column}" if line is not None else ""
        super().__init__(f"The expression {expression!r} does not compile{place}: {reason}")


class EvaluationFailed(DurableError):
    """A CEL expression gives neither true nor false for the events at hand; ``reason`` says why."""

    def __init__(self, expression: str, reason: str) -> None:
        self.expression = expression
        self.reason = reason
        super().__init__(f"The expression {expression!r} cannot be evaluated: {reason}")


class InvalidEvent(DurableError):
    """An event has a reserved or malformed name, or data that is not a JSON object or does not fit its type."""


class OutsideTransaction(DurableError):
    """An event was sent while a transaction of another database is open, and could not share its fate."""

    def __init__(self, alias: str, other: str) -> None:
        self.alias = alias
        self.other = other
        super().__init__(
            f"A transaction is open on database {other!r}, but events live in {alias!r}: they would stay if it rolled "
            "back. Send after it has committed, or pass outside_transaction=True to accept that"
        )


class RunNotFound(DurableError):
    """No run has that id."""

    def __init__(self, run_id: object) -> None:
        self.run_id = run_id
        super().__init__(f"There is no run {run_id}")


class StepNotFound(DurableError):
    """The run has no such step, or has not reached it; ``known`` names those that it has."""

    def __init__(self, run_id: object, step: object, known: Sequence[str]) -> None:
        self.run_id = run_id
        self.step = step
        self.known = list(known)
        names = ", ".join(map(repr, self.known[:_MOST_NAMES])) + (", …" if len(self.known) > _MOST_NAMES else "")
        text = f"its steps are {names}" if names else "no step of it is recorded yet"
        super().__init__(f"Run {run_id} has no step {step!r}; {text}")


class NotWaiting(DurableError):
    """The run has no wait such as somebody settles by hand; ``waiting_for`` names the wait that it has."""

    def __init__(self, run_id: object, asked: str, waiting_for: str) -> None:
        self.run_id = run_id
        self.asked = asked
        self.waiting_for = waiting_for
        super().__init__(f"Run {run_id} does not wait for {asked}; it waits for {waiting_for or 'nothing'}")


class ReplayRefused(DurableError):
    """A run of this function cannot be replayed as asked for; ``reason`` says why."""

    def __init__(self, function_id: str, reason: str) -> None:
        self.function_id = function_id
        self.reason = reason
        super().__init__(f"A run of {function_id} is not replayed: {reason}")


class RunFailed(DurableError):
    """The run failed, so that it has no result.

    ``type`` is the dotted class of the exception, ``message`` its text, ``traceback`` its traceback as text.
    """

    def __init__(self, run_id: str, *, type: str, message: str, traceback: str = "") -> None:
        self.run_id = run_id
        self.type = type
        self.message = message
        self.traceback = traceback
        super().__init__(f"Run {run_id} failed: {type}: {message}")


class RunCancelled(DurableError):
    """The run was cancelled or skipped (``status``), so that it has no result; ``reason`` says why."""

    def __init__(self, run_id: str, status: str, reason: str) -> None:
        self.run_id = run_id
        self.status = status
        self.reason = reason
        super().__init__(f"Run {run_id} was {status}: {reason}")


class ResultTimeout(DurableError, TimeoutError):
    """The run has not ended in time; it goes on."""

    def __init__(self, run_id: str, status: str, seconds: float) -> None:
        self.run_id = run_id
        self.status = status
        super().__init__(f"Run {run_id} has not ended within {seconds:g} s: it is {status}, and goes on")


class ResultInTransaction(DurableError):
    """A result was waited for inside a transaction, where a run that it started cannot begin."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        super().__init__(
            f"Run {run_id} has not ended, and a transaction is open: what was started in it begins only after its "
            "commit. Wait for the result after the transaction"
        )


class StaleReference(DurableError):
    """The row that a recorded model instance refers to is gone; raised at the step's call.

    ``model`` is its label (``app.model``), ``pk`` its primary key, ``database`` the alias.
    """

    def __init__(self, model: str, pk: object, database: str) -> None:
        self.model = model
        self.pk = pk
        self.database = database
        super().__init__(
            f"{model} {pk!r}, which a recorded value refers to, is not in the database {database!r} any more. "
            "Catch StaleReference where it may be deleted meanwhile, or record its values in place of the instance"
        )


class CodecError(DurableError):
    """A stored payload cannot be decoded here; ``reason`` says why. A process with the right settings can decode it."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"A stored payload cannot be decoded: {reason}")


class EncodingError(DurableError):
    """A value cannot be stored.

    ``path`` says where in the value (``result["lines"][3].price``), ``remedy`` what to do instead.
    """

    def __init__(self, path: str, problem: str, remedy: str) -> None:
        self.path = path
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"{path}: {problem}. {remedy}")


class PayloadTooLarge(EncodingError):
    """A value is larger than the limit of its kind; sizes are bytes of JSON."""

    def __init__(self, path: str, size: int, limit: int) -> None:
        self.size = size
        self.limit = limit
        super().__init__(
            path,
            f"{size:,} bytes of JSON exceed the limit of {limit:,}",
            "Store it elsewhere (a file, a row of your own) and pass its id",
        )


class InvalidStep(DurableError):
    """A step call can never work: the run fails and is not retried.

    ``step_id`` names the step, ``where`` the file and line of its call.
    """

    def __init__(self, step_id: str, where: str, reason: str) -> None:
        self.step_id = step_id
        self.where = where
        self.reason = reason
        super().__init__(f"Step {step_id!r} ({where}): {reason}")


class NestedStep(InvalidStep):
    """A step was called inside the body of another step."""

    def __init__(self, step_id: str, where: str, outer: str) -> None:
        self.outer = outer
        super().__init__(
            step_id,
            where,
            f"called inside the body of step {outer!r}. A step is one unit of work: "
            "return from the outer step first, then call the inner one from the handler",
        )


class StepInTransaction(InvalidStep):
    """A step was called inside a transaction that the handler opened."""

    def __init__(self, step_id: str, where: str) -> None:
        super().__init__(
            step_id,
            where,
            "called inside a transaction that the handler opened, so its record could be rolled back. "
            "Leave the transaction first, or do the writes in step.atomic()",
        )


class StepKindMismatch(InvalidStep):
    """The recorded step of that id is of another kind than the call."""

    def __init__(self, step_id: str, where: str, recorded: str, called: str) -> None:
        self.recorded = recorded
        self.called = called
        super().__init__(
            step_id,
            where,
            f"recorded as step.{recorded} and now called as step.{called}. Give the new step an id of its own",
        )


class SuspensionSwallowed(InvalidStep):
    """The handler caught the suspension of a step, or left by raising or returning in its place.

    ``handler`` is the file and line of the clause that swallowed it.
    """

    def __init__(self, step_id: str, where: str, handler: str) -> None:
        self.handler = handler
        super().__init__(
            step_id,
            where,
            f"its suspension was swallowed at {handler}. Catch Exception instead of BaseException or everything, "
            "and do not return or raise in a finally block around a step",
        )


class TooManySteps(InvalidStep):
    """The run asked for more steps than the limit; the body of this one did not run."""

    def __init__(self, step_id: str, where: str, limit: int) -> None:
        self.limit = limit
        super().__init__(
            step_id,
            where,
            f'the run has {limit:,} steps already, the limit (DURABLE["MAX_STEPS"]). Split the work over several runs',
        )


class RunTooLarge(InvalidStep):
    """The run has recorded more bytes than the limit; the body of this step did not run."""

    def __init__(self, step_id: str, where: str, size: int, limit: int) -> None:
        self.size = size
        self.limit = limit
        super().__init__(
            step_id,
            where,
            f"the run has recorded {size:,} bytes of values and errors, more than the limit of {limit:,} "
            '(DURABLE["MAX_RUN"]). Store large values elsewhere and return their ids, or split the work over several '
            "runs",
        )


class StepError(DurableError):
    """A step failed for good. Raised at the step's call, the same in every pass.

    ``type`` is the dotted class of the original exception, ``message`` its text, ``traceback`` its traceback as
    text, ``cause`` the error it came from (or None), ``attempts`` how many attempts were made.
    """

    def __init__(
        self,
        step_id: str,
        *,
        type: str,
        message: str,
        traceback: str = "",
        cause: StepError | None = None,
        attempts: int = 1,
        bases: tuple[str, ...] = (),
    ) -> None:
        self.step_id = step_id
        self.type = type
        self.message = message
        self.traceback = traceback
        self.cause = cause
        self.attempts = attempts
        self.bases = bases
        super().__init__(f"Step {step_id!r} failed after {attempts} attempt(s): {type}: {message}")

    def is_a(self, cls: type[BaseException]) -> bool:
        """Tell whether the original exception was an instance of *cls*."""
        return f"{cls.__module__}.{cls.__qualname__}" in (self.type, *self.bases)


def is_final(error: BaseException) -> bool:
    """Tell whether the error is that of a step, or a group of such, which no further attempt would change."""
    if isinstance(error, BaseExceptionGroup):
        return all(is_final(each) for each in error.exceptions)
    return isinstance(error, StepError)


class InvokeError(StepError):
    """The invoked function failed, was cancelled or skipped, is unknown, or was refused.

    ``run_id`` and ``status`` are those of the child run; None where none was started.
    """

    def __init__(self, step_id: str, *, run_id: str | None = None, status: str | None = None, **error: Any) -> None:
        self.run_id = run_id
        self.status = status
        super().__init__(step_id, **error)


class InvokeTimeout(InvokeError):
    """The invoked function did not end in time."""


class StepTimeout(DurableError):
    """An attempt of a step took longer than its time-out; it counts as any failed attempt."""

    def __init__(self, timeout: datetime.timedelta | None) -> None:
        self.timeout = timeout
        super().__init__(f"The attempt took longer than its timeout of {timeout}")


class SignalTaken(DurableError):
    """Another step waits for a signal of that name already; ``run_id`` is its run."""

    def __init__(self, signal: str, run_id: str) -> None:
        self.signal = signal
        self.run_id = run_id
        super().__init__(
            f"Run {run_id} waits for the signal {signal!r} already. Give each wait a name of its own, or take it over "
            "with replace=True"
        )


class CodeChanged(DurableError):
    """The code of a run's function has changed, and the function's ``on_code_change`` is ``"fail"``.

    ``started`` is the version of the code that the run started with, ``current`` that of this worker's code.
    """

    def __init__(self, function_id: str, started: str, current: str) -> None:
        self.function_id = function_id
        self.started = started
        self.current = current
        super().__init__(
            f"The run started with version {started} of {function_id}, and this worker's code has version {current}. "
            'Replay it with the present code, or write on_code_change="continue"'
        )


class WorkerDied(DurableError):
    """The processes that worked on a run died, ``times`` in a row, and nothing was recorded in between.

    ``steps`` names the step that was under way; of an async handler, all those that were; none if the handler's own
    code is the cause.
    """

    def __init__(self, times: int, steps: Sequence[str]) -> None:
        self.times = times
        self.steps = list(steps)
        place = f"at {', '.join(map(repr, steps))}" if steps else "in the handler's own code"
        super().__init__(
            f"Its worker died {times} times in a row {place}. Look for what ends the whole process there: too much "
            "memory, a crash of a C library, a hard time limit, os._exit"
        )


class NonRetriable(DurableError):
    """Raise it in a step or a handler to stop further attempts.

    Example::

        raise NonRetriable("the card was stolen")
    """


class RetryAfter(DurableError):
    """Raise it in a step or a handler to choose when the next attempt starts; it still counts as an attempt.

    ``when`` is a number of seconds, a timedelta, a duration text or an aware datetime.

    Example::

        raise RetryAfter("rate limited", "10m")
    """

    def __init__(self, message: str, when: float | str | datetime.timedelta | datetime.datetime) -> None:
        self.when = when
        super().__init__(message)
