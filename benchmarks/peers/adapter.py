"""This package in the peer benchmark: how its runs are enqueued, looked at and woken, by public means only.

Loaded by the peer benchmark's run.py, see benchmarks/peers.py. ``common`` and ``workloads`` are modules of that folder.
"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import common
import psycopg
import workloads

REQUIREMENTS = "requirements.txt"
MIN_PYTHON = (3, 11)
SERVICES = ("redis",)
# default: no setting but the services' addresses, and `celery -A project worker`. events: W1 with the ingest of its
# events in the measured time. sync: W5 with plain functions in 50 threads.
VARIANTS = {"tuned": "W1 W2 W3 W4 W5", "default": "W1 W2 W3 W4 W5", "events": "W1", "sync": "W5"}

HERE = Path(__file__).resolve().parent
MEMOS = {"wait": 3, "wait_all": 3, "gated": 3, "gated_sync": 3}


class System(common.System):  # type: ignore[misc]
    """The four flows, started by events; in W1, as tasks of the peers are, by name."""

    db: Any = None

    def W1(self) -> None:
        self._measured(workloads.W1)

    def W2(self) -> None:
        self._measured(workloads.W2)

    def W3(self) -> None:
        self._measured(workloads.W3)

    def W4(self) -> None:
        self._measured(workloads.W4)

    def W5(self) -> None:
        self._measured(workloads.W5)

    def _measured(self, workload: Any) -> None:
        workload(self.bench, self)
        self._check_memos()

    def prepare(self) -> None:
        if self.db is None:
            self._set_up()
        else:
            self._check_memos()
            self.db.close()
            self._empty()
        self.expected: Counter[int] = Counter()
        self.db = psycopg.connect(self.url, autocommit=True)

    def _set_up(self) -> None:
        import django

        self.url = self.bench.fresh_db()
        os.environ["BENCH_DB"] = self.url.rpartition("/")[2]
        os.environ["BENCH_VARIANT"] = self.bench.variant
        os.environ["DJANGO_SETTINGS_MODULE"] = "project.settings"
        django.setup()
        self._migrate()

    def _empty(self) -> None:
        from django.db import connection

        connection.close()
        self.bench.fresh_db()
        self._migrate()

    def _migrate(self) -> None:
        import redis
        from django.core.management import call_command

        call_command("migrate", verbosity=0)
        redis.Redis.from_url(os.environ["BENCH_REDIS"]).flushall()

    def _check_memos(self) -> None:
        """Fail unless every run that was enqueued has all its memos, and no other one."""
        rows = self.db.execute(
            "SELECT memos, count(*) FROM (SELECT (SELECT count(*) FROM django_durable_step step"
            " WHERE step.run_id = run.id AND step.status = 'completed') AS memos"
            " FROM django_durable_run run WHERE status = 'completed') AS runs GROUP BY memos"
        )
        found = Counter(dict(rows.fetchall()))
        if found != self.expected:
            raise AssertionError(f"runs by their number of memos: {found}, not {self.expected}")

    def start_workers(self, count: int) -> Any:
        command = [sys.executable, "-m", "celery", "-A", "project", "worker"]
        return self.bench.spawn([*command, *self._options(count)], "worker ready", cwd=HERE, PYTHONPATH=HERE)

    def _options(self, count: int) -> list[Any]:
        """Return the worker's options: W1 says how many processes, anything else is left to Celery by default."""
        if self.bench.variant == "sync":
            return ["--pool", "threads", "--concurrency", 50]
        if self.bench.variant == "default" and self.bench.workload != "W1":
            return []
        return ["--concurrency", count]

    def enqueue(self, flow: str, arguments: Sequence[int]) -> list[str]:
        import django_durable as durable

        if flow == "gated" and self.bench.variant == "sync":
            flow = "gated_sync"
        for argument in arguments:
            self.expected[MEMOS.get(flow, argument)] += 1
        if self.bench.workload == "W1" and self.bench.variant != "events":
            return self._start(flow, arguments)
        return list(durable.send_events(durable.Event(f"bench/{flow}", {"argument": each}) for each in arguments))

    def _start(self, flow: str, arguments: Sequence[int]) -> list[str]:
        from django.db import transaction
        from flows import durable as flows

        with transaction.atomic():
            return [getattr(flows, flow).start({"argument": argument}).id for argument in arguments]

    def progress(self) -> tuple[int, float | None, float | None]:
        done, first, last = self.db.execute(
            "SELECT count(*) FILTER (WHERE status = 'completed'), extract(epoch FROM least(min(started_at),"
            " (SELECT min(ingested_at) FROM django_durable_event))), extract(epoch FROM max(finished_at))"
            " FROM django_durable_run"
        ).fetchone()
        return done, first and float(first), last and float(last)

    def wait_done(self, run_id: str) -> None:
        query = "SELECT 1 FROM django_durable_run WHERE event_id = %s AND status = 'completed'"
        while not self.db.execute(query, [run_id]).fetchone():
            time.sleep(0.002)

    def parked(self) -> int:
        return int(self.db.execute("SELECT count(*) FROM django_durable_wait").fetchone()[0])

    def resume(self, run_id: str, argument: int) -> None:
        import django_durable as durable

        durable.send_event("bench/go", {"argument": argument})

    def resume_all(self, run_ids: Sequence[str]) -> None:
        import django_durable as durable

        durable.send_event("bench/go-all")
