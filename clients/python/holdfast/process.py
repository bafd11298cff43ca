"""Processes and all that they start: seen, told, and stopped for good. Standard library, POSIX."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from holdfast.sign import bears, put_on

LOOK_SECONDS = 0.05
# What is killed is gone at once, unless it may not be killed, or multiplies faster than it dies.
KILL_SECONDS = 1.0
PROC = Path("/proc")
PS = ("ps", "-A", "-o", "pid=,ppid=,stat=,lstart=")

_PR_SET_CHILD_SUBREAPER = 36
_LOCAL_MODES = 3
# Linux's PF_KTHREAD: half of all there is on a small machine, and nobody's.
_KERNEL_THREAD = 0x0020_0000


class Process(NamedTuple):
    """A process: its id may be given to another once it is gone, its birth is its own."""

    pid: int
    parent: int
    born: str


class Tree:
    """A process and what it has started, directly or not.

    Whoever lost its parent is found again if it was seen before, or by the ``mark`` that all of
    them have (where the system lets us look: Linux), or because it has become
    a child of the ``keeper``, a process all of whose children belong here, and which does not
    belong here itself (:func:`adopt_orphans`).
    """

    def __init__(self, pid: int, mark: str | None = None, keeper: int | None = None) -> None:
        self.pid = pid
        self._mark = mark
        self._keeper = keeper
        now = living()
        self._spared = {os.getpid(), *([] if keeper is None else [keeper])}
        self._seen: dict[int, Process] = {}
        if pid in now:
            self._seen[pid] = now[pid]

    def look(self, everywhere: bool = False) -> list[Process]:
        """All of them that live; ``everywhere`` also those who are known by their mark only."""
        now = living()
        found = {p.pid: p for p in self._seen.values() if _same(now.get(p.pid), p)}
        if everywhere and self._mark is not None:
            found |= {p.pid: p for p in now.values() if _has(p, self._mark)}
        for pid in self._spared:
            found.pop(pid, None)
        parents = {*found, *([] if self._keeper is None else [self._keeper])}
        others = [p for p in now.values() if p.pid not in found and p.pid not in self._spared]
        while more := [p for p in others if p.parent in parents]:
            found |= {p.pid: p for p in more}
            parents |= {p.pid for p in more}
            others = [p for p in others if p.pid not in found]
        self._seen |= found
        return [*found.values()]

    def lives(self) -> bool:
        """Whether the process itself lives."""
        return any(p.pid == self.pid for p in self.look())

    def kill(self) -> list[Process]:
        """Kill all of them; those that could not be killed in a second."""
        until = time.monotonic() + KILL_SECONDS
        while found := self.look(everywhere=True):
            # First nobody may start anything any more, then all die.
            send(found, signal.SIGSTOP)
            may = send(found, signal.SIGKILL)
            if not may or time.monotonic() >= until:
                break
            time.sleep(LOOK_SECONDS / 5)
        return found

    def settle(self, seconds: float) -> list[Process]:
        """Who is still there after a moment in which they may end by themselves."""
        until = time.monotonic() + seconds
        while (found := self.look(everywhere=True)) and time.monotonic() < until:
            time.sleep(LOOK_SECONDS)
        return found

    def end(self, deadline: float) -> list[Process]:
        """Stop what is left: SIGTERM, and SIGKILL once the (monotonic) deadline has passed.

        Those that could not be ended: another user's.
        """
        asked: set[tuple[int, str]] = set()
        while found := self.look(everywhere=not asked):
            new = [p for p in found if (p.pid, p.born) not in asked]
            may = send(new, signal.SIGTERM)
            asked |= {(p.pid, p.born) for p in new}
            if time.monotonic() >= deadline or (new and not may and len(new) == len(found)):
                break
            time.sleep(LOOK_SECONDS)
        # Once more: who was just starting another, and ended, may have hidden that one.
        return self.kill()


def stop(tree: Tree, grace: float) -> list[Process]:
    """End a process by SIGTERM, and what it leaves behind; kill what is there after the grace."""
    deadline = time.monotonic() + grace
    send([p for p in tree.look(everywhere=True) if p.pid == tree.pid], signal.SIGTERM)
    while tree.lives() and time.monotonic() < deadline:
        time.sleep(LOOK_SECONDS)
    return tree.end(deadline)


def send(processes: Iterable[Process], number: int) -> list[Process]:
    """Send a signal to those that are still the same; who may be sent one."""
    reached = []
    for process in processes:
        try:
            _send(process, number)
            if number == signal.SIGTERM:
                # Whoever is stopped (Ctrl-Z) must wake up to end.
                _send(process, signal.SIGCONT)
        except PermissionError:
            continue
        except OSError:
            # It has gone meanwhile.
            pass
        reached.append(process)
    return reached


def living() -> dict[int, Process]:
    """All processes of this machine, by id, but for the kernel's own, and for those that are dead
    and not yet buried.
    """
    found = _from_proc() if (PROC / "self" / "stat").exists() else _from_ps()
    return {process.pid: process for process in found}


def marked(mark: str) -> list[Process]:
    """All that have this mark, where the system lets us look (Linux)."""
    return [process for process in living().values() if _has(process, mark)]


def brand(mark: str) -> None:
    """From here on this process, and all that it starts, is known to belong to the run of this
    mark, whatever becomes of its environment.
    """
    put_on(_run_of(mark))


def named_in_arguments(word: str) -> list[int]:
    """The processes that were started with this argument, where the system says so (Linux)."""
    found = []
    for pid in living():
        with suppress(OSError):
            if word.encode() in (PROC / str(pid) / "cmdline").read_bytes().split(b"\0"):
                found.append(pid)
    return found


def born(pid: int) -> str | None:
    """When a process was born, in a form of the system's own; ``None`` if there is none."""
    if (PROC / "self" / "stat").exists():
        found = _read(str(pid))
        return None if found is None else found.born
    process = living().get(pid)
    return None if process is None else process.born


