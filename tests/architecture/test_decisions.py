"""Every decision page has a number of its own, a title, and a row in the index."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "docs" / "decisions"
PAGES = sorted(FOLDER.glob("[0-9]*.md"))
INDEX = (FOLDER / "README.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| (\d+) \| \[(.+)\]\((\S+)\) \| (\S+) \| (.+) \|$", re.MULTILINE)
STATUS = re.compile(r"holds|holds in part|replaced by (\d+)")


def test_every_page_is_listed_with_its_number_and_title() -> None:
    listed = [(number, title, file) for number, title, file, _, _ in ROW.findall(INDEX)]
    found = []
    for page in PAGES:
        heading = page.read_text(encoding="utf-8").partition("\n")[0]
        number, title = heading.removeprefix("# ").split(". ", 1)
        assert page.name.startswith(f"{int(number):04}-"), page.name
        found.append((number, title, page.name))
    assert listed == found


def test_no_number_is_given_twice_or_left_out() -> None:
    assert [int(page.name[:4]) for page in PAGES] == list(range(1, len(PAGES) + 1))


def test_every_row_has_a_date_and_a_status() -> None:
    rows = ROW.findall(INDEX)
    for number, _, _, day, status in rows:
        date.fromisoformat(day)
        told = STATUS.fullmatch(status)
        assert told, (number, status)
        if told[1]:
            assert int(number) < int(told[1]) <= len(rows)
