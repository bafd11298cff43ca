"""Starting and stopping what is measured: Postgres, the product, what it is compared with."""

from __future__ import annotations

import http.client
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit
from uuid import uuid4

import psutil
import psycopg
from psycopg.sql import SQL, Identifier

from bench import machine
from bench.figures import BenchError
from bench.history import NAMESPACE
from interfaces.host.embedded_postgres import EmbeddedPostgres
from interfaces.host.settings import Settings

START_SECONDS = 60.0
CATCH_UP_SECONDS = 300.0

_URL = re.compile(r"serves on (http://\S+)$", re.MULTILINE)
_SETTINGS = {
    "PORT": "0",
    # No sweep of its own falls into a measurement.
    "SWEEP_SECONDS": "86400",
}
_POSITIONS = """
    SELECT coalesce((SELECT position FROM log_head WHERE namespace = %(namespace)s), 0),
           coalesce((SELECT min(position) FROM projections.positions
                     WHERE namespace = %(namespace)s), 0)
"""


class Positions(NamedTuple):
    """How long a database's log is, and how far its read models have come."""

    head: int
    projected: int


class Server:
    """A server process that answers."""

    def __init__(self, name: str, url: str, process: psutil.Process, key: str) -> None:
        self.name = name
        self.url = url
        self.process = process
        self.key = key

    def connect(self) -> http.client.HTTPConnection:
        """A connection that is kept open."""
        parts = urlsplit(self.url)
        assert parts.hostname is not None
        return http.client.HTTPConnection(parts.hostname, parts.port, timeout=60)


class Stage:
    """A Postgres of the bench's own, as durable as the product's, and servers upon it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._postgres = EmbeddedPostgres(directory)
        self.key = secrets.token_hex(16)
        self._admin_url = ""

    def start(self) -> None:
        """Start Postgres."""
        self._postgres.start()
        self._admin_url = self._postgres.url_of("postgres")

    def stop(self) -> None:
        """Stop Postgres."""
        self._postgres.stop()

    @property
    def cluster(self) -> Path:
        """Where the cluster is: elsewhere if its account cannot reach the folder given."""
        return self._postgres.log_path.parent

    @property
    def postgres(self) -> psutil.Process:
        """The postmaster."""
        assert self._postgres.pid is not None
        return psutil.Process(self._postgres.pid)

    def postgres_version(self) -> str:
        """``18.4``."""
        with psycopg.connect(self._admin_url) as connection:
            row = connection.execute("SHOW server_version").fetchone()
        assert row is not None
        return str(row[0])

    @contextmanager
    def database(self) -> Iterator[str]:
        """The owner's URL of an empty database."""
        name = f"bench_{uuid4().hex[:12]}"
        with psycopg.connect(self._admin_url, autocommit=True) as admin:
            admin.execute(SQL("CREATE DATABASE {}").format(Identifier(name)))
        try:
            yield self._postgres.url_of(name)
        finally:
            with psycopg.connect(self._admin_url, autocommit=True) as admin:
                admin.execute(SQL("DROP DATABASE {} WITH (FORCE)").format(Identifier(name)))

    @contextmanager
    def holdfast(self, database_url: str, **settings: str) -> Iterator[Server]:
        """The product, as ``holdfast-server serve`` starts it."""
        environ = {
            **_SETTINGS,
            "DATA_DIR": str(self.directory),
            "DATABASE_URL": database_url,
            "API_KEYS": self.key,
            **settings,
        }
        with self._serving("holdfast", ["interfaces.host.server", "serve"], environ) as server:
            yield server

    @contextmanager
    def bare(self) -> Iterator[Server]:
        """The endpoint that stores nothing."""
        with self._serving("bare", ["bench.bare"], {}) as server:
            yield server

    @contextmanager
    def stock(self, database_url: str, sessions: int) -> Iterator[Server]:
        """The endpoint over the library's own recorder."""
        command = ["bench.stock", database_url, str(sessions)]
        with self._serving("stock", command, {}) as server:
            yield server

    @contextmanager
    def _serving(
        self, name: str, command: list[str], settings: Mapping[str, str]
    ) -> Iterator[Server]:
        output = self.directory / f"{name}-{uuid4().hex[:8]}.log"
        with output.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=machine.ROOT,
                env={**_inherited(), **settings},
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        try:
            server = Server(name, "", psutil.Process(process.pid), self.key)
            _await_answer(server, process, output)
            yield server
        except BenchError as e:
            raise BenchError(f"{e}\nthe end of {name}'s output:\n{_tail(output)}") from e
        finally:
            _end(process)


@contextmanager
def stage(parent: Path | None) -> Iterator[Stage]:
    """A stage in a folder of its own that is gone afterwards."""
    directory = Path(tempfile.mkdtemp(prefix="holdfast-bench-", dir=parent))
    # Postgres runs as another account when this is root.
    directory.chmod(0o711)
    built = Stage(directory.resolve())
    try:
        built.start()
        yield built
    finally:
        built.stop()
        shutil.rmtree(built.cluster, ignore_errors=True)
        shutil.rmtree(directory, ignore_errors=True)


def positions(connection: psycopg.Connection) -> Positions:
    """Where the log and the read models are; one cheap query."""
    row = connection.execute(_POSITIONS, {"namespace": NAMESPACE}, prepare=True).fetchone()
    assert row is not None
    return Positions(*row)


def watching(database_url: str) -> psycopg.Connection:
    """A connection to look at a database with."""
    return psycopg.connect(database_url, autocommit=True)


def settle(database_url: str) -> int:
    """Wait until the read models have come to the head; how far behind they were."""
    deadline = time.monotonic() + CATCH_UP_SECONDS
    with watching(database_url) as connection:
        first = now = positions(connection)
        while now.projected < now.head:
            if time.monotonic() > deadline:
                raise BenchError("the read models do not catch up")
            time.sleep(0.02)
            now = positions(connection)
    return first.head - first.projected


def tidy(database_url: str) -> None:
    """Do at once what autovacuum would have done soon after so many rows."""
    with watching(database_url) as connection:
        connection.execute("VACUUM (ANALYZE)")


def _inherited() -> dict[str, str]:
    """This process's environment without what would turn a server into another."""
    settings = {name.upper() for name in Settings.model_fields}
    return {
        name: value
        for name, value in os.environ.items()
        if name not in settings and not name.startswith(("PG", "POSTGRES_"))
    }


def _await_answer(server: Server, process: subprocess.Popen[bytes], output: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        announced = _URL.search(output.read_text(encoding="utf-8", errors="replace"))
        if announced:
            server.url = announced[1]
            connection = server.connect()
            try:
                connection.request("GET", "/health")
                connection.getresponse()
                return  # whatever it said
            except OSError:
                pass
            finally:
                connection.close()
        time.sleep(0.05)
    raise BenchError(f"the server {server.name!r} does not start")


def _tail(output: Path) -> str:
    return "\n".join(output.read_text(encoding="utf-8", errors="replace").splitlines()[-10:])


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
