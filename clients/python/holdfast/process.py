"""Processes and all that they start: seen, told, and stopped for good. Standard library, POSIX."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

LOOK_SECONDS = 0.05
PROC = Path("/proc")
PS = ("ps", "-A", "-o", "pid=,ppid=,stat=,lstart=")


class Process(NamedTuple):
    """A process: its id may be given to another once it is gone, its birth is its own."""

    pid: int
    parent: int
    born: str


class Tree:
    """A process and what it has started, directly or not.

    Whoever lost its parent is found again if it was seen before, or by the ``mark`` that all of
    them have in their environment (where the system lets us look: Linux).
    """

    def __init__(self, pid: int, mark: str | None = None) -> None:
        self.pid = pid
        self._mark = mark
        root = living().get(pid)
        self._seen: dict[int, Process] = {} if root is None else {pid: root}

    def look(self, everywhere: bool = False) -> list[Process]:
        """All of them that live; ``everywhere`` also those who are known by their mark only."""
        now = living()
        found = {p.pid: p for p in self._seen.values() if _same(now.get(p.pid), p)}
        if everywhere and self._mark is not None:
            found |= {p.pid: p for p in now.values() if _has(p, self._mark)}
        while more := [p for p in now.values() if p.parent in found and p.pid not in found]:
            found |= {p.pid: p for p in more}
        self._seen |= found
        return [*found.values()]

    def lives(self) -> bool:
        """Whether the process itself lives."""
        return any(p.pid == self.pid for p in self.look())

    def kill(self) -> None:
        """Kill all of them."""
        send(self.look(everywhere=True), signal.SIGKILL)

    def end(self, deadline: float) -> None:
        """Stop what is left: SIGTERM, and SIGKILL once the (monotonic) deadline has passed."""
        send(self.look(everywhere=True), signal.SIGTERM)
        while self.look():
            if time.monotonic() >= deadline:
                return self.kill()
            time.sleep(LOOK_SECONDS)


def stop(tree: Tree, grace: float) -> None:
    """End a process by SIGTERM, and what it leaves behind; kill what is there after the grace."""
    deadline = time.monotonic() + grace
    send([p for p in tree.look(everywhere=True) if p.pid == tree.pid], signal.SIGTERM)
    while tree.lives() and time.monotonic() < deadline:
        time.sleep(LOOK_SECONDS)
    tree.end(deadline)


def send(processes: Iterable[Process], number: int) -> None:
    """Send a signal; who is gone already is passed over."""
    for process in processes:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(process.pid, number)
            if number == signal.SIGTERM:
                # Whoever is stopped (Ctrl-Z) must wake up to end.
                os.kill(process.pid, signal.SIGCONT)


def living() -> dict[int, Process]:
    """All processes of this machine, by id, but for those that are dead and not yet buried."""
    found = _from_proc() if (PROC / "self" / "stat").exists() else _from_ps()
    return {process.pid: process for process in found}


def is_in_foreground() -> bool:
    """Whether Ctrl-C at the terminal reaches this process, and its children with it."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


def _same(one: Process | None, other: Process) -> bool:
    return one is not None and one.born == other.born


def _has(process: Process, mark: str) -> bool:
    try:
        return mark.encode() in (PROC / str(process.pid) / "environ").read_bytes()
    except OSError:
        return False


def _from_proc() -> Iterable[Process]:
    for name in os.listdir(PROC):
        if not name.isdigit():
            continue
        try:
            text = (PROC / name / "stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        # The name in brackets may hold anything, brackets and blanks too.
        state, parent, *rest = text.rpartition(")")[2].split()
        if state not in "ZX":
            yield Process(int(name), int(parent), rest[17])


def _from_ps() -> Iterable[Process]:
    environ = {**os.environ, "LC_ALL": "C"}
    try:
        listed = subprocess.run(
            PS, env=environ, capture_output=True, text=True, timeout=5, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return
    for line in listed.stdout.splitlines():
        pid, parent, state, born = line.split(maxsplit=3)
        if not state.startswith("Z"):
            yield Process(int(pid), int(parent), born)
