"""docs/acceptance.md names every criterion, and tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TABLE = (ROOT / "docs" / "acceptance.md").read_text(encoding="utf-8")
# S4's criteria by section, from a to the last.
CRITERIA = {
    "1.1": "f",
    "1.2": "f",
    "1.3": "f",
    "1.4": "f",
    "2.1": "g",
    "2.2": "f",
    "2.3": "f",
    "2.4": "f",
    "3.1": "g",
    "3.2": "f",
    "3.3": "f",
    "3.4": "f",
    "4.1": "f",
    "4.2": "f",
    "4.3": "f",
    "4.4": "f",
    "5.1": "f",
    "5.2": "f",
    "5.3": "f",
    "5.4": "f",
}
FOLDERS = [ROOT / "tests" / "acceptance", ROOT / "clients" / "python" / "tests"]


def test_every_criterion_has_a_row() -> None:
    """From AC-1.1.a to AC-5.4.f none is left out, and none is there twice."""
    rows = re.findall(r"^\| AC-(\d\.\d)\.(\w) \|", TABLE, re.MULTILINE)
    expected = [
        (section, chr(letter))
        for section, last in CRITERIA.items()
        for letter in range(ord("a"), ord(last) + 1)
    ]
    assert [row for row in rows if row[0] in CRITERIA] == expected


def test_every_row_has_a_test_or_says_why_not() -> None:
    """Nothing is claimed by an empty row."""
    for name, test, why in re.findall(
        r"^\| (AC-\S+) \| .*? \| (.*?) \| (.*?) \|$", TABLE, re.MULTILINE
    ):
        assert test or why, name


def test_every_criterion_that_is_cited_is_there() -> None:
    """ "S4 2.2", "S3 FR-5", "S0 AC7": whoever reads one in the code finds what it asks for."""
    known = set(re.findall(r"^\| (S\d \S+) \|", TABLE, re.MULTILINE))
    known |= {f"S2 {number}" for number in range(6, 10)} | {
        f"S1 {n}" for n in ("4.2", "4.3", "4.4")
    }
    known |= {f"S4 {name}" for name in re.findall(r"^\| AC-(\S+) \|", TABLE, re.MULTILINE)}
    known |= {f"S4 {name}" for name in (*CRITERIA, "1", "2", "3", "4", "5")}
    cited = re.compile(r"\bS([0-4]) ((?:AC|FR-)?\d[\d.]*(?:\.[a-g])?)(?![\w-])")
    for room in ("domain", "application", "projections", "interfaces", "clients", "tests", "bench"):
        for path in (ROOT / room).rglob("*.*"):
            if path.suffix in (".py", ".sql"):
                for seed, point in cited.findall(path.read_text(encoding="utf-8")):
                    name = f"S{seed} {point.rstrip('.')}"
                    assert name in known, f"{path}: {name}"


def test_every_test_that_is_named_exists() -> None:
    """A renamed test is renamed in the table too."""
    named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", TABLE)
    assert len(named) > 60
    for file, test in named:
        [path] = [folder / file for folder in FOLDERS if (folder / file).is_file()]
        source = path.read_text(encoding="utf-8")
        assert re.search(rf"^def {test}\(", source, re.MULTILINE), f"{file}::{test}"


def test_every_test_of_a_criterion_is_in_its_row() -> None:
    """A test whose docstring begins with a criterion's number is listed with it."""
    rows = dict(re.findall(r"^\| (AC-\d\.\d\.\w) \| .*? \| (.*?) \|", TABLE, re.MULTILINE))
    for path in [found for folder in FOLDERS for found in folder.glob("test_s4_*.py")]:
        source = path.read_text(encoding="utf-8")
        found = re.findall(
            r'^def (test_\w+)\((?:(?!^def ).)*?\) -> None:\n    """(AC-\d\.\d\.\w)',
            source,
            re.MULTILINE | re.DOTALL,
        )
        for test, criterion in found:
            if criterion[3:6] in CRITERIA:
                assert f"`{path.name}::{test}`" in rows[criterion]
