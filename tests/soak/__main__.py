"""Play random programs on real workers while workers, broker and database are killed; print what came of it."""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .faults import Fault
    from .ledger import Ledger
    from .traffic import Traffic
    from .verdict import Verdict

GRACE = 45.0  #: seconds without any progress after which what has not ended is stuck
LONGEST_GRACE = 300.0  #: seconds after which it is stuck in any case
LOOK = 0.1  #: seconds
MOST_FINDINGS = 30
RUN_ID = re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")
EPILOG = """
Lost, doubled and stuck must be 0; the exit status is 1 otherwise, and the folder with logs and ledger is kept.
The seed decides the programs and the order of the faults; when exactly a fault hits is the machine's.
The database and the broker are private ones. memory is the embedded worker of the default project, on SQLite.
"""


def main() -> int:
    """Soak as the command line says; return the exit status."""
    options = _parser().parse_args()
    if options.broker == "memory" and options.database != "sqlite":
        sys.exit("scripts/soak: --broker memory is the embedded worker, which needs --database sqlite")
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, frame: sys.exit(128 + number))
    folder = Path(tempfile.mkdtemp(prefix="durable-soak-"))
    failed = True
    try:
        with ExitStack() as stack:
            report = _soak(options, folder, stack)
        print(json.dumps(report), flush=True)
        failed = bool(report["lost"] or report["doubled"] or report["stuck"])
    finally:
        if failed or options.keep:
            said = "failed" if failed else "passed"
            print(f"scripts/soak: {said}. Logs, ledger and the rows of the runs are in {folder}", file=sys.stderr)
        else:
            shutil.rmtree(folder, ignore_errors=True)
    return int(failed)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/soak", description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60, help="how long faults are made (60)")
    parser.add_argument("--database", choices=["postgres", "sqlite"], default="postgres")
    parser.add_argument("--broker", choices=["redis", "rabbitmq", "memory"], default="redis")
    parser.add_argument("--seed", type=int, default=random.randrange(10_000), help="any number; random by default")
    parser.add_argument("--keep", action="store_true", help="keep the folder with logs and ledger in any case")
    return parser


def _soak(options: argparse.Namespace, folder: Path, stack: ExitStack) -> dict[str, Any]:
    from .servers import broker_of, database_of, require_broker

    require_broker(options.broker)
    database = stack.enter_context(database_of(options.database, folder))
    broker = stack.enter_context(broker_of(options.broker, folder))
    environment = {"SOAK_DATABASE_URL": database.url, "SOAK_FOLDER": str(folder)}
    environment |= {"SOAK_BROKER_URL": broker.url} if broker else {}
    os.environ |= {**environment, "DJANGO_SETTINGS_MODULE": "tests.soak.project.settings"}

    import django

    django.setup()
    database.prepare()
    return _play(options, folder, broker, database, stack)


def _play(options: argparse.Namespace, folder: Path, broker: Any, database: Any, stack: ExitStack) -> dict[str, Any]:
    from django.core.management import call_command
    from django.db import connections

    from .faults import Injector
    from .fleet import POOLS, Fleet
    from .project.settings import LEASE
    from .traffic import Traffic

    call_command("migrate", run_syncdb=True, verbosity=0)
    fleet = Fleet(folder)
    stack.callback(fleet.end)
    fleet.start(list(POOLS) if broker else ["embedded"])
    traffic = Traffic(options.seed)
    traffic.start()
    stack.callback(traffic.stop)
    injector = Injector(options.seed, fleet, broker, database, LEASE)
    injector.run(time.monotonic() + options.seconds)
    connections.close_all()  # to a database that has restarted
    settling = _settle(traffic)
    return _report(options, folder, traffic, injector.faults, settling)


def _settle(traffic: Traffic) -> float:
    """Let everything come to its end, for as long as something happens; return how many seconds that took."""
    traffic.finish()
    began, quiet, before = time.monotonic(), 0, _progress()
    while any(before[:2]) or not traffic.is_done:
        # Looks are counted, not seconds: a machine that stands still itself says nothing of the runs.
        if quiet > GRACE / LOOK or time.monotonic() > began + LONGEST_GRACE:
            break
        time.sleep(LOOK)
        now = _progress()
        quiet = quiet + 1 if now == before else 0
        before = now
    return time.monotonic() - began


def _progress() -> tuple[int, ...]:
    """Return how many runs have not ended and how many events are not ingested, and what else changes on the way."""
    from django_durable.models import ENDED, Event, Run, Step

    unended, uningested = Run.objects.exclude(status__in=ENDED), Event.objects.filter(ingested_at=None)
    return unended.count(), uningested.count(), Step.objects.exclude(seq=None).count()


def _report(
    options: argparse.Namespace, folder: Path, traffic: Traffic, faults: list[Fault], settling: float
) -> dict[str, Any]:
    from .ledger import Ledger
    from .project.settings import LEASE
    from .verdict import Verdict

    ledger = Ledger(folder)
    verdict = Verdict(traffic, ledger).reach()
    _tell(folder, verdict)
    recoveries = _recoveries(ledger, faults)
    (folder / "faults").write_text("".join(f"{each.time:.3f} {each.kind} {each.pids}\n" for each in faults))
    report = {name: getattr(options, name) for name in ("seed", "seconds", "database", "broker")}
    report |= {"runs": len(verdict.runs), "bodies": len(ledger.calls), "repeated_bodies": ledger.repeated}
    report |= {name: len(getattr(verdict, name)) for name in ("lost", "doubled", "stuck")}
    report |= {
        "overtaken_bodies": len(ledger.overtaken(verdict.recorded)),
        "faults": dict(sorted(Counter(f.kind for f in faults).items())),
    }
    report |= {"lease": LEASE, **recoveries}
    return report | {"slowest_send": round(traffic.slowest, 2), "settled_after": round(settling, 1)}


def _recoveries(ledger: Ledger, faults: list[Fault]) -> dict[str, Any]:
    """Return how long the longest recovery took; of those during which there was no other fault, for each kind."""
    longest, undisturbed = 0.0, defaultdict[str, float](float)
    for fault in faults:
        for seconds in ledger.recoveries(fault):
            longest = max(longest, round(seconds, 2))
            if not any(fault.time < other.time < fault.time + seconds for other in faults):
                undisturbed[fault.kind] = max(undisturbed[fault.kind], round(seconds, 2))
    return {"longest_recovery": longest or None, "undisturbed_recoveries": dict(sorted(undisturbed.items()))}


def _tell(folder: Path, verdict: Verdict) -> None:
    """Print what was found, and keep the rows of the runs that it names."""
    from .verdict import details

    findings = [f"{name}: {each}" for name in ("lost", "doubled", "stuck") for each in getattr(verdict, name)]
    if findings:
        print(*findings[:MOST_FINDINGS], sep="\n", file=sys.stderr)
        (folder / "findings").write_text("\n".join(findings))
        named = {id for each in findings for id in RUN_ID.findall(each)} & verdict.runs.keys()
        (folder / "runs.json").write_text(json.dumps(details(named), default=str, indent=1))


if __name__ == "__main__":
    sys.exit(main())
