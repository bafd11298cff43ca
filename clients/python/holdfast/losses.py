"""What was lost because neither the service nor the disk took it, noted where it needs no room.

A full disk takes no byte more, but a name: each process notes its losses in the name of an empty
file, and renames it as they grow. Needs the standard library only.
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from holdfast.database import require_own

# Of a machine that is not this one it cannot be told whether a process lives. After so long a note
# that nobody has renamed is believed to be a dead one's.
SILENT_SECONDS = 24 * 3600.0
MOST_NOTES = 1_000

_NOTE = re.compile(
    r"(?P<spool>.+)\.(?P<writes>\d{1,9})-(?P<in_memory>\d{1,9})-(?P<since>\d{1,12})"
    r"-(?P<until>\d{1,12})-(?P<pid>\d{1,10})-(?P<born>[\w.]*)-(?P<host>[\w.-]*)\.lost"
)


class Losses(NamedTuple):
    """How many writes were lost, and between which times (seconds since 1970)."""

    writes: int
    since: float
    until: float

    def __add__(self, other: object) -> Losses:
        """Both."""
        if not isinstance(other, Losses) or not other.writes:
            return self
        if not self.writes:
            return other
        return Losses(
            self.writes + other.writes,
            min(self.since, other.since),
            max(self.until, other.until),
        )


NONE = Losses(0, 0.0, 0.0)


class Note:
    """The losses of this process, of one spool. Nothing that is done here ever fails."""

    def __init__(self, spool: Path) -> None:
        self._spool = spool.stem
        # Where the spool's folder cannot be written at all, they are noted beside it.
        user = os.geteuid() if hasattr(os, "geteuid") else "user"
        elsewhere = Path(tempfile.gettempdir()) / f"holdfast-{user}" / "lost"
        tag = hashlib.sha256(os.fsencode(spool.parent.absolute())).hexdigest()[:8]
        self._places = [(spool.parent, self._spool), (elsewhere, f"{self._spool}-{tag}")]
        self._own: Path | None = None
        self._pid = 0

    def write(self, lost: Losses, in_memory: int) -> None:
        """Note what is lost, and how much more is if this process ends without a word."""
        if self._pid != os.getpid():
            # A fork has a note of its own.
            self._own, self._pid = None, os.getpid()
        if not lost.writes and not in_memory:
            self.clear()
            return
        now = time.time()
        since, until = (lost.since, lost.until) if lost.writes else (now, now)
        end = (
            f"{lost.writes}-{in_memory}-{int(since)}-{int(until)}-{self._pid}"
            f"-{_own_birth(self._pid)}-{_host()}.lost"
        )
        for folder, name in self._places:
            with suppress(OSError):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                path = folder / f"{name}.{end}"
                require_own(folder, path)
                if self._own is not None and self._own.parent == folder:
                    self._own.rename(path)
                else:
                    path.touch(mode=0o600)
                    self.clear()
                self._own = path
                return

    def clear(self) -> None:
        """Nothing is lost that is not on record."""
        if self._own is not None and self._pid == os.getpid():
            with suppress(OSError):
                self._own.unlink(missing_ok=True)
        self._own = None

    def others(self) -> Losses:
        """What other processes have noted, ended or not."""
        return sum((found for _, found in self._others()), NONE)

    def forget(self, before: float) -> None:
        """Take away the notes of others that are older than this."""
        for path, found in self._others():
            if found.until < before:
                with suppress(OSError):
                    path.unlink()

    def _others(self) -> Iterator[tuple[Path, Losses]]:
        for folder, name in self._places:
            try:
                require_own(folder, folder / f"{name}.lost")
                names = sorted(os.listdir(folder))
            except OSError:
                continue
            notes = [one for one in names if one.endswith(".lost")][:MOST_NOTES]
            for one in notes:
                found = _NOTE.fullmatch(one)
                if found is not None and found["spool"] == name and folder / one != self._own:
                    yield folder / one, _read(found)


def _read(note: re.Match[str]) -> Losses:
    writes = int(note["writes"])
    if not _lives(note):
        writes += int(note["in_memory"])
    return Losses(writes, float(note["since"]), float(note["until"]))


def _lives(note: re.Match[str]) -> bool:
    if note["host"] != _host():
        return time.time() - float(note["until"]) < SILENT_SECONDS
    return _born(int(note["pid"])) == note["born"] != ""


def _host() -> str:
    return re.sub(r"[^\w.-]", "-", socket.gethostname(), flags=re.ASCII)[:40]


@lru_cache(maxsize=1)
def _own_birth(pid: int) -> str:
    return _born(pid)


def _born(pid: int) -> str:
    try:
        from holdfast.process import born
    except ImportError:
        # Not a Unix.
        return ""
    return re.sub(r"[^\w.]", ".", born(pid) or "", flags=re.ASCII)[:40]
