from __future__ import annotations

import importlib.util
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from django_durable.core.gotchas.findings import Finding, Kind, find

HEAD = """
import asyncio, contextlib, datetime, functools, os, random, secrets, subprocess, time, urllib.request, uuid
from datetime import date
from random import randint
from time import sleep
from django.core.mail import send_mail
from django.utils import timezone
from django.utils.timezone import now as moment
import django_durable as durable
from django_durable import Event, send_event
"""

Load = Callable[[str], ModuleType]


@pytest.fixture
def load(tmp_path: Path) -> Iterator[Load]:
    """Give a function that imports a module of the source it is given."""
    names: list[str] = []

    def load(source: str) -> ModuleType:
        names.append(f"handlers_{len(names)}")
        file = tmp_path / f"{names[-1]}.py"
        file.write_text(HEAD + source)
        spec = importlib.util.spec_from_file_location(names[-1], file)
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[names[-1]] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    yield load
    for name in names:
        sys.modules.pop(name, None)


def _handler_of(load: Load, body: str) -> Any:
    head = "async def handler(event, step):" if "await " in body or "# async" in body else "def handler(event, step):"
    return load(f"{head}\n{textwrap.indent(textwrap.dedent(body), '    ')}\n").handler


def _marked(body: str) -> list[str]:
    """Return the lines of a handler that a comment ``# !`` marks as wrong."""
    return [line.strip() for line in body.splitlines() if "# !" in line]


def _lines(findings: list[Finding]) -> list[str]:
    return [Path(found.file).read_text().splitlines()[found.line - 1].strip() for found in findings]


