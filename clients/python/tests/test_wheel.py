"""The distribution as others install it: by itself, without anything of the service."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
import venv
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

from tests.acceptance.serving import Api, Server, ok

HERE = Path(__file__).parents[1]
ALLOWED = {"httpx", "platformdirs", "rich", "typer"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the source tree."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=HERE, check=True, capture_output=True)
    [built] = folder.glob("holdfast-*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with the wheel; its dependencies are lent, not copied.

    Nothing is fetched. The folder that is lent has the service's editable installation too, but a
    path file in it takes no effect there.
    """
    home = tmp_path_factory.mktemp("venv") / "env"
    venv.create(home, with_pip=False)
    python = home / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    subprocess.run([*pip, "--no-index", "--no-deps", str(wheel)], check=True, capture_output=True)
    query = "import sysconfig; print(sysconfig.get_path('purelib'))"
    found = subprocess.run([python, "-c", query], check=True, capture_output=True, text=True)
    lent = Path(found.stdout.strip()) / "lent.pth"
    lent.write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    return python


def test_the_wheel_says_what_it_needs_and_it_is_little(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        [name] = [n for n in archive.namelist() if n.endswith("METADATA")]
        metadata = Parser().parsestr(archive.read(name).decode())
        files = archive.namelist()

    needs = metadata.get_all("Requires-Dist") or []
    assert {re.split("[<>=]", need)[0] for need in needs} == ALLOWED
    assert metadata["Requires-Python"] == ">=3.10"
    assert {"holdfast/py.typed", "holdfast/spool.sql", "holdfast/client.py"} <= set(files)
    assert {file.partition("/")[0].partition("-")[0] for file in files} == {"holdfast"}


def test_an_installed_client_works_without_the_service_s_packages(
    python: Path, server: Server, api: Api, tmp_path: Path
) -> None:
    code = """
import json, sys
from importlib.util import find_spec
import holdfast
from holdfast import *

service = ("domain", "application", "projections", "interfaces")
with Client(lenient=True) as client, client.instance("odin") as agent:
    agent.emit("epic_started", epic_id="e1")
told = {
    "file": holdfast.__file__,
    "service": [name for name in service if find_spec(name)],
    "loaded": [name for name in ("pydantic", "starlette", "psycopg") if name in sys.modules],
    "agent": agent.id,
}
print(json.dumps(told))
"""
    environ = {
        **{k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
        "HOLDFAST_URL": server.url,
        "HOLDFAST_API_KEY": api.key or "",
    }
    done = subprocess.run(
        [python, "-c", code], cwd=tmp_path, env=environ, check=True, capture_output=True, text=True
    )

    told = json.loads(done.stdout)
    assert str(python.parents[1]) in told["file"]
    assert (told["service"], told["loaded"]) == ([], [])
    assert ok(api.get(f"/api/instances/{told['agent']}"))["instance"]["status"] == "closed"
