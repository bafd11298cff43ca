"""Whoever looks later is told how much was lost with a full disk, and when."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from holdfast.request import Request, Write, new_key
from holdfast.spool import Spool
from tests.acceptance.serving import Api
from tests.support.commands import Cli

URL = "http://127.0.0.1:1"


def machine(name: str) -> Write:
    body = {"hostname": name, "docker_slots": []}
    return Write(Request("POST", "/api/machines", body, idempotency_key=new_key()))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own, a small one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k,mode=700", "tmpfs", folder], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("only root can mount a disk")
    yield folder
    subprocess.run(["umount", folder], check=True)


def fill(disk: Path) -> Path:
    """Not a byte more goes on it."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while file.write(b"x" * 4096):
                pass
        except OSError:
            pass
    return filler


def doctor(cli: Cli, disk: Path) -> str:
    told = cli("doctor", HOLDFAST_URL=URL, HOLDFAST_SPOOL_DIR=str(disk / "spool"))
    return " ".join(told.out.split())


LOSE = """
import os, signal, sys
from pathlib import Path
from holdfast.request import Request, Write, new_key
from holdfast.spool import Spool
spool = Spool(Path(sys.argv[1]), sys.argv[2], None)
for number in range(int(sys.argv[3])):
    body = {"hostname": f"m{number}", "docker_slots": []}
    spool.keep(Write(Request("POST", "/api/machines", body, idempotency_key=new_key())))
if sys.argv[4] == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[4] == "ends":
    print(spool.leave().lost)
"""


def lose(folder: Path, count: int, how: str) -> None:
    subprocess.run([sys.executable, "-c", LOSE, folder, URL, str(count), how], check=False)


@pytest.mark.parametrize("how", ["ends", "killed", "stops without a word"])
@pytest.mark.parametrize("had_room", [True, False])
def test_what_a_full_disk_lost_is_told_later(
    disk: Path, cli: Cli, how: str, had_room: bool
) -> None:
    spool = Spool(disk / "spool", URL, None)
    if had_room:
        spool.keep(machine("early"))
    else:
        spool.path.parent.mkdir(mode=0o700)
    filler = fill(disk)
    before = int(time.time())
    lose(spool.path.parent, 3, how)
    assert "3 writes were lost in the last month, " in doctor(cli, disk)
    filler.unlink()
    told = doctor(cli, disk)

    assert "3 writes were lost in the last month, " in told
    lost = spool.lost()
    assert before <= lost.since <= lost.until <= time.time()
    assert datetime.fromtimestamp(lost.since).astimezone().isoformat(" ", "seconds") in told


def test_several_processes_losses_are_added_up(disk: Path) -> None:
    spool = Spool(disk / "spool", URL, None)
    spool.keep(machine("early"))
    fill(disk)
    for number in range(1, 4):
        lose(spool.path.parent, number, "ends")

    assert spool.lost().writes == 6


def test_what_still_is_in_a_living_process_s_memory_is_not_lost(disk: Path) -> None:
    spool, other = (Spool(disk / "spool", URL, None) for _ in range(2))
    spool.keep(machine("early"))
    filler = fill(disk)
    spool.keep(machine("late"))

    assert other.lost().writes == 0
    filler.unlink()
    assert spool.first() is not None
    assert not [one for one in os.listdir(spool.path.parent) if one.endswith(".lost")]
    assert spool.stats().kept == 2
    assert other.lost().writes == 0


def test_once_there_is_room_again_the_loss_is_on_record_and_told_once(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.spool.MAX_IN_MEMORY", 2)
    spool, other = (Spool(disk / "spool", URL, None) for _ in range(2))
    spool.keep(machine("early"))
    filler = fill(disk)
    for number in range(5):
        spool.keep(machine(f"m{number}"))
    assert (spool.lost().writes, other.lost().writes) == (3, 3)
    filler.unlink()
    while (entry := spool.first()) is not None:
        spool.done(entry)

    assert (spool.lost().writes, other.lost().writes) == (3, 3)
    assert spool.leave().lost == 3
    assert other.lost().since > 0
    assert not [one for one in os.listdir(spool.path.parent) if one.endswith(".lost")]


def test_where_the_folder_is_none_the_loss_is_noted_elsewhere(
    tmp_path: Path, cli: Cli, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    folder = tmp_path / "disk" / "spool"
    folder.parent.mkdir()
    folder.touch()
    lose(folder, 4, "killed")
    told = doctor(cli, tmp_path / "disk")

    assert "cannot be written" in told
    assert "4 writes were lost in the last month" in told
