"""``manage.py durable dev`` as a real process."""

from __future__ import annotations

import signal
import socket
import urllib.request
from collections.abc import Callable

import pytest

from django_durable.models import Run
from tests.management.processes import DurableProcess

Start = Callable[..., DurableProcess]

SOON = 5  #: seconds within which it has to end


def get(address: str) -> str:
    browser = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with browser.open(address, timeout=10) as response:
        return str(response.read().decode())


def test_it_serves_the_site_and_runs_functions(start: Start) -> None:
    dev = start("dev", "127.0.0.1:0", "--json")
    ready = dev.ready()

    assert start("send", "site/visited", '{"name": "Ann"}').end() == 0

    assert "Django administration" in get(ready["admin"])
    assert ".durable-status" in get(f"{ready['site']}static/django_durable/admin.css")
    dev.until(lambda: Run.objects.filter(status="completed", output='"Hello Ann"').exists())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_soon_when_told_to(start: Start, number: int) -> None:
    dev = start("dev", "127.0.0.1:0", "--json")
    dev.ready()

    dev.process.send_signal(number)

    assert dev.end(SOON) == 0


def test_a_step_at_work_does_not_keep_it_from_ending(start: Start) -> None:
    dev = start("dev", "127.0.0.1:0", "--json")
    dev.ready()
    start("send", "site/asked").end()
    dev.until(lambda: Run.objects.filter(status="running").exists())

    dev.process.terminate()

    assert dev.end(SOON) == 0


def test_it_prints_addresses_and_readiness_for_people(start: Start) -> None:
    dev = start("dev", "127.0.0.1:0")

    dev.until(lambda: any(line.startswith("ready") for line in dev.stdout))

    assert dev.stdout[0].startswith("site   http://127.0.0.1:")
    assert dev.stdout[1].startswith("admin  http://127.0.0.1:")


def test_it_schedules_where_workers_have_no_scheduler(start: Start) -> None:
    dev = start("dev", "127.0.0.1:0", "--json", durable={"SCHEDULER": "command"})
    dev.ready()

    start("send", "site/visited", '{"name": "Ann"}').end()

    dev.until(lambda: Run.objects.filter(status="completed").exists())


def test_it_says_that_it_needs_celery(start: Start) -> None:
    dev = start("dev", "127.0.0.1:0", durable={"DRIVER": "inline"})

    assert dev.end() == 1
    assert "not 'inline'" in "".join(dev.stderr)


def test_it_says_that_its_port_is_taken(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        dev = start("dev", str(port))

        assert dev.end() == 1
        assert f"Port {port} of 127.0.0.1 is taken" in "".join(dev.stderr)


def test_two_cannot_share_a_port(start: Start) -> None:
    port = start("dev", "127.0.0.1:0", "--json").ready()["site"].rpartition(":")[2].strip("/")

    assert start("dev", port).end() == 1


def test_a_wrong_address_is_wrong_usage(start: Start) -> None:
    assert start("dev", "nowhere").end() == 2
