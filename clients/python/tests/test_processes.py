"""Processes and what they start are seen, told apart, and stopped for good."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from clients.python.tests.supervised import gone

from holdfast import process
from holdfast.process import Process, Tree, living, stop

PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
print(child.pid, flush=True)
input()
"""


@pytest.fixture(params=["/proc", "ps"])
def source(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to see what runs; one of them is there on every Unix."""
    if request.param == "ps":
        monkeypatch.setattr(process, "PROC", Path("/nowhere"))
    elif not Path("/proc/self/stat").exists():
        pytest.skip("needs /proc")


@pytest.fixture
def parent() -> Iterator[subprocess.Popen[str]]:
    """A process that has started another."""
    started = subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    yield started
    started.kill()
    started.communicate()


def child_of(parent: subprocess.Popen[str]) -> int:
    assert parent.stdout is not None
    return int(parent.stdout.readline())


@pytest.mark.usefixtures("source")
def test_a_process_and_its_descendants_are_found(parent: subprocess.Popen[str]) -> None:
    child = child_of(parent)

    assert {p.pid for p in Tree(parent.pid).look()} == {parent.pid, child}
    assert living()[child].parent == parent.pid
    assert living()[parent.pid].parent == os.getpid()


@pytest.mark.usefixtures("source")
def test_who_lost_its_parent_is_still_known_and_the_dead_are_not(
    parent: subprocess.Popen[str],
) -> None:
    child = child_of(parent)
    tree = Tree(parent.pid)
    # Dead, but not buried: nobody waits for it yet.
    os.kill(parent.pid, signal.SIGKILL)
    gone(parent.pid)
    assert {p.pid for p in tree.look()} <= {child}
    assert not tree.lives()
    stop(tree, 5)

    gone(child)


def test_another_process_under_an_id_that_was_seen_is_not_touched(
    parent: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    child = child_of(parent)
    tree = Tree(parent.pid)
    reborn = {
        pid: Process(pid, 1, "born later") if pid == child else one for pid, one in living().items()
    }
    monkeypatch.setattr(process, "living", lambda: reborn)

    assert {p.pid for p in tree.look()} == {parent.pid}


def test_who_is_stopped_wakes_up_to_end(parent: subprocess.Popen[str]) -> None:
    child_of(parent)
    parent.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    stop(Tree(parent.pid), 3600)

    assert parent.wait(60) == -signal.SIGTERM
    assert time.monotonic() - began < 3600


@pytest.mark.skipif(os.getuid() != 0, reason="needs another user")
def test_who_may_not_be_ended_is_named_and_not_waited_for(parent: subprocess.Popen[str]) -> None:
    """As a command under ``sudo``: an hour of grace is not spent on it."""
    code = (
        "import os, sys, time; sys.path.insert(0, sys.argv[1])\n"
        "from holdfast.process import Tree\n"
        "os.setuid(65534)\n"
        "tree = Tree(int(sys.argv[2]))\n"
        "print(*(process.pid for process in tree.end(time.monotonic() + 3600)))"
    )
    folder = str(Path(process.__file__).parents[1])
    child = child_of(parent)
    done = subprocess.run(
        [sys.executable, "-c", code, folder, str(parent.pid)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    assert {int(pid) for pid in done.stdout.split()} == {parent.pid, child}
    assert parent.poll() is None
