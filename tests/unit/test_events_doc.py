"""docs/events.md says what the code says."""

from __future__ import annotations

import re
from pathlib import Path

from application.registry import EVENTS
from domain.instances.work_events import CATALOGUE
from interfaces.reference import events_markdown

DOCUMENT = Path(__file__).parents[2] / "docs" / "events.md"
HOW = "Write it anew: python -m interfaces.reference > docs/events.md"


def test_the_reference_of_events_is_up_to_date() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == events_markdown(), HOW


def test_every_event_is_in_the_reference_once() -> None:
    documented = re.findall(r"^\| `(\w+)` \| (.*) \| (.*) \|$", events_markdown(), re.MULTILINE)
    names = [name for name, _, _ in documented]

    assert sorted(names) == sorted({event.event_type for event in EVENTS})
    assert all(about.endswith(".") and fields for _, about, fields in documented)


def test_the_fields_of_the_catalogue_stand_there_with_their_kinds() -> None:
    lines = {
        line.split("`")[1]: line for line in events_markdown().splitlines() if line[:3] == "| `"
    }

    for name, cls in CATALOGUE.items():
        for required in cls.required_fields():
            assert f"**{required}** " in lines[name]
        for optional in cls.optional_fields():
            assert f" {optional} " in lines[name]
    assert "coverage_percent number 0 to 100" in lines["test_passed"]
    assert "passed_count integer ≥ 0" in lines["test_passed"]
    assert "issues_encountered text or list" in lines["epic_completed"]
    assert "files_changed integer ≥ 0 or list of text" in lines["epic_completed"]
    assert "any value" not in events_markdown()
