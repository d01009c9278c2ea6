"""The table of operations: each thing that people may do to a run, with the permission that it needs.

The root package, the admin and the commands read it. How they ask for an operation's arguments is theirs; an operation
that takes a run, or a run and a step, appears in the admin and among the commands by its row alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from ...exceptions import DurableError
from ...models import ENDED, LIVE, Run, RunStatus, Step, StepKind, StepStatus
from ..store.transactions import alias
from . import ending, interventions, replays
from .run_handles import parse_run_id


class TooLate(DurableError):
    """Somebody or something else came first: the run has ended, or what it waited for is settled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """A row of the table."""

    name: str  #: of its command, its page and its address
    permission: str  #: as ``user.has_perm`` takes it
    function: Callable[..., UUID | bool]  #: takes the run's id; returns whether it did anything, or the id of a new run
    label: Promise  #: the verb on its button
    done: Promise  #: the verb's participle
    summary: Promise  #: what it does, for people who are about to do it
    fits: frozenset[str]  #: it is of use to a run that has one of these statuses, or waits for one of these
    too_late: Promise | str = ""  #: why it did nothing, with the arguments, ``run`` and ``status`` to fill in
    takes_step: bool = False  #: whether it is done to one step that waits, which *function* takes as ``step``

    def do(self, run_id: object, **arguments: Any) -> UUID | None:
        """Do it to a run; return the run to look at afterwards, which a replay makes. None if it was too late."""
        id = parse_run_id(run_id)
        done = self.function(id, **arguments)
        if isinstance(done, UUID):
            return done
        return id if done else None

    def do_or_raise(self, run_id: UUID, **arguments: Any) -> UUID:
        """Do it as :meth:`do` does; raise TooLate, with a text for people, if it was too late."""
        shown = self.do(run_id, **arguments)
        if shown is None:
            status = Run.objects.using(alias()).values_list("status", flat=True).get(id=run_id)
            raise TooLate(self.too_late % {"run": run_id, "status": status, **arguments})
        return shown


RESOLVE = Operation(
    name="resolve",
    permission="django_durable.resolve_wait",
    function=interventions.resolve_wait,
    label=_("Resolve"),
    done=_("resolved"),
    summary=_("Answer a step that waits for an event, a signal or an invoked run, in place of what it waits for."),
    fits=frozenset(interventions.ANSWERED),
    too_late=_("Step %(step)r was settled already; run %(run)s is %(status)s"),
    takes_step=True,
)
TIME_OUT = Operation(
    name="time_out",
    permission="django_durable.resolve_wait",
    function=interventions.time_out_wait,
    label=_("Time out"),
    done=_("timed out"),
    summary=_("Let a step that waits time out now, as if its time were over."),
    fits=RESOLVE.fits,
    too_late=RESOLVE.too_late,
    takes_step=True,
)
WAKE = Operation(
    name="wake",
    permission="django_durable.resolve_wait",
    function=interventions.wake_run,
    label=_("Wake"),
    done=_("woken"),
    summary=_("End the sleep of a run now."),
    fits=frozenset({StepKind.SLEEP, "code"}),
    too_late=_("Run %(run)s does not wait: it is %(status)s"),
)
RETRY = Operation(
    name="retry",
    permission="django_durable.resolve_wait",
    function=interventions.retry_run,
    label=_("Retry"),
    done=_("retried"),
    summary=_(
        "Make the next attempt of a step, or of the handler, now instead of after its back-off. It counts as every "
        "other attempt."
    ),
    fits=frozenset({*interventions.ATTEMPTED, "retry"}),
    too_late=WAKE.too_late,
)
CANCEL = Operation(
    name="cancel",
    permission="django_durable.cancel_run",
    function=ending.cancel,
    label=_("Cancel"),
    done=_("cancelled"),
    summary=_(
        "Cancel a run and the runs that it waits for. No further step starts. A step that is running is not "
        "interrupted, but its value is discarded."
    ),
    fits=frozenset(LIVE),
    too_late=_("Run %(run)s had ended already: it is %(status)s"),
)
REPLAY = Operation(
    name="replay",
    permission="django_durable.replay_run",
    function=replays.replay,
    label=_("Replay"),
    done=_("replayed"),
    summary=_(
        "Start a new run of the same function with the same trigger. From the start, every step is executed again; "
        "from a step, that step and everything that was recorded after it."
    ),
    fits=frozenset(RunStatus),
)
OPERATIONS: Mapping[str, Operation] = {each.name: each for each in (RESOLVE, TIME_OUT, WAKE, RETRY, CANCEL, REPLAY)}


def useful(run: Run) -> list[Operation]:
    """Return the operations that are of use to a run in its state."""
    state = {run.status, *_awaited(run)}
    return [operation for operation in OPERATIONS.values() if operation.fits & state]


def _awaited(run: Run) -> set[str]:
    """Return what a run waits for: kinds of steps, and what it waits for itself."""
    if run.status in ENDED:
        return set()
    waiting = Step.objects.using(run._state.db).filter(run_id=run.id, status=StepStatus.WAITING)
    kinds = waiting.values_list("kind", "attempt").distinct()
    # The code of a branch is tried again as that of the handler is.
    awaited = {"retry" if kind == StepKind.BRANCH and attempt else kind for kind, attempt in kinds}
    return awaited | ({run.waiting_kind} if run.status == RunStatus.WAITING else set())
