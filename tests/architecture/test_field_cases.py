"""docs/field-cases.md names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TABLE = (ROOT / "docs" / "field-cases.md").read_text(encoding="utf-8")


def test_every_test_that_is_named_exists() -> None:
    """A renamed test is renamed in the table too."""
    for path, test in re.findall(r"`([\w/]*test_\w+\.py)(?:::(test_\w+))?`", TABLE):
        folder = ROOT if "/" in path else ROOT / "tests" / "acceptance"
        source = (folder / path).read_text(encoding="utf-8")
        if test:
            assert re.search(rf"^(async )?def {test}\(", source, re.MULTILINE), f"{path}::{test}"


def test_every_row_names_a_test() -> None:
    """A case without a test comes back."""
    for row in re.findall(r"^\| \d.*$", TABLE, re.MULTILINE):
        assert re.search(r"`[\w/]*test_\w+\.py", row), row
