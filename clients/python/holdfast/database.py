"""A small database file that may be shared, killed, full or damaged at any time."""

from __future__ import annotations

import logging
import os
import re
import sqlite3
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

log = logging.getLogger("holdfast.spool")

T = TypeVar("T")

BUSY_SECONDS = 5.0
# After it was waited for in vain: whoever holds the file may hold it for ever.
STILL_BUSY_SECONDS = 0.1
# How the file is laid out; a newer holdfast may do it otherwise.
VERSION = 1
PAGE_BYTES = 4096


class Unfit(OSError):
    """A file or folder that is there but is not to be used, and what to do about it."""


class Database:
    """A connection for each use: nothing is left open across threads, forks and crashes.

    What others could have written is neither read nor written: it must be ours alone.
    """

    def __init__(self, path: Path, schema: str, max_bytes: int) -> None:
        self.path = path
        self._schema = schema
        self._max_pages = max(max_bytes // PAGE_BYTES, 1)
        self._patience = BUSY_SECONDS

    def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do this work in one durable transaction.

        A damaged file is put aside and a new one begun. Raises ``sqlite3.Error`` or ``OSError``.
        """
        try:
            return self._run(work)
        except sqlite3.DatabaseError as e:
            if not _is_damage(e):
                raise
        self._put_aside()
        return self._run(work)

    def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do this work, which changes nothing, also where nothing can be written.

        Raises ``sqlite3.Error`` or ``OSError``.
        """
        try:
            return self.run(work)
        except (sqlite3.Error, OSError) as e:
            if isinstance(e, Unfit) or not self.path.is_file():
                raise
            cause = e
        try:
            return self.look(work)
        except sqlite3.Error:
            raise cause from None

    def look(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do this work without writing anything, not even the file itself.

        Raises ``sqlite3.Error`` or ``OSError``.
        """
        require_own(self.path.parent, self.path)
        address = f"{self.path.absolute().as_uri()}?mode=ro"
        with self._connected(address, uri=True) as readable:
            _require_version(self.path, readable)
            return work(readable)

    @contextmanager
    def exclusively(self, purpose: str, wait: float = 0.0) -> Iterator[bool]:
        """Whether nobody else, in whatever process, is at this; the system frees it at death."""
        path = self.path.with_suffix(f".{purpose}")
        self._make_folder()
        require_own(path.parent, path)
        with closing(sqlite3.connect(path, timeout=wait, isolation_level=None)) as lock:
            try:
                lock.execute("BEGIN EXCLUSIVE")
            except sqlite3.OperationalError as e:
                if "locked" not in str(e):
                    raise
                yield False
                return
            yield True

    def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        self._make_folder()
        require_own(self.path.parent, self.path)
        if not self.path.exists():
            self.path.touch(mode=0o600)
        try:
            with self._connected(self.path) as connection:
                _require_version(self.path, connection)
                connection.execute("PRAGMA synchronous = FULL")
                connection.execute(f"PRAGMA max_page_count = {self._max_pages}")
                connection.executescript(self._schema)
                connection.execute("BEGIN IMMEDIATE")
                result = work(connection)
                connection.execute("COMMIT")
        except sqlite3.OperationalError as e:
            self._patience = STILL_BUSY_SECONDS if is_busy(e) else BUSY_SECONDS
            raise
        self._patience = BUSY_SECONDS
        return result

    @contextmanager
    def _connected(self, path: Path | str, *, uri: bool = False) -> Iterator[sqlite3.Connection]:
        made = sqlite3.connect(path, timeout=self._patience, isolation_level=None, uri=uri)
        with closing(made) as connection:
            connection.row_factory = sqlite3.Row
            yield connection

    def _make_folder(self) -> None:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)

    def _put_aside(self) -> None:
        with self.exclusively("repair", BUSY_SECONDS) as alone:
            if not alone or self._is_sound():
                return
            aside = self.path.with_suffix(f".damaged-{time.time_ns()}")
            self.path.rename(aside)
            # A journal left behind would be played back into the new file.
            with suppress(FileNotFoundError):
                journal = self.path.with_name(f"{self.path.name}-journal")
                journal.rename(aside.with_name(f"{aside.name}-journal"))
        log.warning("The spool was damaged. It was put aside as %s; a new one was begun.", aside)

    def _is_sound(self) -> bool:
        """Another process may have begun a new file in the meantime."""
        try:
            with closing(sqlite3.connect(self.path, timeout=BUSY_SECONDS)) as connection:
                row = connection.execute("PRAGMA quick_check(1)").fetchone()
                return row is not None and row[0] == "ok"
        except sqlite3.DatabaseError:
            return False


def require_own(folder: Path, file: Path) -> None:
    """Raise :class:`Unfit` unless only we can have written this folder and this file in it.

    The file need not be there.
    """
    if os.name != "posix":
        return
    seen = folder.stat()
    if not stat.S_ISDIR(seen.st_mode):
        raise Unfit(f"{folder} is no folder")
    _require_ours(folder, seen)
    try:
        seen = file.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISREG(seen.st_mode):
        raise Unfit(f"{file} is no file; take it away")
    _require_ours(file, seen)


def _require_ours(path: Path, seen: os.stat_result) -> None:
    if seen.st_uid != os.geteuid():
        raise Unfit(
            f"{path} belongs to user {seen.st_uid}, not to us (user {os.geteuid()}); set"
            " HOLDFAST_SPOOL_DIR to a folder of our own"
        )
    mode = stat.S_IMODE(seen.st_mode)
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise Unfit(f"{path} can be written by others (mode {mode:04o}); chmod go-w it")


def is_busy(error: Exception) -> bool:
    """Whether another process is at the file, and there is nothing wrong with it."""
    return isinstance(error, sqlite3.OperationalError) and "locked" in str(error)


def _require_version(path: Path, connection: sqlite3.Connection) -> None:
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    if found > VERSION:
        raise Unfit(f"{path} was written by a newer holdfast; update this one")


def statements(text: str) -> dict[str, str]:
    """The named blocks of an SQL file."""
    parts = re.split(r"^-- name: (\w+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], map(str.strip, parts[2::2]), strict=True))


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    # What is full, busy or unreachable has a class of its own.
    return type(error) is sqlite3.DatabaseError
