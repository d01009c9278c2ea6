"""The example project as a newcomer meets it: a real process, pages over HTTP, e-mails on its console."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from contextlib import ExitStack
from http.cookiejar import CookieJar
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

REPOSITORY = Path(__file__).parents[2]
SECONDS = 40
WELCOME = "Subject: Welcome to Inkwell"
REMINDER = "Subject: Your first post is waiting"


class Demo:
    """A running demo: its process, its console, and a browser with cookies."""

    def __init__(self, folder: Path, *options: str, port: int | None = None) -> None:
        self.port = port or free_port()
        self.log = folder / "console.log"
        environment = {
            **os.environ,
            "DATABASE_URL": f"sqlite:///{folder}/db.sqlite3",
            "PYTHONPATH": str(REPOSITORY),
        }
        environment.pop("CELERY_BROKER_URL", None)
        command = [sys.executable, "-u", str(REPOSITORY / "example_project/demo.py"), "--port", str(self.port)]
        with self.log.open("w") as console:
            self.process = subprocess.Popen([*command, *options], env=environment, stdout=console, stderr=console)
        cookies = urllib.request.HTTPCookieProcessor(CookieJar())
        self._browser = urllib.request.build_opener(urllib.request.ProxyHandler({}), cookies)

    @property
    def console(self) -> str:
        """What it has printed so far."""
        return self.log.read_text()

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait for the condition; fail with the console after a deadline, or when the process has ended."""
        deadline = time.monotonic() + SECONDS
        while not condition():
            if time.monotonic() > deadline or self.process.poll() is not None:
                pytest.fail(f"Exit status {self.process.poll()}, in vain until:\n{self.console}", pytrace=False)
            time.sleep(0.05)

    def until_ready(self) -> None:
        """Wait for the line that says that everything runs."""
        self.until(lambda: re.search("^ready", self.console, re.MULTILINE) is not None)

    def until_printed(self, text: str) -> None:
        """Wait for a text on the console."""
        self.until(lambda: text in self.console)

    def get(self, path: str) -> str:
        """Return a page."""
        with self._browser.open(f"http://127.0.0.1:{self.port}{path}", timeout=10) as response:
            return response.read().decode()

    def submit(self, path: str, **fields: str) -> str:
        """Fill in the form of a page, as a browser does; return the page that follows."""
        token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', self.get(path))
        assert token is not None
        data = urllib.parse.urlencode({"csrfmiddlewaretoken": token[1], **fields}).encode()
        with self._browser.open(f"http://127.0.0.1:{self.port}{path}", data, timeout=10) as response:
            return response.read().decode()

    def sign_up(self, email: str) -> None:
        """Sign up, and wait for the welcome e-mail."""
        self.submit("/", email=email)
        self.until_printed(f"Hello {email},\n\ngood that you are here")

    def write_post(self, author: str) -> None:
        """Publish a post of that user."""
        option = re.search(rf'<option value="(\d+)"[^>]*>{re.escape(author)}<', self.get("/posts/"))
        assert option is not None
        self.submit("/posts/", author=option[1], title="First lines", body="")

    def statuses(self) -> dict[str, str]:
        """Return the status of each user's run, as the home page shows it."""
        rows = re.findall(r"<td>(\S+@\S+)</td>.*?<span[^>]*>(\w+)</span>", self.get("/runs/"), re.DOTALL)
        return dict(rows)


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Demo]]:
    """Start a demo with these options; every one started in a test has the same database."""
    with ExitStack() as stack:

        def start(*options: str, port: int | None = None) -> Demo:
            demo = Demo(tmp_path, *options, port=port)
            stack.callback(demo.process.wait)
            stack.callback(demo.process.kill)
            return demo

        yield start


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """A demo that waits for a first post for an hour."""
    demo = Demo(tmp_path_factory.mktemp("demo"), "--wait", "1h")
    try:
        demo.until_ready()
        yield demo
    finally:
        demo.process.kill()
        demo.process.wait()


