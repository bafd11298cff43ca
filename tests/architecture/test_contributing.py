"""CONTRIBUTING.md's recipes are whole: who follows one on a copy of the tree has nothing red.

Only the files that a recipe lists are changed; a recipe that leaves one out fails here.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
COPIED = (
    *("domain", "application", "projections", "interfaces", "clients", "tests", "docs"),
    *("pyproject.toml", ".env.example", "README.md", "Makefile", "CONTRIBUTING.md"),
)
# What is to be put before the first occurrence of a text; a text that is "" is the end of the file.
Before = tuple[str, str]
# A file's change: what is put where, the whole of a new file, or the module that writes it.
Change = Sequence[Before] | str | None
# The files that a command of the guide writes anew.
WRITTEN = {
    "docs/events.md": "interfaces.reference",
    "tests/contracts/events.json": "tests.unit.test_event_contract",
    "tests/contracts/folds.json": "tests.architecture.test_read_models",
}

EVENT: Mapping[str, Change] = {
    "domain/machines/machine.py": [
        (
            "class MachineRemoved(",
            'class MachineRenamed(MachineEvent):\n    """The machine has another host name."""\n\n'
            '    event_type = "machine_renamed"\n    hostname: str\n\n'
            "    def change(self, machine: Machine) -> None:\n"
            "        machine.hostname = self.hostname\n\n\n",
        ),
        ("    MachineRemoved,\n)", "    MachineRenamed,\n"),
    ],
    "projections/machines.py": [
        (
            "FOLDS: dict",
            "def _renamed(row: Row | None, event: Recorded) -> Row:\n"
            '    return there(row) | {"hostname": event.event_data["hostname"]}\n\n\n',
        ),
        ('    "machine_removed": _removed', '    "machine_renamed": _renamed,\n'),
        ("    needs = (", "    version = 2\n"),
    ],
    "tests/contracts/events.json": None,
    "tests/contracts/folds.json": None,
    "docs/events.md": None,
}
WORK_EVENT: Mapping[str, Change] = {
    "domain/instances/work_events.py": [
        (
            "# Deployments\n",
            'class TagCreated(GitEvent):\n    """A version was tagged."""\n\n    tag: Text\n\n\n',
        )
    ],
    "projections/instances.py": [('        "command_logged",\n', '        "tag_created",\n')],
    "tests/unit/test_work_events.py": [
        ('        "pr_created": [', '        "tag_created": ["tag"],\n')
    ],
    "tests/contracts/events.json": None,
    "tests/contracts/folds.json": None,
    "docs/events.md": None,
}
READ_MODEL: Mapping[str, Change] = {
    "projections/hostnames.py": '''"""Which host name each machine has."""

from __future__ import annotations

from application.eventstore.mapper import Recorded
from projections.kernel.readmodel import Fold, Row, Table, there


class Hostnames(Table):
    """One row a machine."""

    name = "hostnames"
    categories = ("machine",)
    key = ("machine_id",)
    columns = ("namespace", "machine_id", "hostname")
    ignored = frozenset({"machine_heartbeat"})

    def __init__(self) -> None:
        super().__init__()
        self.folds = FOLDS


def _registered(row: Row | None, event: Recorded) -> Row:
    return {"hostname": event.event_data["hostname"]}


def _updated(row: Row | None, event: Recorded) -> Row:
    row = there(row)
    return row | {"hostname": event.event_data.get("hostname", row["hostname"])}


def _removed(row: Row | None, event: Recorded) -> None:
    return None


FOLDS: dict[str, Fold] = {
    "machine_registered": _registered,
    "machine_updated": _updated,
    "machine_removed": _removed,
}
''',
    "projections/hostnames.sql": """-- name: create
