"""docs/acceptance.md names every criterion of S0 to S3, and tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
ACCEPTANCE = ROOT / "tests" / "acceptance"
FOLDERS = [ACCEPTANCE, ROOT / "clients" / "python" / "tests"]
TABLE = (ROOT / "docs" / "acceptance.md").read_text(encoding="utf-8")
CRITERIA = {
    "S0": ["AC1", "AC2", "AC3", "AC4", "AC5", "AC6", "AC7", "AC8", "AC9"],
    "S1": ["1.1", "1.2", "2.1", "2.2", "2.3", "3.1", "3.2", "4.1", "4.2–4.4", "5"],
    "S2": ["1", "2", "3", "4", "5", "6–9", "10", "11", "12", "13", "14", "15", "16", "17"],
    "S3": ["FR-1", "FR-2", "FR-3", "FR-4", "FR-5", "FR-6"],
}

FILES = ("test_s0_registry.py", "test_s1_hierarchy.py", "test_s2_events.py", "test_s3_claims.py")


def test_every_criterion_has_a_row() -> None:
    rows = re.findall(r"^\| (S\d) (\S+) \|", TABLE, re.MULTILINE)

    assert rows == [(seed, point) for seed, points in CRITERIA.items() for point in points]


def test_every_test_that_is_named_exists() -> None:
    for file, test in re.findall(r"`(test_\w+\.py)::(test_\w+)`", TABLE):
        [found] = [folder / file for folder in FOLDERS if (folder / file).is_file()]
        source = found.read_text(encoding="utf-8")
        assert re.search(rf"^def {test}\(", source, re.MULTILINE), f"{file}::{test}"
    for path in re.findall(r"`(tests/\w+/test_\w+\.py)`", TABLE):
        assert (ROOT / path).is_file(), path


def test_every_test_of_a_criterion_is_in_its_row() -> None:
    """A test's docstring begins with its criterion, and its row names it."""
    rows = dict(re.findall(r"^\| (S\d \S+) \| .*? \| (.*?) \|", TABLE, re.MULTILINE))
    for file in FILES:
        source = (ACCEPTANCE / file).read_text(encoding="utf-8")
        tests = re.findall(
            r'^def (test_\w+)\((?:(?!^def ).)*?\) -> None:\n    """(S\d \S+) ',
            source,
            re.MULTILINE | re.DOTALL,
        )
        assert len(tests) == len(re.findall(r"^def test_", source, re.MULTILINE)), file
        for test, criterion in tests:
            row = rows.get(criterion) or rows[criterion.replace("4.2", "4.2–4.4")]
            assert f"`{file}::{test}`" in row, (test, criterion)