def named(process: Process) -> str:
    """What people call it: the program and its id. Its arguments may hold secrets."""
    program = ""
    with suppress(OSError):
        program = (PROC / str(process.pid) / "comm").read_text(errors="replace").strip()
    return f"{program} ({process.pid})" if program else f"process {process.pid}"


def is_daemon(process: Process) -> bool:
    """Whether it has prepared to stay when others go: it has left this one's session
    (``setsid``), or no end of a terminal ends it (``nohup``), as that would end this one.
    """
    try:
        if os.getsid(process.pid) != os.getsid(0):
            return True
    except OSError:
        return False
    return _ignores_hangup("self") is False and _ignores_hangup(str(process.pid)) is True


def adopt_orphans() -> bool:
    """From now on who descends from this process and loses its parent becomes a child of it.

    Only Linux can; whether it does.
    """
    if not sys.platform.startswith("linux"):
        return False
    import ctypes

    try:
        prctl = ctypes.CDLL(None, use_errno=True).prctl
    except (OSError, AttributeError):
        return False
    return bool(prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)


def is_job() -> bool:
    """Whether a shell is there that would wake this process up again if Ctrl-Z stopped it.

    The system asks the same: does any of the process group have a parent in another group of its
    (terminal) session?
    """
    group, session, now = os.getpgrp(), os.getsid(0), living()
    pid = os.getpid()
    while (process := now.get(pid)) is not None:
        pid = process.parent
        try:
            if pid <= 0 or os.getsid(pid) != session:
                return False
            if os.getpgid(pid) != group:
                return True
        except OSError:
            return False
    return False


def hears_keys() -> bool:
    """Whether Ctrl-C at the terminal is a signal for this process, and for its children with it:
    it is in the foreground, and keys make signals (under a full-screen program they do not).
    """
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return False
    try:
        makes_signals = termios.tcgetattr(terminal)[_LOCAL_MODES] & termios.ISIG
        return bool(makes_signals) and os.tcgetpgrp(terminal) == os.getpgrp()
    except (OSError, termios.error):
        return False
    finally:
        os.close(terminal)


def _ignores_hangup(pid: str) -> bool | None:
    """``None`` where the system does not say (other than Linux)."""
    try:
        status = (PROC / pid / "status").read_text(errors="replace")
        [ignored] = [line.split()[1] for line in status.splitlines() if line.startswith("SigIgn:")]
    except (OSError, ValueError, IndexError):
        return None
    return bool(int(ignored, 16) >> (signal.SIGHUP - 1) & 1)


def _same(one: Process | None, other: Process) -> bool:
    return one is not None and one.born == other.born


def _send(process: Process, number: int) -> None:
    """Raises ``OSError``. Where there are handles for processes, none but the right one is hit."""
    if not hasattr(os, "pidfd_open") or not hasattr(signal, "pidfd_send_signal"):
        return os.kill(process.pid, number)
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        raise
    except OSError:
        # An old kernel, or a sandbox that knows no handles.
        return os.kill(process.pid, number)
    try:
        if born(process.pid) == process.born:
            signal.pidfd_send_signal(handle, number)
    finally:
        os.close(handle)
    return None


def _has(process: Process, mark: str) -> bool:
    """By its environment or, if that was emptied, by the sign of the run (:func:`brand`)."""
    folder = PROC / str(process.pid)
    with suppress(OSError):
        if mark.encode() in (folder / "environ").read_bytes():
            return True
    return bears(folder, _run_of(mark))


def _run_of(mark: str) -> str:
    """The run that a mark belongs to, of which each attempt has its own."""
    return mark.partition("=")[2].partition("-")[0]


def _from_proc() -> Iterable[Process]:
    for name in os.listdir(PROC):
        if name.isdigit() and (process := _read(name)) is not None:
            yield process


def _read(name: str) -> Process | None:
    try:
        text = (PROC / name / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The name in brackets may hold anything, brackets and blanks too.
    state, parent, *rest = text.rpartition(")")[2].split()
    if state in "ZX" or int(rest[4]) & _KERNEL_THREAD:
        return None
    return Process(int(name), int(parent), rest[17])


def _from_ps() -> Iterable[Process]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HOLDFAST_")}
    environ = {**kept, "LC_ALL": "C"}
    try:
        with subprocess.Popen(PS, env=environ, stdout=subprocess.PIPE, text=True) as ps:
            listed, _ = ps.communicate(timeout=5)
    except (OSError, subprocess.SubprocessError):
        return
    for line in listed.splitlines():
        pid, parent, state, born = line.split(maxsplit=3)
        if not state.startswith("Z") and int(pid) != ps.pid:
            yield Process(int(pid), int(parent), born)
