"""A dead embedded Postgres is started again, a frozen one is not waited for (field case 11)."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import httpx
import pytest

from application.eventstore.migrate import migrate
from projections import schema
from tests.acceptance.conftest import Start
from tests.acceptance.serving import Api, Json, Server, eventually, ok, refused
from tests.support.killable import KillablePostgres, frozen

LONG = 60.0


def beat(api: Api, session: Json) -> httpx.Response:
    return api.post(f"/api/sessions/{session['session_id']}/heartbeat", json={})


def goes_on(api: Api, session: Json) -> None:
    """Everything that was there is there, and the service is well."""
    eventually("a write", lambda: beat(api, session).status_code == 200, LONG)
    eventually(
        "a read",
        lambda: api.get(f"/api/sessions/{session['session_id']}").status_code == 200,
        LONG,
    )
    eventually("health", lambda: ok(api.get("/health"))["database"] == "ok", LONG)
    assert ok(api.get("/health"))["status"] == "ok"
    assert api.get_session(session["session_id"])["status"] == "active"


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_killed_postmaster_is_started_again(data_dir: Path, start: Start, workers: str) -> None:
    """Given kill -9 of the postmaster, twice, then nobody has to do anything."""
    settings = {"DATA_DIR": str(data_dir), "WORKERS": workers}
    with start(None, **settings) as server, server.default() as api:
        session = api.session()
        postgres = KillablePostgres(data_dir)
        for times in (1, 2):
            if times == 1:
                postgres.kill()
            else:
                # Those that it started take a moment to notice, and to let go of its memory.
                assert postgres.pid is not None
                os.kill(postgres.pid, signal.SIGKILL)
            eventually("its death", partial(_has_said, server, "embedded_postgres_died", times))
            goes_on(api, session)
            revived = partial(_has_said, server, "embedded_postgres_started_again", times)
            eventually("the word", revived)


def _has_said(server: Server, message: str, times: int) -> bool:
    return len(server.lines(message)) == times


def test_what_cannot_be_started_again_ends_the_service(data_dir: Path, start: Start) -> None:
    """Given that its files are gone, then the process ends with a clear word and not with 0."""
    with start(None, DATA_DIR=str(data_dir)) as server:
        (data_dir / "pg" / "data" / "PG_VERSION").unlink()
        KillablePostgres(data_dir).kill()
        assert server.process.wait(timeout=LONG) == 6
        assert "does not start again" in server.log()
        assert "are gone" in server.log()


def test_damaged_files_end_the_service(data_dir: Path, start: Start) -> None:
    """Given that it refuses to start, then the process ends with what Postgres says of it."""
    with start(None, DATA_DIR=str(data_dir), WORKERS="2") as server:
        (data_dir / "pg" / "data" / "PG_VERSION").write_text("9.1\n")
        KillablePostgres(data_dir).kill()
        assert server.process.wait(timeout=LONG) == 6
        assert "does not start again" in server.log()
        (line,) = server.lines("embedded_postgres_given_up")
        assert line["context"]["cause"] == "its files are of another version"


@contextmanager
def small_disk(megabytes: int) -> Iterator[Path]:
    """A file system of this size."""
    folder = Path(tempfile.mkdtemp(prefix="holdfast-disk-", dir="/tmp"))
    folder.chmod(0o711)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=711", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        folder.rmdir()
        pytest.skip("nobody but root can mount a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
        folder.rmdir()


def fill(path: Path) -> None:
    """Leave no room beside this file."""
    # Without a buffer, or what is left in it is refused once more when the file is closed.
    with suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(1_000_000))


def test_a_full_disk_is_waited_for_and_told(start: Start) -> None:
    """Given a disk that fills up, then the refusals say so; given room again, all goes on."""
    with (
        small_disk(400) as disk,
        start(None, DATA_DIR=str(disk / "data")) as server,
        server.default() as api,
    ):
        session = api.session()
        ballast = disk / "ballast"
        fill(ballast)
        large = {"metadata": {"text": "x" * 60_000}}

        def refused_for_the_disk() -> bool:
            body = {"project_id": "p", "machine_id": f"m{time.monotonic_ns()}", **large}
            reply = api.post("/api/sessions", json=body)
            return reply.status_code == 503 and "disk is full" in reply.json()["message"]

        eventually("a refusal", refused_for_the_disk, LONG)
        KillablePostgres(disk / "data").kill()
        eventually(
            "its death", lambda: server.lines("embedded_postgres_cannot_start") or None, LONG
        )
        message = refused(beat(api, session), 503, "database_unavailable")["message"]
        assert "its disk is full" in message
        assert str(disk) not in message
        (died,) = server.lines("embedded_postgres_died")
        assert died["context"]["cause"] == "its disk is full"
        eventually("health", lambda: ok(api.get("/health"))["database"] == "away", LONG)
        ballast.unlink()
        goes_on(api, session)


def test_a_frozen_database_is_not_waited_for(
    private_cluster: KillablePostgres, start: Start
) -> None:
    """Given a database that stands still, then reads and writes are answered, and it heals."""
    url = private_cluster.url_of("postgres")
    migrate(url)
    schema.install(url)
    with start(url) as server, server.default() as api:
        session = api.session()
        api.get_session(session["session_id"])
        api.timeout = 60
        with frozen(private_cluster):
            path = f"/api/sessions/{session['session_id']}"
            asked: list[tuple[str, str]] = [
                ("GET", path),
                ("POST", f"{path}/heartbeat"),
                ("GET", "/api/sessions"),
                ("GET", f"/api/streams/session-{session['session_id']}/events"),
            ]
            # At once, as each takes its time to find out.
            with ThreadPoolExecutor(len(asked)) as pool:
                replies = list(pool.map(lambda request: api.request(*request), asked))
            for reply in replies:
                assert reply.status_code in (503, 504), reply.text
                assert reply.json()["code"] in ("database_unavailable", "timeout")
            eventually("health", lambda: ok(api.get("/health"))["status"] == "degraded", LONG)
            assert ok(api.get("/health"))["database"] == "away"
        goes_on(api, session)


def test_the_log_stays_short_while_the_database_is_away(
    private_cluster: KillablePostgres, start: Start
) -> None:
    """Given an outage, then each that waits says so once, and that it is over."""
    url = private_cluster.url_of("postgres")
    migrate(url)
    schema.install(url)
    with start(url, SWEEP_SECONDS="0.2") as server, server.default() as api:
        session = api.session()
        private_cluster.kill()
        # That takes as long as many a look of the projector, and of the sweep.
        eventually("health", lambda: ok(api.get("/health"))["database"] == "away", LONG)
        with ThreadPoolExecutor(10) as pool:
            for reply in pool.map(lambda _: beat(api, session), range(30)):
                refused(reply, 503, "database_unavailable")
        lines = server.log().splitlines()
        for waiting in ("projector_waits_for_database", "jobs_wait_for_database"):
            assert len([line for line in lines if waiting in line]) == 1
        before = len(lines)
        assert before < 20
        private_cluster.start()
        goes_on(api, session)
        eventually("the end of it", lambda: server.lines("database_is_back") or None, LONG)
