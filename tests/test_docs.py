"""The documentation says what the code says."""

from __future__ import annotations

import ast
import dataclasses
import re
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import django_durable as durable
from django_durable import exceptions
from django_durable.conf import Settings
from django_durable.management.subcommands import SUBCOMMANDS
from tests.test_layers import BAD_SAMPLES

if TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY = Path(__file__).parent.parent
PACKAGE = REPOSITORY / "django_durable"
DOCS = REPOSITORY / "docs"
INTERNALS = sorted((DOCS / "internals").glob("*.md"))
PAGES = [REPOSITORY / "README.md", REPOSITORY / "example_project/README.md", *sorted(DOCS.rglob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
CHECK = re.compile(r'"(?:durable\.)?([EIW]\d{3})"')
SHOWN_BY = re.compile(r"(?:`(tests/[\w/.]+)`|\bthe same)((?:, (?:targets? )?`(?!tests/)[\w-]+`)*)")
WHOLE_LINK = re.compile(r"\[[^\]]*\]\([^)]*\)")
SOURCE = re.compile(r"(?:^Source: |, )`(django_durable/[\w/.]+)`", re.MULTILINE)
GLOSSARY = DOCS / "glossary.md"
GLOSSARY_FILE = re.compile(r"^`([\w/]+\.py)` · ", re.MULTILINE)
WORD = re.compile(r"^### (.+)$", re.MULTILINE)
NOT_PROSE = re.compile(r"^ *```.*?^ *```|^(?:#|Source:| *>).*?$|`[^`\n]*`", re.MULTILINE | re.DOTALL)
#: Words of the glossary that mean nothing else, so that their first use can be told.
WORDS = {
    word: re.compile(rf"\b(?:{forms})\b")
    for word, forms in {
        "attempt": "attempts?",
        "branch": "branch(?:es)?",
        "child": "child(?:ren)?",
        "group": "groups?",
        "handler": "[Hh]andlers?",
        "heartbeat": "heartbeat",
        "ingest": "ingest(?:s|ed)?",
        "lease": "leases?",
        "look-back": "looks? back",
        "memo": "memos?",
        "park": "park(?:s|ed)?",
        "pass": "(?:each|every|first|later|one) pass",
        "scheduler": "schedulers?",
        "settle": "settle[sd]?",
        "suspend": "suspen(?:ds|sion)",
        "trigger": "triggers?",
        "worker": "workers?",
    }.items()
}
ROW = re.compile(r"^\| `(\w+)` \|", re.MULTILINE)
STATION = re.compile(r"^- `([\w/]+\.py)`: (.+(?:\n  .+)*)$", re.MULTILINE)
ROOM = re.compile(r"^\| `([\w/]+)/` \| ([^|]+\?)", re.MULTILINE)
BEHAVIOUR = re.compile(r"^\| .+\? \| `([\w/]+\.py)` \|$", re.MULTILINE)

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))


def _trees(page: Path) -> Iterator[ast.Module]:
    for number, block in enumerate(BLOCK.findall(page.read_text()), 1):
        yield ast.parse(textwrap.dedent(block), f"{page.name}, Python block {number}")


