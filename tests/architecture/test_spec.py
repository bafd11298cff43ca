"""docs/spec.md says what exists: whatever has no mark *not built yet* can be used."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from holdfast.cli.app import app as desk
from interfaces.host.server import app as command
from interfaces.host.settings import Settings
from interfaces.operations import OPERATIONS

ROOT = Path(__file__).parents[2]
SPEC = (ROOT / "docs" / "spec.md").read_text(encoding="utf-8")
MARK = "*not built yet*"
# Served beside the operations table.
OPEN = {"/health", "/api/docs"}
ROOMS = ("domain", "application", "projections", "interfaces", "clients", "tests", "bench", "demo")


def section(number: int) -> str:
    """The text of a section, with its heading."""
    found = re.search(rf"^## {number}\. .*?(?=^## |\Z)", SPEC, re.MULTILINE | re.DOTALL)
    assert found
    return found[0]


def rows(text: str) -> Iterator[str]:
    """The rows of the tables in a text, without their heads."""
    lines = text.splitlines()
    for before, line in pairwise(lines):
        if line.startswith("|") and before.startswith("|") and not line.startswith("|---"):
            yield line


def bare(path: str) -> str:
    """A path whose parameters have no names."""
    return re.sub(r"\{[^}]*\}", "{}", path)


SERVED = {bare(operation.path) for operation in OPERATIONS} | OPEN


def paths(row: str) -> Iterator[str]:
    """The paths that a row of section 9 names; short ones go on from the one before them."""
    full = ""
    for token in re.findall(r"`(/[^`]*)`", row.split("|")[2]):
        path = bare(token)
        if path.startswith("/api/") or not full:
            full = path
            yield path
        else:
            longer = [full + path, full.rpartition("/")[0] + path, f"{full}/{{}}{path}"]
            yield next((known for known in longer if known in SERVED), longer[0])


def test_the_sections_keep_their_numbers() -> None:
    numbers = re.findall(r"^## (\d+)\. ", SPEC, re.MULTILINE)
    assert numbers == [str(number) for number in range(1, 23)]


def test_every_section_that_is_cited_exists() -> None:
    for room in ROOMS:
        for path in (ROOT / room).rglob("*.*"):
            if path.suffix in (".py", ".sql", ".md") and ".venv" not in path.parts:
                for cited in re.findall(r"\bspec (\d+)", path.read_text(encoding="utf-8")):
                    assert 1 <= int(cited) <= 22, f"{path}: spec {cited}"


def test_every_path_is_served_unless_it_is_marked() -> None:
    for row in rows(section(9)):
        for path in paths(row):
            assert (path in SERVED) == (MARK not in row), path


def test_every_path_that_is_served_is_there() -> None:
    told = {path for row in rows(section(9)) for path in paths(row)}
    assert SERVED - told == set()


def test_the_tools_are_those_of_the_operations_table() -> None:
    names = re.findall(r"`(?:mcp_meta|…)_(\w+)`", section(10))
    assert sorted(names) == sorted(
        operation.tool.name.removeprefix("mcp_meta_") for operation in OPERATIONS if operation.tool
    )


def test_every_setting_exists_unless_it_is_marked() -> None:
    for row in rows(section(14)):
        for name in re.findall(r"`([A-Z_]+)`", row.split("|")[1]):
            assert (name.lower() in Settings.model_fields) == (MARK not in row), name


def test_every_command_is_there() -> None:
    """`holdfast …` in section 11, and nothing that is not registered."""
    [listed] = [line for line in section(11).split("\n- ") if line.startswith("`holdfast status")]
    told = {part.split()[0] for part in listed.split("`")[1].removeprefix("holdfast ").split("|")}
    known = {each.name for each in desk.registered_commands}
    assert told | {"run"} == known


@pytest.mark.parametrize("text", ["keys", "verify", "archive", "backup", "alerts", "distribute"])
def test_what_is_marked_is_not_built(text: str) -> None:
    """Whoever builds one of these takes its marks away."""
    names = {
        each.name or getattr(each.callback, "__name__", "") for each in command.registered_commands
    }
    assert text not in names
