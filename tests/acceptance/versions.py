"""Other versions of the service, to be served beside this one: a former and a next one."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# The last one whose read models had one schema together.
FORMER = "ff25458"
PACKAGES = ("domain", "application", "projections", "interfaces")


def former(directory: Path) -> Path:
    """The packages of a former commit, out of the wheel that is built of it."""
    tree, wheels, code = (directory / name for name in ("tree", "wheels", "former"))
    tree.mkdir()
    packed = directory / "tree.zip"
    git = ["git", "-c", f"safe.directory={ROOT}", "-C", str(ROOT)]
    try:
        subprocess.run([*git, "archive", "-o", str(packed), FORMER], check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip(f"needs git, and a clone whose history has the commit {FORMER}")
    shutil.unpack_archive(packed, tree)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--no-index", "-w", str(wheels), str(tree)], check=True)
    [wheel] = wheels.iterdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(code)
    return code


def following(directory: Path) -> Path:
    """This version with another column in one read model, and another fold."""
    code = directory / "next"
    for package in PACKAGES:
        shutil.copytree(
            ROOT / package, code / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    _change(
        code / "projections" / "sessions.sql",
        "    status             text        NOT NULL,\n",
        "    status             text        NOT NULL,\n    beats bigint NOT NULL,\n",
    )
    model = code / "projections" / "sessions.py"
    _change(model, "COLUMNS = (\n", 'COLUMNS = (\n    "beats",\n')
    _change(model, '    name = "sessions"\n', '    name = "sessions"\n    version = 2\n')
    _change(model, '        self.patches = {"session_heartbeat": _beaten}\n', "")
    _change(
        model, '        "status": "active",\n', '        "status": "active",\n        "beats": 0,\n'
    )
    _change(
        model,
        '    row = there(row)\n    row["last_heartbeat"]',
        '    row = there(row)\n    row["beats"] += 1\n    row["last_heartbeat"]',
    )
    return code


def _change(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{path.name} is not what it was: {old!r}"
    path.write_text(text.replace(old, new), encoding="utf-8")
