"""Calls functions for a test: ``python -m project.serve site``; JSON lines in, JSON lines out.

With ``--embedded`` this process is a worker, too.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys
import time
import traceback
from typing import Any

import django
from django.db import close_old_connections


def answer(module: Any, line: str) -> dict[str, Any]:
    """Call what the line asks for; return its value or its error."""
    name, arguments = json.loads(line)
    close_old_connections()  # as a request does
    began = time.monotonic()
    try:
        value = getattr(module, name)(*arguments)
    except Exception:
        return {"error": traceback.format_exc()}
    return {"value": value, "seconds": time.monotonic() - began}


def main(name: str, *options: str) -> None:
    """Answer until standard input ends."""
    django.setup()
    module = importlib.import_module(f"project.{name}")
    # What anybody prints belongs in the log.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    with contextlib.ExitStack() as stack:
        if "--embedded" in options:
            from django_durable.drivers.celery.embedded import embedded_worker

            module.migrate()
            stack.enter_context(embedded_worker())
        for line in sys.stdin:
            print(json.dumps(answer(module, line)), file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
