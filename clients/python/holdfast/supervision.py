"""Who supervises: a name for this process, and whether the process behind a name is gone."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import time
from contextlib import suppress
from typing import NamedTuple

from holdfast.child import MARK
from holdfast.process import PROC, Process, Tree, born, marked, named_in_arguments
from holdfast.whereabouts import this_machine

log = logging.getLogger("holdfast")

# The longest grace that is usual, and a little more.
ENDING_SECONDS = 10.0
LOOK_SECONDS = 0.1

HOST_LENGTH = 100
BOOT = PROC / "sys" / "kernel" / "random" / "boot_id"
PIDS = PROC / "self" / "ns" / "pid"


class Supervisor(NamedTuple):
    """A process that supervises: the machine, what its process ids are valid in, and its own.

    A process id is given to another once it is free, and a machine that is booted begins anew:
    only with the process's birth and the system that it runs in is it no other's.
    """

    host: str
    system: str
    pid: str
    born: str
    run: str

    def __str__(self) -> str:
        return "/".join(self)

    @property
    def has_ended(self) -> bool:
        """Whether the process itself is known to have ended: only here can one tell."""
        if not self.is_of_here or not self.pid.isdigit():
            return False
        return _born(int(self.pid)) != self.born

    @property
    def is_gone(self) -> bool:
        """Whether it, and all that it started, is known to have ended: only here can one tell.

        Its guardian ends what it has left behind, which takes as long as the grace at most: that
        is waited for, or two would work on one thing. What is left then, or if the guardian was
        killed as well, is ended here.
        """
        if not self.has_ended:
            return False
        until = time.monotonic() + ENDING_SECONDS
        while self.leftovers():
            if time.monotonic() >= until or not guarded(self.run):
                left = self.end_leftovers()
                if left:
                    log.warning("What it started still runs: process %d.", left[0].pid)
                return not left
            time.sleep(LOOK_SECONDS)
        return True

    @property
    def is_of_here(self) -> bool:
        """Whether it can be told from here whether it lives."""
        return self[:2] == this_supervisor("")[:2]

    def leftovers(self) -> list[Process]:
        """What it started and still runs."""
        return marked(f"{MARK}={self.run}") if self.run else []

    def end_leftovers(self) -> list[Process]:
        """Kill what it started; those that could not be killed."""
        return Tree(0, f"{MARK}={self.run}").kill() if self.run else []


def this_supervisor(run: str) -> Supervisor:
    """A name for one run in this process, unlike any other's.

    ``run`` marks all that it starts (:data:`~holdfast.child.MARK`).
    """
    host = _plain(this_machine())[:HOST_LENGTH]
    pid = os.getpid()
    return Supervisor(host, _system(), str(pid), _born(pid), run)


def has_ended(name: str) -> bool:
    """Whether the process that gave itself this name has ended, whoever it has left behind: those
    ask, too.
    """
    supervisor = named_by(name)
    return supervisor is not None and supervisor.has_ended


def is_gone(name: str | None) -> bool:
    """Whether the process that gave itself this name is known to have ended."""
    supervisor = named_by(name or "")
    return supervisor is not None and supervisor.is_gone


def named_by(name: str) -> Supervisor | None:
    """The supervisor that gave itself this name; ``None`` if none can have."""
    parts = name.split("/")
    return Supervisor(*parts) if len(parts) == len(Supervisor._fields) else None


def guarded(run: str) -> bool:
    """Whether the guardian of a run, which is started with its mark, still lives."""
    return bool(named_in_arguments(f"{MARK}={run}"))


def _born(pid: int) -> str:
    return _plain(born(pid) or "")


def _plain(word: str) -> str:
    """Of letters that no name is refused for."""
    return re.sub(r"[^\w.:-]", "-", word, flags=re.ASCII)


def _system() -> str:
    """What a process id is valid in: this boot and, in a container, its own ids."""
    found = []
    with suppress(OSError):
        found.append(BOOT.read_text(encoding="ascii").strip())
    with suppress(OSError):
        found.append(os.readlink(PIDS))
    return hashlib.sha256("/".join(found).encode()).hexdigest()[:12]