def test_who_writes_nothing_is_welcomed_and_then_reminded(start: Callable[..., Demo]) -> None:
    demo = start("--wait", "1s")
    demo.until_ready()

    demo.submit("/", email="ann@example.com")

    demo.until_printed(REMINDER)
    assert demo.console.index(WELCOME) < demo.console.index(REMINDER)


def test_a_post_in_time_spares_its_author_the_reminder(patient: Demo) -> None:
    patient.sign_up("bea@example.com")

    patient.write_post("bea@example.com")

    patient.until(lambda: patient.statuses()["bea@example.com"] == "Completed")
    assert REMINDER not in patient.console


def test_the_post_of_somebody_else_leaves_a_run_waiting(patient: Demo) -> None:
    for email in ("cleo@example.com", "dan@example.com"):
        patient.sign_up(email)

    patient.write_post("dan@example.com")

    patient.until(lambda: patient.statuses()["dan@example.com"] == "Completed")
    assert patient.statuses()["cleo@example.com"] == "Waiting"


def test_the_home_page_says_what_a_run_waits_for(patient: Demo) -> None:
    patient.sign_up("eve@example.com")

    patient.until(lambda: patient.statuses()["eve@example.com"] == "Waiting")
    assert "app/post.created" in patient.get("/")


def test_an_address_signs_up_once(patient: Demo) -> None:
    patient.sign_up("fay@example.com")

    assert "has signed up already" in patient.submit("/", email="Fay@example.com")


def test_the_admin_opens_for_the_demo_user(patient: Demo) -> None:
    page = patient.submit("/admin/login/?next=/admin/", username="admin", password="admin")

    assert "/admin/django_durable/run/" in page


@pytest.mark.parametrize("path", ["/", "/posts/"])
def test_a_page_needs_no_inline_script_or_style(patient: Demo, path: str) -> None:
    """So that it works under Content-Security-Policy: default-src 'self'."""
    page = patient.get(path)

    assert re.findall(r"<style|<script(?![^>]*\bsrc=)|\son\w+=|\sstyle=", page) == []


def test_the_stylesheet_and_the_script_are_served(patient: Demo) -> None:
    files = re.findall(r'(?:src|href)="(/static/[^"]+)"', patient.get("/"))

    assert len(files) == 3
    assert all(patient.get(file) for file in files)


def test_only_this_machine_can_reach_it(patient: Demo) -> None:
    with pytest.raises(OSError):  # noqa: PT011 - refused, unreachable or timed out: each system says it in its way
        socket.create_connection(("127.0.0.2", patient.port), timeout=2)


def test_a_run_goes_on_after_a_crash(start: Callable[..., Demo]) -> None:
    demo = start("--wait", "3s")
    demo.until_ready()
    demo.sign_up("ann@example.com")
    demo.until(lambda: demo.statuses()["ann@example.com"] == "Waiting")
    demo.process.kill()
    demo.process.wait()

    again = start("--wait", "3s")

    again.until_printed(REMINDER)
    assert WELCOME not in again.console


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_everything_within_5_seconds(start: Callable[..., Demo], number: signal.Signals) -> None:
    demo = start()
    demo.until_ready()

    demo.process.send_signal(number)

    demo.process.wait(5)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", demo.port))


def test_a_taken_port_is_reported_with_the_remedy(start: Callable[..., Demo]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        demo = start(port=port)

        assert demo.process.wait(SECONDS) == 1
        assert f"Port {port} is taken" in demo.console
        assert "--port" in demo.console


@pytest.mark.parametrize(
    ("option", "value", "reason"),
    [("--wait", "soon", "'soon'"), ("--wait", "0s", "above 0"), ("--port", "99999", "from 1 to 65535")],
)
def test_a_wrong_option_is_refused_with_the_reason(
    start: Callable[..., Demo], option: str, value: str, reason: str
) -> None:
    demo = start(option, value)

    assert demo.process.wait(SECONDS) == 2
    assert reason in demo.console