SIDE_EFFECTS = {
    "creating a row": "Order.objects.create(total=1)  # !",
    "creating rows": "Order._default_manager.bulk_create([])  # !",
    "updating rows": "Order.objects.filter(pk=1).update(paid=True)  # !",
    "updating related rows": "event.order.line_set.update(paid=True)  # !",
    "saving a row": "order = find()\norder.save()  # !",
    "deleting a row": "find().delete()  # !",
    "sending mail": "send_mail('hello', 'world', None, [])  # !",
    "an HTTP request": "import requests\nrequests.post('https://example.com')  # !",
    "an HTTP request by another name": "from httpx import post as call\ncall('https://example.com')  # !",
    "fetching a URL": "urllib.request.urlopen('https://example.com')  # !",
    "a process": "subprocess.run(['true'])  # !",
    "removing a file": "os.remove('/tmp/x')  # !",
    "writing a file": "open('/tmp/x', 'w')  # !",
    "appending to a file": "with open('/tmp/x', mode='a') as file:  # !\n    file.write('x')",
    "an event": "durable.send_event('a/b')  # !",
    "an event by a bare name": "send_event('a/b')  # !",
    "a signal": "durable.send_signal('a')  # !",
    "a Celery task": "notify.delay(7)  # !",
    "in a loop": "for number in range(3):\n    send_event('a/b')  # !",
    "in a condition": "if event.data:\n    send_event('a/b')  # !",
    "in an argument of a step": "step.run('a', print, Order.objects.create())  # !",
    "in a branch": "step.parallel(lambda: send_event('a/b'))  # !",
    "in a named branch": "def branch():\n    send_event('a/b')  # !\nstep.race(branch)",
    "in a helper": "def helper():\n    send_event('a/b')  # !\nhelper()",
    "in a helper of a helper": "def a():\n    send_event('a/b')  # !\ndef b():\n    a()\nb()",
    "in an async handler": "await step.sleep('a', 1)\nawait Order.objects.acreate()  # !",
}
CHANGING_VALUES = {
    "the time": "print(timezone.now())  # !",
    "the time by another name": "print(moment())  # !",
    "the time of datetime": "print(datetime.datetime.now(datetime.UTC))  # !",
    "the time of the machine": "print(time.time())  # !",
    "today": "print(date.today())  # !",
    "the local date": "print(timezone.localdate())  # !",
    "a UUID": "print(uuid.uuid4())  # !",
    "a random number": "print(random.random())  # !",
    "a random number by a bare name": "print(randint(1, 6))  # !",
    "a token": "print(secrets.token_hex())  # !",
    "random bytes": "print(os.urandom(8))  # !",
    "in the id of a step": "step.run(f'a-{uuid.uuid4()}', print)  # !",
    "in a decision": "if random.random() < 0.5:  # !\n    step.sleep('a', 1)",
}
BLOCKING_SLEEPS = {
    "a sleep of the worker": "time.sleep(3)  # !",
    "by a bare name": "sleep(3)  # !",
    "of the loop": "await asyncio.sleep(3)  # !",
}
LOST_CHANGES = {
    "a nonlocal name": """
        winner = None
        def pick():
            nonlocal winner
            winner = 7  # !
        step.run("pick", pick)
        print(winner)
        """,
    "a list": "found = []\nstep.run('a', lambda: found.append(1))  # !\nprint(found)",
    "a list of unknown origin": "found = begin()\nstep.run('a', lambda: found.append(1))  # !\nreturn found",
    "a set": "seen = set()\nstep.run('a', lambda: seen.add(1))  # !\nprint(seen)",
    "a dictionary": "totals = {}\nstep.atomic('a', lambda: totals.update(x=1))  # !\nprint(totals)",
    "an item": """
        totals = {}
        def count():
            totals["x"] = 1  # !
        step.run("count", count)
        step.run("tell", print, totals)
        """,
    "an item added to": """
        totals = {"x": 0}
        def count():
            totals["x"] += 1  # !
        step.run("count", count)
        return totals
        """,
    "an attribute": """
        order = find()
        def pay():
            order.paid = True  # !
        step.run("pay", pay)
        if order.paid:
            step.sleep("a", 1)
        """,
    "by a decorated body": """
        found = []
        @step.run("find")
        def finding():
            found.append(1)  # !
        print(found)
        """,
    "by decorated bodies of one name": """
        found = []
        @step.run("find")
        def _():
            found.append(1)  # !
        @step.run("tell")
        def _():
            print(found)
        """,
    "by a partial body": """
        found = []
        def finding(what):
            found.append(what)  # !
        step.run("find", functools.partial(finding, 7))
        print(found)
        """,
    "by a body with options": "found = []\nstep.options(retries=1).run('a', lambda: found.append(1))  # !\nfound[0]",
    "by a body of a map": "found = []\nstep.map('a', lambda item: found.append(item), [1])  # !\nprint(found)",
    "by what the body calls": """
        found = []
        def add():
            found.append(1)  # !
        def finding():
            add()
        step.run("find", finding)
        print(found)
        """,
    "read in another body": "a = []\nstep.run('a', lambda: a.append(1))  # !\nstep.run('b', lambda: print(a))",
    "in an async handler": "found = []\nawait step.run('a', lambda: found.append(1))  # !\nprint(found)",
}
MOVING_MOMENTS = {
    "computed in the call": "step.sleep_until('a', timezone.now() + datetime.timedelta(1))  # !",
    "computed before": "when = timezone.now() + datetime.timedelta(1)\nstep.sleep_until('a', when)  # !",
    "computed in two lines": "now = moment()\nwhen = now.replace(hour=9)\nstep.sleep_until('a', when)  # !",
    "added to": "when = date.today()\nwhen += datetime.timedelta(1)\nstep.sleep_until('a', when)  # !",
    "by keyword": "step.sleep_until('a', when=timezone.now())  # !",
    "in an async handler": "await step.sleep_until('a', timezone.now())  # !",
}
NOT_AWAITED = {
    "a call on its own": "step.run('a', print)  # !\nawait step.sleep('b', 1)",
    "a value used at once": "name = step.run('a', str)['name']  # !\nawait step.sleep('b', 1)",
    "a value never awaited": "value = step.run('a', str)  # !\nawait step.sleep('b', 1)\nreturn value",
    "a value compared": "if step.wait_for_event('a', event='b', timeout=1) is None:  # !\n    await step.sleep('b', 1)",
    "a returned call": "await step.sleep('b', 1)\nreturn step.run('a', str)  # !",
    "a value named in a condition": (
        "if (post := step.wait_for_event('a', event='b', timeout=1)) is None:  # !\n    await step.sleep('b', 1)"
    ),
    "in a helper": "async def helper():\n    step.run('a', str)  # !\nawait helper()",
}
SWALLOWED = {
    "a bare except": "try:\n    step.sleep('a', 1)\nexcept:  # !\n    pass",
    "except BaseException": "try:\n    step.sleep('a', 1)\nexcept BaseException:  # !\n    pass",
    "a tuple with BaseException": "try:\n    step.sleep('a', 1)\nexcept (OSError, BaseException):  # !\n    pass",
    "return in finally": "try:\n    step.sleep('a', 1)\nfinally:\n    return 1  # !",
    "raise in finally": "try:\n    step.sleep('a', 1)\nfinally:\n    raise ValueError  # !",
    "break in finally": "while True:\n    try:\n        step.sleep('a', 1)\n    finally:\n        break  # !",
    "around a helper": "def helper():\n    step.sleep('a', 1)\ntry:\n    helper()\nexcept:  # !\n    pass",
    "suppress": "with contextlib.suppress(BaseException):  # !\n    step.sleep('a', 1)",
}
WRONG = {
    Kind.SIDE_EFFECT: SIDE_EFFECTS,
    Kind.CHANGING_VALUE: CHANGING_VALUES,
    Kind.BLOCKING_SLEEP: BLOCKING_SLEEPS,
    Kind.LOST_CHANGE: LOST_CHANGES,
    Kind.MOVING_SLEEP_UNTIL: MOVING_MOMENTS,
    Kind.NOT_AWAITED: NOT_AWAITED,
    Kind.SWALLOWED_SUSPENSION: SWALLOWED,
}
RIGHT = {
    "a side effect in a body": "step.run('a', lambda: Order.objects.create())",
    "a side effect in a named body": "def body():\n    send_event('a/b')\n    return uuid.uuid4()\nstep.run('a', body)",
    "a side effect in a decorated body": "@step.run('a')\ndef body():\n    send_event('a/b')",
    "a side effect in what a body calls": "def a():\n    send_event('a/b')\ndef b():\n    a()\nstep.run('a', b)",
    "a side effect in a body of a branch": "step.parallel(lambda: step.run('a', lambda: send_event('a/b')))",
    "a side effect in a partial body": "def body(x):\n    x.save()\nstep.run('a', functools.partial(body, 1))",
    "a function that is only named": "step.run('a', send_mail, 'hello', 'world', None, [])",
    "a function defined and used elsewhere": "def body():\n    send_event('a/b')\nregister(body)",
    "an event sent by a step": "step.send_event('a', Event('a/b'))",
    "an update of a dictionary": "totals = {}\ntotals.update(x=1)\nprint(totals)",
    "an update of a dictionary in another one": "event.data['filter'].update(x=1)",
    "a time that is logged": "step.logger.info('it is %s', timezone.now())",
    "a query": "print(Order.objects.filter(pk=1).count())",
    "reading a file": "print(open('/etc/hosts').read())",
    "another function of that name": "def sleep(seconds):\n    print(seconds)\nsleep(3)",
    "a local variable of that name": "time = event.data\ntime.sleep(3)",
    "an object of that name": "random = step\nrandom.random()",
    "a seeded generator": "print(random.Random(event.data['seed']).random())",
    "the time as an argument of a step": "step.run('a', print, timezone.now())",
    "the time in a duration": "step.sleep('a', event.ts - timezone.now())",
    "a UUID in an event that a step sends": "step.send_event('a', Event('a/b', {'id': str(uuid.uuid4())}))",
    "a conversion of a time": "print(timezone.localtime(event.ts))",
    "a moment from a step": "when = step.run('a', timezone.now)\nstep.sleep_until('b', when)",
    "a moment from a step that gets the time": "when = step.run('a', str, timezone.now())\nstep.sleep_until('b', when)",
    "a moment from the event": "step.sleep_until('a', event.ts + datetime.timedelta(1))",
    "a variable that no body changes": "found = []\nfound.append(step.run('a', str))\nprint(found)",
    "a variable of the body": "def body():\n    found = []\n    found.append(1)\n    return found\nstep.run('a', body)",
    "a parameter of the body": "found = []\nstep.run('a', lambda found: found.append(1), found)\nprint(found)",
    "a change that nobody reads": "found = []\nstep.run('a', lambda: found.append(1))",
    "a change that is returned": """
        winner = None
        def pick():
            nonlocal winner
            winner = 7
            return winner
        winner = step.run("pick", pick)
        print(winner)
        """,
    "a row that a body saves": """
        order = find()
        def pay():
            order.paid = True
            order.save()
        step.atomic("pay", pay)
        step.run("tell", print, order.email)
        """,
    "a query set that a body updates": "rows = find()\nstep.atomic('a', lambda: rows.update(x=1))\nprint(rows)",
    "rows that a body adds": "user = find()\nstep.atomic('a', lambda: user.groups.add(1))\nprint(user)",
    "a step named and awaited": "tell(a := step.run('a', print))\nif (b := step.run('b', print)):\n    await b",
    "awaited steps": "await step.run('a', print)\nawait step.sleep('b', 1)",
    "gathered steps": "await asyncio.gather(step.run('a', print), *[step.run(str(n), print) for n in range(3)])",
    "a step awaited later": "later = step.run('a', print)\nawait step.sleep('b', 1)\nprint(await later)",
    "a step given to a task": "task = asyncio.create_task(step.run('a', print))\nawait task",
    "tasks of a group": "async with asyncio.TaskGroup() as tasks:  # async\n    tasks.create_task(step.run('a', f))",
    "a step returned by an async helper": "async def helper():\n    return step.run('a', str)\nawait (await helper())",
    "a step in a condition of an awaited one": "await (step.run('a', str) if event.data else step.run('b', str))",
    "a step of a plain handler": "step.run('a', print)\nreturn step.run('b', str)['x']",
    "except Exception": "try:\n    step.sleep('a', 1)\nexcept Exception:\n    pass",
    "a bare except that raises again": "try:\n    step.sleep('a', 1)\nexcept:\n    print()\n    raise",
    "a bare except around no step": "try:\n    print()\nexcept:\n    pass\nstep.sleep('a', 1)",
    "a helper that calls itself": "def again():\n    again()\ntry:\n    again()\nexcept:\n    pass",
    "a bare except in a body": "def body():\n    try:\n        print()\n    except:\n        pass\nstep.run('a', body)",
    "a finally that goes on": "try:\n    step.sleep('a', 1)\nfinally:\n    print()",
    "a finally with a loop": "try:\n    step.sleep('a', 1)\nfinally:\n    for _ in [1]:\n        break",
    "a return in a function of a finally": "try:\n    step.sleep('a', 1)\nfinally:\n    print(lambda: (yield))",
    "suppress Exception": "with contextlib.suppress(ValueError):\n    step.sleep('a', 1)",
    "a silenced line": "send_event('a/b')  # durable: ok",
    "a silenced line that says why": "print(timezone.now())  # durable: ok, only logged",
    "a silenced call of several lines": "send_event(\n    'a/b',  # durable: ok\n)",
    "a silenced clause": "try:\n    step.sleep('a', 1)\nexcept:  # durable: ok\n    pass",
}


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        pytest.param(kind, body, id=f"{kind.name}: {name}")
        for kind, cases in WRONG.items()
        for name, body in cases.items()
    ],
)
def test_a_mistake_is_found_at_its_line(kind: Kind, body: str, load: Load) -> None:
    findings = find(_handler_of(load, body))

    assert _lines(findings) == _marked(body)
    assert {found.kind for found in findings} == {kind}


