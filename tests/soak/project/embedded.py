"""The embedded worker in a process of its own: ``python -m tests.soak.project.embedded``."""

from __future__ import annotations

import signal
import threading

import django


def main() -> None:
    """Work until SIGTERM."""
    django.setup()
    from django_durable.drivers.celery.embedded import embedded_worker

    told = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: told.set())
    with embedded_worker():
        print("embedded ready.", flush=True)
        told.wait()


if __name__ == "__main__":
    main()
