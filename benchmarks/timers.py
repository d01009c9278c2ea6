"""How late timers fire: runs that sleep until moments spread over a minute, on two workers that do nothing else."""

from __future__ import annotations

import datetime
import os
import time
from collections.abc import Iterator

from .figures import Figure
from .processes import redis, workers

TIMERS = int(os.environ.get("DURABLE_BENCH_TIMERS", "10000"))
SPREAD = 60.0  #: seconds over which they are due
LEAD = 0.015  #: seconds for each run until it sleeps, before the first timer is due
BATCH = 500


def figures() -> Iterator[Figure]:
    """Measure from when a timer is due to when its handler goes on."""
    with redis() as broker, workers(2, "--concurrency=1", DURABLE_BENCH_BROKER_URL=broker):
        begins = time.time() + 10 + TIMERS * LEAD
        _start(begins, broker)
        _wait(begins)
    for what, late in (("woken", _woken()), ("gone on", _gone_on())):
        ordered = sorted(late)
        for share in (50, 95, 99, 100):
            value = ordered[min(len(ordered) - 1, len(ordered) * share // 100)] * 1_000
            name = f"{TIMERS:,} timers over {SPREAD:g} s: {share} % {what} less late"
            yield Figure(name, "ms", value, ordered[0] * 1_000, ordered[-1] * 1_000)


def _start(begins: float, broker: str) -> None:
    """Send the events of all runs, as a site does."""
    from django.test import override_settings

    import django_durable as durable
    from django_durable.drivers.base import get_driver

    from .project import app

    app.conf.broker_url = broker
    moments = [datetime.datetime.fromtimestamp(begins + SPREAD * n / TIMERS, datetime.UTC) for n in range(TIMERS)]
    with override_settings(DURABLE={"DRIVER": "celery", "CELERY_APP": "benchmarks.project.app"}):
        for first in range(0, TIMERS, BATCH):
            batch = moments[first : first + BATCH]
            durable.send_events(durable.Event("bench/timer", {"at": at.isoformat()}) for at in batch)
        get_driver().flush()


def _wait(begins: float) -> None:
    """Wait until all runs have ended; stop if they were not all asleep when the first timer was due."""
    from django_durable.models import Run, RunStatus

    time.sleep(max(0.0, begins - time.time()))
    asleep = Run.objects.filter(status=RunStatus.WAITING).count()
    if asleep < TIMERS * 0.999:
        raise SystemExit(f"only {asleep} of {TIMERS} runs sleep when the first timer is due: give them more LEAD")
    time.sleep(SPREAD)
    deadline = time.monotonic() + 120
    while Run.objects.filter(status=RunStatus.COMPLETED).count() < TIMERS:
        if time.monotonic() > deadline:
            raise SystemExit("some timers did not fire")
        time.sleep(0.5)


def _woken() -> list[float]:
    """Return how many seconds after it was due each sleep was recorded as over."""
    from django_durable.models import Step, StepKind

    moments = Step.objects.filter(kind=StepKind.SLEEP).values_list("next_at", "finished_at")
    return [(finished - due).total_seconds() for due, finished in moments if due and finished]


def _gone_on() -> list[float]:
    """Return how many seconds after its timer was due each handler went on."""
    from django_durable.models import Run

    return [
        float(run.output or 0) - _due(run.event.data["at"]) for run in Run.objects.select_related("event") if run.event
    ]


def _due(at: str) -> float:
    return datetime.datetime.fromisoformat(at).timestamp()


if __name__ == "__main__":
    from .alone import main

    main(figures, __doc__)