@pytest.mark.parametrize("body", [pytest.param(body, id=name) for name, body in RIGHT.items()])
def test_what_is_right_is_not_found(body: str, load: Load) -> None:
    assert find(_handler_of(load, body)) == []


MESSAGES = {
    "Order.objects.create()": (
        "Order.objects.create() stands outside a step: it happens in every pass",
        'Do it in a step: step.atomic("an-id", function) writes exactly once.',
    ),
    "for _ in [1]:\n    send_event('a/b')": (
        "send_event() stands outside a step: it happens in every pass, and in each round of its loop",
        'Use step.send_event("an-id", Event(…)): it sends exactly once.',
    ),
    "print(timezone.now())": (
        "timezone.now() stands outside a step: it gives another value in every pass",
        'Use step.now(), or take the time in a step: step.run("an-id", timezone.now).',
    ),
    "time.sleep(3)": (
        "time.sleep() stands outside a step: it holds up a worker, in every pass",
        'Use step.sleep("an-id", duration): the run waits without a worker.',
    ),
    "found = []\nstep.run('find', lambda: found.append(1))\nprint(found)": (
        "The body of step 'find' changes 'found', which is read outside it: later passes do not call the body, so the "
        "change is lost",
        'Return the value from the body: found = step.run("find", …).',
    ),
    "when = timezone.now()\nstep.sleep_until('tomorrow', when)": (
        "The moment of sleep_until 'tomorrow' moves: timezone.now() at line 12 gives another value in every pass, and "
        "the first one stays",
        'Use step.sleep("tomorrow", duration) to wait from now, or compute the moment in a step: '
        'when = step.run("an-id", function).',
    ),
    "step.run('a', print)  # async": (
        "step.run('a') is not awaited, so nothing waits for it",
        "Write await step.run(…), or give it to asyncio.gather() or a TaskGroup.",
    ),
    "try:\n    step.sleep('a', 1)\nexcept BaseException:\n    pass": (
        "except BaseException: also catches the suspension of step 'a'",
        "Write except Exception: in its place.",
    ),
    "try:\n    step.sleep('a', 1)\nfinally:\n    return 1": (
        "return in a finally block replaces the suspension of step 'a'",
        "Move the return behind the try statement.",
    ),
}


