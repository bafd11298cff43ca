"""The embedded Postgres while the service runs: started again, explained, or given up.

It is looked after by the process that started it, whose workers only use it. A full disk is waited
for, however long; what else keeps it from starting ends the service after a while, with the reason.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import signal
import threading
import time
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict

from application.eventstore import outage
from interfaces.host.embedded_postgres import EmbeddedPostgres, EmbeddedPostgresError

LOOK_SECONDS = 0.5
# For so long it is tried to start it again.
GIVE_UP_SECONDS = 60.0
LONGEST_PAUSE_SECONDS = 5.0
SAY_AGAIN_SECONDS = 60.0
# With less room than that Postgres cannot write the log that it starts with.
FULL_BELOW_BYTES = 1_000_000
LOG_TAIL_BYTES = 16_384
# What was said before its last start is over.
STARTED = re.compile(r"database system is ready to accept connections|starting PostgreSQL")

FULL = "its disk is full"
# What Postgres says of it, and what people call it.
CAUSES: tuple[tuple[str, str], ...] = (
    (r"No space left on device", FULL),
    (r"Disk quota exceeded", "its disk quota is used up"),
    (r"Read-only file system", "its file system can only be read"),
    (r"Input/output error", "its disk does not work"),
    (r"Too many open files", "too many files are open"),
    (r"Cannot allocate memory|out of memory", "there is not enough memory"),
    (r"Permission denied", "it may not read or write its own files"),
    (r"incompatible|was initialized by PostgreSQL version", "its files are of another version"),
    (r"could not locate a valid checkpoint|invalid checkpoint record", "its files are damaged"),
)
# These pass once somebody makes room: there is no use in giving up.
PASSING = frozenset({FULL, "its disk quota is used up"})
# These never pass by themselves.
LASTING = frozenset({"its files are damaged", "its files are of another version"})

log = logging.getLogger("holdfast.postgres")


def cause_of_outage(postgres: EmbeddedPostgres) -> str | None:
    """Why it does not run, in words for clients, as far as its log or its disk tells."""
    if _is_full(postgres.log_path.parent):
        return FULL
    said = STARTED.split(_tail(postgres.log_path))[-1]
    return next((words for pattern, words in CAUSES if re.search(pattern, said)), None)


def explain(database_url: str, data_dir: Path) -> None:
    """Have refusals tell why the database is away, if it is the one that is kept under here."""
    if not (data_dir / "pg").exists() and not (data_dir / "pg.location").exists():
        return
    try:
        postgres = EmbeddedPostgres(data_dir)
        ours = conninfo_to_dict(postgres.url).get("host")
    except (EmbeddedPostgresError, OSError):
        return
    if conninfo_to_dict(database_url).get("host") == ours:
        outage.explained_by(lambda: _explanation(postgres))


class Keeper:
    """A thread that starts the server again when it has died; stop it before the server."""

    def __init__(self, postgres: EmbeddedPostgres) -> None:
        self._postgres = postgres
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="holdfast-postgres", daemon=True)
        # Why the server cannot be started again; the process has been told to end.
        self.failure: str | None = None

    def start(self) -> None:
        """Begin to look after a server that was started."""
        self._thread.start()

    def stop(self) -> None:
        """Leave it alone from now on."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(LOOK_SECONDS):
            try:
                # One that is there and does not answer is frozen, or recovers: it may go on.
                is_kept = self._postgres.pid is not None or self._revive()
            except Exception:
                # Too many open files, say: what cannot be seen now may be seen the next time.
                log.exception("embedded_postgres_not_looked_after")
                self._stopping.wait(LONGEST_PAUSE_SECONDS)
                continue
            if not is_kept:
                # The server of requests ends as if it was asked to.
                os.kill(os.getpid(), signal.SIGTERM)
                return

    def _revive(self) -> bool:
        """Start it again, or try until that is in vain: then false."""
        died = last_tried = time.monotonic()
        log.error("embedded_postgres_died", extra={"cause": cause_of_outage(self._postgres)})
        said, attempts, pause = died, 0, LOOK_SECONDS
        while not self._stopping.is_set():
            attempts += 1
            error = self._start()
            if error is None:
                log.warning(
                    "embedded_postgres_started_again",
                    extra={"attempts": attempts, "seconds": round(time.monotonic() - died, 1)},
                )
                return True
            if self._stopping.is_set():
                break
            cause, now = cause_of_outage(self._postgres), time.monotonic()
            if cause in PASSING:
                last_tried = now
            elif now - last_tried > GIVE_UP_SECONDS or cause in LASTING or not self._is_there():
                self.failure = error
                log.critical("embedded_postgres_given_up", extra={"cause": cause})
                return False
            if attempts == 1 or now - said > SAY_AGAIN_SECONDS:
                said = now
                extra = {"cause": cause, "attempts": attempts, "error": error}
                log.error("embedded_postgres_cannot_start", extra=extra)
            self._stopping.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
        return True

    def _start(self) -> str | None:
        """Start it; the error if that fails."""
        if not self._is_there():
            # A new cluster in its place would be an empty one.
            return f"its files in {self._postgres.log_path.parent} are gone"
        try:
            self._postgres.start(self._stopping.is_set)
        except (EmbeddedPostgresError, OSError) as e:
            return str(e)
        return None

    def _is_there(self) -> bool:
        return (self._postgres.log_path.parent / "data" / "PG_VERSION").exists()


def _explanation(postgres: EmbeddedPostgres) -> str | None:
    cause = cause_of_outage(postgres)
    if cause is not None:
        return cause
    return "it is being started again" if postgres.pid is None else None


def _is_full(folder: Path) -> bool:
    try:
        return shutil.disk_usage(folder).free < FULL_BELOW_BYTES
    except OSError:
        return False


def _tail(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - LOG_TAIL_BYTES))
            return file.read().decode(errors="replace")
    except OSError:
        return ""
