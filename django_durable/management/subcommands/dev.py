"""``durable dev``: serve the site and work, in one process."""

from __future__ import annotations

import errno
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core.management.base import CommandError, CommandParser
from django.core.servers.basehttp import ThreadedWSGIServer, WSGIRequestHandler, get_internal_wsgi_application
from django.urls import NoReverseMatch, reverse

from ...conf import get_settings
from ...drivers.base import get_driver
from ...drivers.celery.driver import CeleryDriver
from ...drivers.celery.embedded import embedded_worker
from ...engine.scheduler import scheduler
from ..arguments import Address, address
from ..outputs import Output, facts
from ..stopping import stop_on_signals

HELP = "Serve the site and run functions in one process, without a broker. For development; code is not reloaded."


class Server(ThreadedWSGIServer):
    """Django's own server for development; every system refuses a second one on its port."""

    allow_reuse_port = False


def add_arguments(parser: CommandParser) -> None:
    """Take the address to listen on."""
    parser.add_argument(
        "address", metavar="ADDRPORT", type=address, nargs="?", default=Address(), help="Port, or address:port (8000)."
    )


def run(options: Mapping[str, Any], output: Output) -> None:
    """Serve and work until told to stop."""
    if not settings.DEBUG and not settings.ALLOWED_HOSTS:
        raise CommandError("You must set settings.ALLOWED_HOSTS if DEBUG is False")
    if not isinstance(get_driver(), CeleryDriver):
        raise CommandError(f"It works with DURABLE['DRIVER'] = 'celery', not {get_settings().driver!r}")
    where: Address = options["address"]
    server = _listening(where)
    with stop_on_signals() as stop, _serving(server), embedded_worker():
        _schedule(stop)
        urls = _urls(where, server.server_port)
        output.write({"ready": True, **urls}, f"{facts(urls)}\nready: Ctrl-C ends site, worker and scheduler.")
        # Waiting in short pieces lets signals through on every system.
        while not stop.wait(0.5):
            pass
    _end_process()


def _schedule(stop: threading.Event) -> None:
    """Run the scheduler where workers have none."""
    if get_settings().scheduler == "command":
        threading.Thread(target=scheduler.run, args=(stop,), name="durable-scheduler", daemon=True).start()


def _end_process() -> None:
    """End here: Python itself would wait for the functions of steps that are still at work, however long they take.

    Nothing is lost. Such a function runs again once its lease is over, as after any crash.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _listening(where: Address) -> Server:
    try:
        server = Server((where.host, where.port), WSGIRequestHandler, ipv6=where.ipv6)
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        problem = "is taken. Choose another one: durable dev PORT" if taken else f"cannot be used: {error.strerror}"
        raise CommandError(f"Port {where.port} of {where.host} {problem}") from error
    server.set_app(_site())
    return server


def _site() -> Any:
    """Return the site, with static files as runserver serves them."""
    site: Any = get_internal_wsgi_application()
    if not (settings.DEBUG and apps.is_installed("django.contrib.staticfiles")):
        return site
    from django.contrib.staticfiles.handlers import StaticFilesHandler

    return StaticFilesHandler(site)


@contextmanager
def _serving(server: Server) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, args=(0.2,), name="durable-site", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=1)


def _urls(where: Address, port: int) -> dict[str, object]:
    host = f"[{where.host}]" if where.ipv6 else where.host
    site = f"http://{host}:{port}"
    try:
        return {"site": f"{site}/", "admin": f"{site}{reverse('admin:index')}"}
    except NoReverseMatch:
        return {"site": f"{site}/"}