@pytest.mark.parametrize("body", MESSAGES)
def test_a_finding_says_what_happens_and_what_to_write(body: str, load: Load) -> None:
    [found] = find(_handler_of(load, body))

    assert (found.message, found.remedy) == MESSAGES[body]


def test_a_handler_inside_a_function_is_read_too(load: Load) -> None:
    module = load(
        'def outer():\n    def handler(e, s):\n        """A\ntext."""\n        send_event("a")\n    return handler\n'
    )

    [found] = find(module.outer())

    assert _lines([found]) == ['send_event("a")']


def test_a_comment_in_a_handler_inside_a_function_silences_its_line(load: Load) -> None:
    source = (
        "def outer():\n    def handler(e, s):\n        e.save()  # durable: ok\n        s.save()\n    return handler\n"
    )

    [found] = find(load(source).outer())

    assert _lines([found]) == ["s.save()"]


def test_a_text_that_reads_like_the_comment_silences_nothing(load: Load) -> None:
    assert len(find(_handler_of(load, "send_event('# durable: ok')"))) == 1


def test_a_decorated_handler_is_read_where_it_was_written(load: Load) -> None:
    wrap = "def wrap(f):\n    @functools.wraps(f)\n    def inner(*a):\n        return f(*a)\n    return inner\n"
    module = load(f"{wrap}@wrap\ndef handler(e, s):\n    e.save()\n")

    assert _lines(find(module.handler)) == ["e.save()"]


