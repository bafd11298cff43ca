"""The keeper of the embedded Postgres: it gives up in the end, and no shutdown waits for it."""

from __future__ import annotations

import fcntl
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from interfaces.host import postgres_keeper
from interfaces.host.postgres_keeper import Keeper
from interfaces.host.postgres_process import STOP_TIMEOUT_SECONDS
from tests.acceptance.conftest import Start, start
from tests.acceptance.serving import eventually
from tests.support.killable import KillablePostgres

__all__ = ["start"]

# Much longer than it takes, and much shorter than a start is waited for.
SOON = STOP_TIMEOUT_SECONDS / 2


@pytest.fixture
def told_to_end() -> Iterator[threading.Event]:
    """Set once this process is told to end, which it does not."""
    told = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: told.set())
    yield told
    signal.signal(signal.SIGTERM, before)


def configure(data_dir: Path, line: str) -> None:
    """What the server finds in its configuration at its next start."""
    with (data_dir / "pg" / "data" / "postgresql.conf").open("a") as file:
        file.write(f"{line}\n")


@contextmanager
def kept(postgres: KillablePostgres) -> Iterator[Keeper]:
    """The server is looked after for the length of the block."""
    keeper = Keeper(postgres)
    keeper.start()
    try:
        yield keeper
    finally:
        keeper.stop()


def servers_of(data_dir: Path) -> list[psutil.Process]:
    """Every server of this folder, whether it has said yet that it is there or not."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        command = process.info["cmdline"] or []
        if command and command[0].endswith("/postgres") and str(data_dir) in " ".join(command):
            found.append(process)
    return found


def test_what_is_in_vain_for_long_enough_is_given_up(
    data_dir: Path, told_to_end: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a cause that it does not know, then it tries for a while, and tells the reason."""
    monkeypatch.setattr(postgres_keeper, "GIVE_UP_SECONDS", 2.0)
    with KillablePostgres(data_dir) as postgres, kept(postgres) as keeper:
        configure(data_dir, "no_such_setting = on")
        postgres.kill()
        eventually("the end", told_to_end.is_set, seconds=SOON)
        eventually("the reason", lambda: keeper.failure)
        assert keeper.failure is not None
        assert "no_such_setting" in keeper.failure


def test_what_can_be_started_in_the_end_is_not_given_up(
    data_dir: Path, told_to_end: threading.Event
) -> None:
    """Given a cause that goes away, then it runs again."""
    with KillablePostgres(data_dir) as postgres, kept(postgres) as keeper:
        settings = data_dir / "pg" / "data" / "postgresql.conf"
        sound = settings.read_bytes()
        configure(data_dir, "no_such_setting = on")
        postgres.kill()
        eventually("an attempt", lambda: b"no_such_setting" in postgres.log_path.read_bytes())
        settings.write_bytes(sound)
        eventually("the server", lambda: postgres.pid is not None, seconds=SOON)
        assert keeper.failure is None
        assert not told_to_end.is_set()


def test_a_shutdown_waits_for_no_start_that_hangs(data_dir: Path, start: Start) -> None:
    """Given a server that stands still at its start, then SIGTERM ends the service, and that."""
    with start(None, DATA_DIR=str(data_dir)) as server:
        cluster = data_dir / "pg" / "data"
        os.mkfifo(cluster / "nobody_writes.conf")
        owner = cluster.stat()
        os.chown(cluster / "nobody_writes.conf", owner.st_uid, owner.st_gid)
        configure(data_dir, "include 'nobody_writes.conf'")
        KillablePostgres(data_dir).kill()
        eventually("an attempt", lambda: servers_of(data_dir), seconds=SOON)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(timeout=SOON) == 0
        eventually("its end", lambda: not servers_of(data_dir))
        assert "Traceback" not in server.log()


def test_a_shutdown_waits_for_nobody_else_s_start(data_dir: Path, told_to_end: object) -> None:
    """Given another process that starts or stops the server, then the keeper lets go."""
    with KillablePostgres(data_dir) as postgres:
        keeper = Keeper(postgres)
        held = os.open(data_dir / "pg.lock", os.O_RDWR)
        try:
            fcntl.flock(held, fcntl.LOCK_EX)
            keeper.start()
            postgres.kill()
            eventually("its death", lambda: postgres.pid is None)
            stopping = threading.Thread(target=keeper.stop, daemon=True)
            stopping.start()
            stopping.join(SOON)
            assert not stopping.is_alive()
        finally:
            os.close(held)


def test_a_server_that_was_stopped_is_ended(data_dir: Path, start: Start) -> None:
    """Given a postmaster that stands still, then SIGTERM ends the service, and that."""
    with start(None, DATA_DIR=str(data_dir)) as server:
        pid = KillablePostgres(data_dir).pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(timeout=SOON) == 0
        eventually("its end", lambda: not servers_of(data_dir))