CREATE TABLE hostnames (
    namespace  text NOT NULL,
    machine_id text NOT NULL,
    hostname   text NOT NULL,
    PRIMARY KEY (namespace, machine_id)
);
""",
    "projections/__init__.py": [
        ("from projections.instances import", "from projections.hostnames import Hostnames\n"),
        ("    Recovery(),\n", "    Hostnames(),\n"),
    ],
    "pyproject.toml": [("work_items | dead_letters", "hostnames | ")],
    "tests/contracts/folds.json": None,
}
COMMAND: Mapping[str, Change] = {
    "domain/machines/machine.py": [
        (
            "    def remove(",
            "    def rename(self, at: datetime, hostname: str) -> None:\n"
            '        """Give it another host name."""\n        self.require_known()\n'
            "        if hostname != self.hostname:\n"
            "            self.record(MachineUpdated, at, hostname=hostname)\n\n",
        )
    ],
    "application/machines.py": [
        (
            "class RemoveMachine(",
            'class RenameMachine(Command):\n    """Give a machine another host name."""\n\n'
            "    machine_id: Sought\n    hostname: Id\n\n\n",
        ),
        (
            "def remove(",
            "def rename(work: UnitOfWork, command: RenameMachine) -> Reply:\n"
            "    work.load(Machine, command.machine_id).rename(work.now, command.hostname)\n"
            "    return Reply({}, 204)\n\n\n",
        ),
        ("    RemoveMachine: remove", "    RenameMachine: rename,\n"),
    ],
    "interfaces/operations/sessions.py": [
        (
            '    command(\n        "machine_remove",',
            '    command(\n        "machine_rename",\n        "POST",\n'
            '        f"{_MACHINE}/rename",\n        machine_commands.RenameMachine,\n'
            "        204,\n    ),\n",
        )
    ],
    "docs/spec.md": [
        (
            "| POST GET | `/api/instances` |",
            "| POST | `/api/machines/{id}/rename` | `hostname*` |\n",
        )
    ],
}
SETTING: Mapping[str, Change] = {
    "interfaces/host/settings.py": [
        (
            "    retention_days:",
            "    read_connections: Annotated[int, Field(ge=1, le=100)] = 8\n",
        )
    ],
    "interfaces/host/bootstrap.py": [
        ("READ_CONNECTIONS,\n", "settings.read_connections or "),
    ],
    ".env.example": [("INSTANCE_TYPES=", "# How many queries run at once.\nREAD_CONNECTIONS=8\n")],
}

ARCHITECTURE = "tests/architecture/test_"
EVENTS = (
    f"{ARCHITECTURE}read_models.py",
    "tests/unit/test_event_contract.py",
    "tests/unit/test_events_doc.py",
    "tests/unit/test_work_events.py",
)
RENAMED = """
from datetime import UTC, datetime
from domain.machines.machine import Machine
machine, now = Machine(id="machine-m"), datetime.now(UTC)
machine.register(now, "here", None, {})
machine.rename(now, "there")
assert machine.hostname == "there"
"""
LOADED = """
from interfaces.host.settings import Settings
assert Settings.load({"READ_CONNECTIONS": "3"}).read_connections == 3
"""
# A recipe's heading, an example of it, the tests that it must not turn red, what works then.
RECIPES = [
    ("An event type", EVENT, (*EVENTS, "tests/unit/test_machine.py"), ""),
    ("An event type that agents record", WORK_EVENT, EVENTS, ""),
    ("A read model", READ_MODEL, (f"{ARCHITECTURE}read_models.py", f"{ARCHITECTURE}rooms.py"), ""),
    (
        "A command",
        COMMAND,
        (f"{ARCHITECTURE}api_document.py", f"{ARCHITECTURE}spec.py", f"{ARCHITECTURE}errors.py"),
        RENAMED,
    ),
    ("A setting", SETTING, (f"{ARCHITECTURE}settings.py", f"{ARCHITECTURE}spec.py"), LOADED),
]


def listed(heading: str) -> list[str]:
    """The files that a recipe lists: what each of its numbered lines begins with."""
    found = re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", GUIDE, re.MULTILINE | re.DOTALL)
    assert found, heading
    return re.findall(r"^\d+\. `([^`]+)`", found[1], re.MULTILINE)


def run(copy: Path, *command: str) -> str:
    """What a command says in the copy; it must succeed."""
    environ = {**os.environ, "PYTHONPATH": f"{copy}:{copy / 'clients' / 'python'}"}
    done = subprocess.run(
        [sys.executable, *command],
        cwd=copy,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def change(file: Path, edits: Sequence[Before]) -> None:
    """Put each text where it belongs; the place must be there."""
    source = file.read_text(encoding="utf-8")
    for place, text in edits:
        assert place in source, f"{file.name} has changed; so must this test: {place!r}"
        source = source.replace(place, text + place, 1)
    file.write_text(source, encoding="utf-8")


@pytest.mark.parametrize(
    ("heading", "example", "tests", "proof"), RECIPES, ids=[r[0] for r in RECIPES]
)
def test_a_recipe_is_whole(
    heading: str, example: Mapping[str, Change], tests: Sequence[str], proof: str, tmp_path: Path
) -> None:
    files = listed(heading)
    assert set(files) <= set(example)
    for name in COPIED:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", ".venv")
            shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, tmp_path / name)
    for name in files:
        how = example[name]
        if isinstance(how, str):
            (tmp_path / name).write_text(how, encoding="utf-8")
        elif how is not None:
            change(tmp_path / name, how)
    for name in files:
        if example[name] is None:
            written = run(tmp_path, "-m", WRITTEN[name])
            if name.endswith(".md"):
                (tmp_path / name).write_text(written, encoding="utf-8")
            assert WRITTEN[name] in GUIDE
    if "pyproject.toml" in example:
        run(tmp_path, str(Path(sys.executable).with_name("lint-imports")), "--no-cache")
    run(tmp_path, "-c", proof)
    told = run(tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests)
    assert re.search(r"\d+ passed", told)
    assert set(example) == set(files), "the recipe need not list a file"
