"""What is built from the repository."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from django_durable import __version__

REPOSITORY = Path(__file__).parent.parent
PACKAGE = REPOSITORY / "django_durable"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target=wheel", f"--directory={folder}"]
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True)
    return ZipFile(next(folder.glob("*.whl")))


def test_the_version_is_written_in_one_place() -> None:
    written = re.compile(rf"""['"]{re.escape(__version__)}['"]""")
    files = [REPOSITORY / "pyproject.toml", *PACKAGE.rglob("*.py")]

    assert [file for file in files if written.search(file.read_text())] == [PACKAGE / "__init__.py"]


def test_the_wheel_holds_the_package_and_nothing_else(wheel: ZipFile) -> None:
    folders = {name.partition("/")[0] for name in wheel.namelist()}

    assert folders == {"django_durable", f"django_durable_functions-{__version__}.dist-info"}


def test_the_wheel_holds_every_file_of_the_package(wheel: ZipFile) -> None:
    files = {file.relative_to(REPOSITORY).as_posix() for file in PACKAGE.rglob("*") if file.is_file()}

    assert {file for file in files if "__pycache__" not in file} <= set(wheel.namelist())


def test_the_wheel_says_that_it_is_typed(wheel: ZipFile) -> None:
    assert "django_durable/py.typed" in wheel.namelist()


def test_the_wheel_carries_the_license(wheel: ZipFile) -> None:
    assert any(name.endswith("/licenses/LICENSE") for name in wheel.namelist())


def test_the_versions_that_are_promised_are_the_versions_that_are_tested() -> None:
    tested = re.findall(r"^ +py3(\d+)-django(\d)(\d+)$", (REPOSITORY / "tox.ini").read_text(), re.MULTILINE)
    promise = (REPOSITORY / "pyproject.toml").read_text()
    workflow = (REPOSITORY / ".github/workflows/ci.yml").read_text()
    pythons = {python for python, _, _ in tested}
    djangos = {f"{major}.{minor}" for _, major, minor in tested}

    assert {*re.findall(r"Python :: 3\.(\d+)", promise)} == pythons
    assert {*re.findall(r"^ +3\.(\d+)$", workflow, re.MULTILINE)} == pythons
    # Classifiers of the newest Django come later than that Django.
    assert {*re.findall(r"Django :: (\d\.\d)", promise)} <= djangos
    assert re.findall(r"Django>=(\d\.\d)", promise) == [min(djangos)]
