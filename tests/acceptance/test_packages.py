"""The service imports its own packages or does not start (decision 21)."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from interfaces.host.packages import PACKAGES, foreign
from tests.acceptance.serving import ROOT, environment

COMMAND = Path(sys.executable).with_name("holdfast-server")


def start(*command: str | Path, path: Path) -> subprocess.CompletedProcess[str]:
    """A start with another folder in front on Python's path."""
    settings = environment({"PORT": "0", "PYTHONPATH": str(path)})
    return subprocess.run(
        [*command, "serve"],
        cwd=path,
        env=settings,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("name", ["domain", "application", "projections"])
@pytest.mark.parametrize("form", ["package", "file"])
def test_a_foreign_package_is_named_and_ends_the_start(
    name: str, form: str, tmp_path: Path
) -> None:
    """Exit code 2, both places, what to do; and nothing of the foreign package was run."""
    place = tmp_path / (f"{name}.py" if form == "file" else f"{name}/__init__.py")
    place.parent.mkdir(exist_ok=True)
    place.write_text("print('foreign code ran')\n")

    failed = start(COMMAND, path=tmp_path)

    assert failed.returncode == 2
    assert failed.stdout == ""
    assert f"the package {name} is that of {tmp_path.resolve() / name}" in failed.stderr
    assert f"not the one in {ROOT}" in failed.stderr
    assert "environment of its own" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_the_module_says_the_same_as_the_command(tmp_path: Path) -> None:
    (tmp_path / "domain").mkdir()
    (tmp_path / "domain" / "__init__.py").touch()
    failed = start(sys.executable, "-P", "-m", "interfaces.host.server", path=tmp_path)
    assert failed.returncode == 2
    assert "the package domain is that of" in failed.stderr


def test_packages_that_all_come_from_one_place_are_ours() -> None:
    assert foreign() == []


def test_the_wheel_brings_these_packages_and_no_other(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    [wheel] = tmp_path.glob("holdfast_server-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.partition("/")[0] for name in names if ".dist-info/" not in name} == set(PACKAGES)
    assert [name for name in names if name.endswith("licenses/LICENSE")]


@pytest.mark.parametrize(
    "document", ["README.md", *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))]
)
def test_every_documented_way_of_installing_uses_an_environment_of_its_own(document: str) -> None:
    """The service's packages have names that others use too."""
    for line in (ROOT / document).read_text(encoding="utf-8").splitlines():
        if re.search(r"pip3? install.*(holdfast-server|\s'?\.(\[|\s|$|'))", line):
            assert re.search(r"\S/bin/pip3? install|pipx", line), line
