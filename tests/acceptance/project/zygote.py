"""Forks processes of the project from one that has imported everything: they start in a moment."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

from celery.signals import worker_init
from django.conf import settings
from django.core.signals import setting_changed
from django.db import connection, connections

from django_durable.core.functions import registry

from . import celery_app, control, faults, points
from .ledger import write
from .serve import answer

for module in (
    "celery.bin.celery",
    "celery.worker.consumer",
    "celery.concurrency.prefork",
    "celery.concurrency.solo",
    "celery.concurrency.thread",
    "kombu.transport.memory",
    "kombu.transport.redis",
):
    importlib.import_module(module)
assert connection.vendor  # imports the database's driver
QUICK = ["--without-gossip", "--without-mingle", "--without-heartbeat"]


def start(name: str, kill_at: int, moment: str) -> int:
    """Start a solo worker that consumes and dies at that statement; return its process id."""
    child = os.fork()
    if child:
        return child
    _log_to(name)
    faults.install(kill_at, moment)
    _work(name, ["--pool=solo"])
    raise SystemExit


def worker(name: str, options: list[str], changes: dict[str, Any]) -> int:
    """Start a worker with these options of the command line, and these changes; return its process id."""
    child = os.fork()
    if child:
        return child
    os.setsid()
    _change(name, **changes)
    _work(name, options)
    raise SystemExit


def site(name: str, embedded: bool, changes: dict[str, Any]) -> list[int]:
    """Start a site that answers one caller on a port; return its process id and the port."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    child = os.fork()
    if child:
        listener.close()
        return [child, port]
    os.setsid()
    _change(name, **changes)
    with contextlib.ExitStack() as stack:
        if embedded:
            from django_durable.drivers.celery.embedded import embedded_worker

            control.migrate()
            stack.enter_context(embedded_worker())
        calls = listener.accept()[0].makefile("rw")
        for line in calls:
            print(json.dumps(answer(control, line)), file=calls, flush=True)
    raise SystemExit


def _work(name: str, options: list[str]) -> None:
    celery_app.worker_main(["worker", f"--hostname={name}@%h", "--loglevel=INFO", *QUICK, *options])


def _log_to(name: str) -> None:
    log = os.open(Path(os.environ["DURABLE_TEST_FOLDER"], f"{name}.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for descriptor in (sys.stdout.fileno(), sys.stderr.fileno()):
        os.dup2(log, descriptor)


def _change(
    name: str,
    folder: str,
    durable: dict[str, Any],
    celery: dict[str, Any],
    faults: list[dict[str, Any]],
    without: list[str],
    database: dict[str, Any],
    preload: bool,
) -> None:
    """Make this fork what its test wants it to be."""
    os.environ["DURABLE_TEST_FOLDER"] = folder
    _log_to(name)
    settings.DURABLE = durable
    setting_changed.send(sender=None, setting="DURABLE", value=durable, enter=True)
    celery_app.conf.update(celery)
    for function_id in without:
        del registry._functions[function_id]
    points.arm(faults)
    connections.settings["default"].update(database)
    if preload:
        worker_init.connect(_preload)


def _preload(**kwargs: Any) -> None:
    """Connect to the database before the pool forks, as a module that queries when it is imported does."""
    write("preloaded", backend=control.backend())


def ended(pid: int) -> int | None:
    """Return the exit status of a process, negative for a signal; None while it runs."""
    if pid not in _ended:
        found, status = os.waitpid(pid, os.WNOHANG)
        if not found:
            return None
        _ended[pid] = os.waitstatus_to_exitcode(status)
    return _ended[pid]


def end(pid: int) -> None:
    """Kill a process that still runs, and wait for its end."""
    if ended(pid) is None:
        os.kill(pid, signal.SIGKILL)
        _ended[pid] = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


_ended: dict[int, int] = {}