def test_what_a_handler_takes_from_an_outer_function_is_known(load: Load) -> None:
    module = load("def outer(tell):\n    def handler(e, s):\n        tell('a')\n    return handler\n")

    assert len(find(module.outer(module.send_event))) == 1
    assert find(module.outer(print)) == []


def test_a_name_bound_after_the_handler_is_no_fault(load: Load) -> None:
    module = load("def outer():\n    def handler(e, s):\n        later()\n    return handler\n    later = 1\n")

    assert find(module.outer()) == []


def test_the_step_object_may_have_any_name(load: Load) -> None:
    module = load("def handler(e, do):\n    mine = do.options(retries=1)\n    mine.sleep_until('a', timezone.now())\n")

    assert [found.kind for found in find(module.handler)] == [Kind.MOVING_SLEEP_UNTIL]


def test_the_decorator_of_the_handler_is_not_its_code(load: Load) -> None:
    module = load("def mark(value):\n    return lambda f: f\n@mark(timezone.now())\ndef handler(e, s):\n    pass\n")

    assert find(module.handler) == []


def test_a_handler_without_source_is_passed_over() -> None:
    namespace: dict[str, Any] = {}
    exec("def handler(event, step):\n    event.save()", namespace)

    assert find(namespace["handler"]) == []


def test_a_handler_that_wraps_no_function_is_passed_over() -> None:
    def handler(event: Any, step: Any) -> None: ...

    handler.__wrapped__ = object()  # type: ignore[attr-defined]

    assert find(handler) == []


@pytest.mark.parametrize("source", ["", "def other(e, s):\n    e.save()\n", "def handler(:\n"])
def test_a_file_that_changed_since_is_passed_over(source: str, load: Load) -> None:
    handler = _handler_of(load, "event.save()")
    Path(handler.__code__.co_filename).write_text(source)

    assert find(handler) == []


def test_each_kind_has_a_check_of_its_own() -> None:
    numbers = [kind.value for kind in Kind]

    assert len(set(numbers)) == len(numbers)
    assert all(re.fullmatch(r"W\d{3}", number) for number in numbers)