def _attributes_of(name: str, tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == name:
            yield node.attr


def _imports_of_ours(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "django_durable":
            yield from (alias.name for alias in node.names)


def _rows(page: str) -> list[str]:
    return ROW.findall((DOCS / page).read_text())


@each_page
def test_python_in_the_docs_compiles(page: Path) -> None:
    for tree in _trees(page):
        compile(tree, page.name, "exec")


@each_page
def test_names_in_the_docs_exist_in_the_public_api(page: Path) -> None:
    for tree in _trees(page):
        assert {*_attributes_of("durable", tree), *_imports_of_ours(tree)} <= {*durable.__all__}
        assert [name for name in _attributes_of("step", tree) if not hasattr(durable.Step, name)] == []


@each_page
def test_links_in_the_docs_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(page.read_text()):
        file, _, anchor = link.partition("#")
        if "://" not in link:
            target = page.parent / file if file else page
            assert target.exists(), link
            assert not anchor or anchor in _anchors(target), link


def _anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, by the rule of GitHub and MyST."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_page_is_reached_from_the_index() -> None:
    linked = {(DOCS / link.partition("#")[0]).resolve() for link in LINK.findall((DOCS / "index.md").read_text())}

    assert {*DOCS.rglob("*.md")} - {DOCS / "index.md"} <= linked


def test_the_files_that_pages_name_as_their_source_exist() -> None:
    named = {file for page in DOCS.rglob("*.md") for file in SOURCE.findall(page.read_text())}
    told = {f"django_durable/{file}" for file in GLOSSARY_FILE.findall(GLOSSARY.read_text())}

    assert len(named) > 40
    assert len(told) > 20
    assert [file for file in sorted(named | told) if not (REPOSITORY / file).exists()] == []


def test_a_page_links_each_word_of_the_glossary_where_it_is_first_used() -> None:
    bare = [
        f"{page.relative_to(DOCS)}: {word}"
        for page in sorted(DOCS.rglob("*.md"))
        if page != GLOSSARY and page.parent.name != "internals"
        for word in WORDS
        if _is_bare(word, _prose(page))
    ]

    assert bare == []


def test_a_page_leads_to_each_word_of_the_glossary() -> None:
    links = {link for page in DOCS.rglob("*.md") if page != GLOSSARY for link in LINK.findall(page.read_text())}
    linked = {link.partition("#")[2] for link in links if "glossary.md#" in link}

    assert [word for word in WORD.findall(GLOSSARY.read_text()) if word.replace(" ", "-") not in linked] == []


def _prose(page: Path) -> str:
    """Return the page with its code, headings, quotations and sources left out."""
    return NOT_PROSE.sub("", page.read_text())


def _is_bare(word: str, prose: str) -> bool:
    """Tell whether the text uses the word before it links it, to the glossary or to the page that explains it."""
    use = WORDS[word].search(prose)
    if use is None or f"glossary.md#{word})" in prose[: use.start()]:
        return False
    return not any(link.start() < use.start() < link.end() for link in WHOLE_LINK.finditer(prose))


def test_the_messages_that_pages_quote_are_those_of_the_code() -> None:
    sources = [file.read_text() for file in (REPOSITORY / "django_durable/core").rglob("*.py")]
    templates = [re.compile(each) for text in sources for each in _templates(ast.parse(text))]
    pages = [page for page in DOCS.rglob("*.md") if page.parent.name != "internals"]
    quoted = [message for page in pages for message in _quoted(page)]

    assert len(quoted) > 10
    assert [each for each in quoted if not any(known.fullmatch(each) for known in templates)] == []


def _quoted(page: Path) -> Iterator[str]:
    """Yield the messages and hints that a page quotes, without the full stop that a check adds."""
    for quotation in re.findall(r"^ *> .*(?:\n *> .*)*", page.read_text(), re.MULTILINE):
        yield from " ".join(re.split(r"\n? *> ", quotation)).strip().split(". HINT: ")


def _templates(tree: ast.AST) -> Iterator[str]:
    """Yield a pattern for each text of the code that is long enough to be a message."""
    for node in ast.walk(tree):
        parts = node.values if isinstance(node, ast.JoinedStr) else [node]
        texts = [each.value if isinstance(each, ast.Constant) else None for each in parts]
        if sum(len(text) for text in texts if isinstance(text, str)) > 20:
            yield "".join(_literally(text) if isinstance(text, str) else ".*" for text in texts)


def _literally(text: str) -> str:
    return ".*".join(map(re.escape, re.split("%[rs]", text)))


def test_the_first_example_of_the_readme_defines_the_function_of_the_example_project() -> None:
    [tree, *_] = _trees(REPOSITORY / "README.md")
    shown = next(node for node in tree.body if isinstance(node, ast.FunctionDef))
    source = (REPOSITORY / "example_project/accounts/durable.py").read_text()
    real = next(node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef))

    assert shown.name == real.name
    assert [ast.unparse(each) for each in shown.decorator_list] == [ast.unparse(each) for each in real.decorator_list]
    assert [*_attributes_of("step", shown)] == [*_attributes_of("step", real)]


def test_the_settings_page_lists_the_settings_in_the_order_of_the_code() -> None:
    assert _rows("reference/settings.md") == [field.name.upper() for field in dataclasses.fields(Settings)]


def test_the_commands_page_lists_the_sub_commands() -> None:
    assert _rows("reference/commands.md") == list(SUBCOMMANDS)


def test_the_checks_page_lists_every_check() -> None:
    package = Path(durable.__file__).parent
    ids = {each for file in package.rglob("*.py") for each in CHECK.findall(file.read_text())}

    assert _rows("reference/checks.md") == sorted(ids)


def test_the_errors_page_lists_every_error() -> None:
    errors = [each for each in vars(exceptions).values() if isinstance(each, type) and issubclass(each, Exception)]

    assert sorted(_rows("reference/errors.md")) == sorted(error.__name__ for error in errors)


def test_the_faults_page_names_tests_that_exist() -> None:
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", (DOCS / "internals/faults.md").read_text())
    paths = [(REPOSITORY / (file if "/" in file else f"tests/faults/{file}"), test) for file, test in named]

    assert named
    assert [test for path, test in paths if f"def {test}(" not in path.read_text()] == []


def test_the_faults_page_says_of_each_fault_which_test_shows_it_or_why_none_does() -> None:
    rows = re.findall(
        r"^\| (\d+) \| (.+) \| (.+) \| (.+) \|$", (DOCS / "internals/faults.md").read_text(), re.MULTILINE
    )

    assert [int(number) for number, *_ in rows] == list(range(1, 81))
    assert [number for number, *_, shown in rows if len(shown) < 20] == []


def test_the_threat_model_names_tests_that_there_are() -> None:
    page, shown = (DOCS / "internals/threat-model.md").read_text(), Path()
    named = SHOWN_BY.findall(page)

    for file, parts in named:
        shown = REPOSITORY / file if file else shown
        text = (shown / "targets.py" if shown.is_dir() else shown).read_text()
        assert [part for part in re.findall(r"`([\w-]+)`", parts) if part not in text] == [], (shown, parts)
    assert len(named) > 50


def test_the_walk_names_files_and_functions_that_exist() -> None:
    stations = _stations((DOCS / "internals/a-run-file-by-file.md").read_text())

    assert [(file, name) for file, name in stations if name not in _definitions(PACKAGE / file)] == []
    assert len(stations) > 100


def test_the_walk_speaks_of_methods_of_its_stations_only() -> None:
    page = (DOCS / "internals/a-run-file-by-file.md").read_text()

    assert {*re.findall(r"`([A-Z]\w+\.\w+)`", page)} <= {name for _, name in _stations(page)}


def _stations(page: str) -> list[tuple[str, str]]:
    return [(file, name) for file, names in STATION.findall(page) for name in re.findall(r"`([\w.]+)`", names)]


def _definitions(file: Path) -> set[str]:
    """Return the functions, classes and constants of a module, and what its classes define: ``Lease.record``."""
    return {*_defined(ast.parse(file.read_text()), "")}


def _defined(node: ast.Module | ast.ClassDef, prefix: str) -> Iterator[str]:
    for each in node.body:
        if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield f"{prefix}{each.name}"
        if isinstance(each, ast.ClassDef):
            yield from _defined(each, f"{prefix}{each.name}.")
        if isinstance(each, ast.AnnAssign | ast.Assign):
            targets = [each.target] if isinstance(each, ast.AnnAssign) else each.targets
            yield from (f"{prefix}{target.id}" for target in targets if isinstance(target, ast.Name))


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", *(f"docs/internals/{page.name}" for page in INTERNALS)])
def test_files_that_the_internals_name_exist(page: str) -> None:
    text = (REPOSITORY / page).read_text()
    named = re.findall(r"`(?:django_durable/)?([\w.]+(?:/[\w.]+)*/(?:\w+\.(?:py|md))?)`", text)

    assert [path for path in named if not (REPOSITORY / path).exists() and not (PACKAGE / path).exists()] == []


def test_the_map_asks_of_each_room_the_question_of_its_docstring() -> None:
    asked = dict(ROOM.findall((REPOSITORY / "CONTRIBUTING.md").read_text()))
    rooms = {file.parent: ast.get_docstring(ast.parse(file.read_text())) for file in PACKAGE.rglob("__init__.py")}
    questions = {str(room.relative_to(PACKAGE)): text for room, text in rooms.items() if room.name != "migrations"}
    del questions["."]

    assert asked == {room: f"{(text or '').partition('?')[0]}?".replace("``", "`") for room, text in questions.items()}


def test_the_map_leads_to_twenty_behaviours() -> None:
    files = BEHAVIOUR.findall((REPOSITORY / "CONTRIBUTING.md").read_text())

    assert [file for file in files if not (PACKAGE / file).is_file()] == []
    assert len({*files}) == 20


def test_the_map_names_every_law() -> None:
    named = {*re.findall(r"^\| `(\w+)` \|", (REPOSITORY / "CONTRIBUTING.md").read_text(), re.MULTILINE)}

    assert named == {law.__name__ for law in BAD_SAMPLES}
