"""Two type checkers agree on what is right and what is wrong with uses of the public API."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
REPOSITORY = FOLDER.parent.parent

Errors = set[tuple[str, int]]  #: file and line


def _skip_without(tool: str) -> None:
    if importlib.util.find_spec(tool) is None:
        pytest.skip(f'{tool} is not installed: pip install "django-durable-functions[lint]"')


def _output(*command: str) -> str:
    result = subprocess.run([sys.executable, "-m", *command], cwd=REPOSITORY, capture_output=True, text=True)
    return result.stdout or result.stderr


def errors_of_mypy(*files: Path) -> Errors:
    """Return where ``mypy --strict`` sees errors, without this project's own configuration and plugins."""
    _skip_without("mypy")
    options = ("--strict", "--config-file=", "--follow-imports=silent", "--cache-dir=.mypy_cache/typing")
    output = _output("mypy", *options, *map(str, files))
    assert re.search(r"^(Found|Success)", output, re.MULTILINE), output
    found = re.findall(r"^(\S+?\.py):(\d+): error: ", output, re.MULTILINE)
    return {(Path(file).name, int(line)) for file, line in found}


def errors_of_pyright(*files: Path) -> Errors:
    """Return where pyright sees errors."""
    _skip_without("pyright")
    output = _output("pyright", "--pythonpath", sys.executable, "--outputjson", *map(str, files))
    if not output.startswith("{"):
        pytest.skip(f"pyright does not start: {output.strip()[:200]}")
    diagnostics = json.loads(output)["generalDiagnostics"]
    found = [each for each in diagnostics if each["severity"] == "error"]
    return {(Path(each["file"]).name, each["range"]["start"]["line"] + 1) for each in found}


def _marked(*files: Path) -> Iterator[tuple[str, int]]:
    for file in files:
        for number, line in enumerate(file.read_text().splitlines(), 1):
            if "  # E: " in line:
                yield file.name, number


checkers = pytest.mark.parametrize("errors_of", [errors_of_mypy, errors_of_pyright])


@pytest.mark.slow
@checkers
def test_exactly_the_marked_lines_are_errors(errors_of: Callable[..., Errors]) -> None:
    files = (FOLDER / "api.py", FOLDER / "errors.py")
    marked = set(_marked(*files))

    assert len(marked) > 25
    assert sorted(errors_of(*files)) == sorted(marked)


@pytest.mark.slow
@checkers
def test_the_code_of_the_readme_has_no_error(errors_of: Callable[..., Errors], tmp_path: Path) -> None:
    [first, *_] = re.findall(r"^```python\n(.*?)^```", (REPOSITORY / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    example = tmp_path / "readme.py"
    example.write_text(
        first.replace(
            "from .emails import send_email", "def send_email(to: str, *, template: str) -> None: ..."
        ).replace("(event, step)", "(event: durable.Event, step: durable.Step) -> None")
    )

    assert errors_of(example) == set()
