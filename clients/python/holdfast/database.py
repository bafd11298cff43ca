"""A small database file that may be shared, killed, full or damaged at any time."""

from __future__ import annotations

import logging
import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

log = logging.getLogger("holdfast.spool")

T = TypeVar("T")

BUSY_SECONDS = 5.0
PAGE_BYTES = 4096


class Database:
    """A connection for each use: nothing is left open across threads, forks and crashes."""

    def __init__(self, path: Path, schema: str, max_bytes: int) -> None:
        self.path = path
        self._schema = schema
        self._max_pages = max(max_bytes // PAGE_BYTES, 1)

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

    @contextmanager
    def exclusively(self, purpose: str, wait: float = 0.0) -> Iterator[bool]:
        """Whether nobody else, in whatever process, is at this; the system frees it at death."""
        path = self.path.with_suffix(f".{purpose}")
        self._make_folder()
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
        if not self.path.exists():
            self.path.touch(mode=0o600)
        with closing(
            sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None)
        ) as connection:
            connection.row_factory = sqlite3.Row
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute(f"PRAGMA max_page_count = {self._max_pages}")
            connection.executescript(self._schema)
            connection.execute("BEGIN IMMEDIATE")
            result = work(connection)
            connection.execute("COMMIT")
            return result

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


def statements(text: str) -> dict[str, str]:
    """The named blocks of an SQL file."""
    parts = re.split(r"^-- name: (\w+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], map(str.strip, parts[2::2]), strict=True))


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    # What is full, busy or unreachable has a class of its own.
    return type(error) is sqlite3.DatabaseError
