"""docs/architecture.md draws the rooms as the imports are."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path

import grimp

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
PACKAGES = ("domain", "application", "projections", "interfaces")
# What is in no room of its own is in that of its package; the faces share what lies in theirs.
ROOMS = {
    "domain": "domain",
    "application": "application",
    "application.engine": "engine",
    "application.eventstore": "eventstore",
    "projections": "projections",
    "projections.kernel": "kernel",
    "interfaces": "faces",
    "interfaces.operations": "operations",
    "interfaces.replies": "replies",
    "interfaces.access": "access",
    "interfaces.host": "host",
}
Arrows = set[tuple[str, str]]


def room(module: str) -> str:
    """The room that a module is in."""
    inside = [name for name in ROOMS if f"{module}.".startswith(f"{name}.")]
    return ROOMS[max(inside, key=len)]


def imports() -> Arrows:
    """Which room imports which."""
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    found = {
        (room(module), room(imported))
        for module in graph.modules
        for imported in graph.find_modules_directly_imported_by(module)
    }
    return {(above, below) for above, below in found if above != below}


def closed(arrows: Arrows) -> Arrows:
    """The arrows, and those that follow from them."""
    whole = set(arrows)
    names = {name for arrow in arrows for name in arrow}
    for between, above, below in product(names, repeat=3):
        if (above, between) in whole and (between, below) in whole:
            whole.add((above, below))
    return whole


def reduced(arrows: Arrows) -> Arrows:
    """The arrows that do not follow from others."""
    whole = closed(arrows)
    names = {name for arrow in arrows for name in arrow}
    assert not [name for name in names if (name, name) in whole], "a circle of imports"
    return {
        (above, below)
        for above, below in arrows
        if not any((above, n) in whole and (n, below) in whole for n in names)
    }


def test_the_arrows_are_the_imports() -> None:
    drawn = set(re.findall(r"^    (\w+) --> (\w+)$", DOCUMENT, re.MULTILINE))
    assert drawn == reduced(imports())


def test_every_room_is_drawn_with_its_folders() -> None:
    boxes = dict(re.findall(r'^    (\w+)\["(.+?)<br>', DOCUMENT, re.MULTILINE))
    assert set(boxes) == set(ROOMS.values())
    for name, folders in boxes.items():
        for folder in folders.split(", "):
            assert (ROOT / folder).is_dir(), folder
            assert room(folder.replace("/", ".")) == name
    assert {
        path.name for path in (ROOT / "interfaces").iterdir() if (path / "__init__.py").is_file()
    } == {
        folder.partition("/")[2]
        for folders in boxes.values()
        for folder in folders.split(", ")
        if folder.startswith("interfaces/")
    }


def test_every_file_that_is_named_exists() -> None:
    for path in re.findall(
        r"`((?:domain|application|projections|interfaces|clients|tests)/[\w/.]*)`", DOCUMENT
    ):
        assert (ROOT / path).exists(), path
