"""docs/glossary.md explains words that are used."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
GLOSSARY = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| (.+?) \| (.+?) \| (?:`(\w+)`)? ?\|$", GLOSSARY, re.MULTILINE)
PACKAGES = ("domain", "application", "projections", "interfaces", "clients/python/holdfast")


def test_every_word_is_in_the_code_under_the_name_that_is_given() -> None:
    sources = "\n".join(
        path.read_text(encoding="utf-8")
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.suffix in (".py", ".sql")
    )
    used = set(re.findall(r"\w+", sources)) | {"interfaces"}
    for word, _, name in ROWS:
        # A function's name may go on: ``upcast_v1_v2``.
        assert name in used or not name or any(each.startswith(f"{name}_") for each in used), word


def test_the_words_are_sorted_and_each_is_there_once() -> None:
    words = [word for word, _, _ in ROWS]
    assert len(words) > 50
    assert words == sorted(words, key=str.lower)
    every = [each for word in words for each in word.split(", ")]
    assert len(every) == len(set(every))


def test_every_line_of_the_table_is_read() -> None:
    lines = [line for line in GLOSSARY.splitlines() if line.startswith("| ")]
    assert len(lines) == len(ROWS) + 1  # the head
