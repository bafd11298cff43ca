"""Spec 14: starting, stopping, and a database that goes away."""

from __future__ import annotations

import re
import signal
import socket
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import orjson
import psutil
import psycopg

from application.eventstore.migrate import migrate
from projections import schema
from tests.acceptance.conftest import Start
from tests.acceptance.serving import (
    PLAIN_KEY,
    Api,
    Json,
    Server,
    attempt,
    eventually,
    gone,
    name,
    ok,
    position,
    refused,
)
from tests.support.killable import KillablePostgres

# Starting


def test_every_wrong_setting_is_named(tmp_path: Path) -> None:
    """Given several wrong settings, then one start names them all, and exits with 2."""
    wrong = {
        "PORT": "http",
        "WORKERS": "0",
        "LOG_LEVEL": "loud",
        "ENVIRONMENT": "staging",
        "DATABASE_URL": "mysql://localhost/x",
        "STALL_THRESHOLD_MS": "three minutes",
        "SWEEP_SECONDS": "-1",
        "RETENTION_DAYS": "0",
        "API_KEYS": " , ",
        "INSTANCE_STALE_SECONDS": "soon",
    }
    failed = attempt(DATA_DIR=str(tmp_path), **wrong)
    assert failed.returncode == 2
    for setting in wrong:
        assert re.search(rf"^{setting}: \S", failed.stderr, re.MULTILINE), failed.stderr
    assert "Traceback" not in failed.stderr
    assert list(tmp_path.iterdir()) == []


def test_thresholds_that_contradict_each_other_are_named() -> None:
    """Given a claim take-over before the others' thresholds, then the start fails naming them."""
    failed = attempt(CLAIM_STALE_SECONDS="100", STALL_THRESHOLD_MS="100000")
    assert failed.returncode == 2
    for setting in ("CLAIM_STALE_SECONDS", "INSTANCE_STALE_SECONDS", "STALL_THRESHOLD_MS"):
        assert setting in failed.stderr


def test_a_database_that_cannot_be_reached_ends_the_start() -> None:
    """Given a database that nobody serves, then the start says so and exits with 6."""
    failed = attempt(DATABASE_URL="postgresql://nobody@127.0.0.1:1/none", API_KEYS="key-1")
    assert failed.returncode == 6
    assert "cannot reach the database" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_a_taken_port_ends_the_start(database: str) -> None:
    """Given a port that something else has, then the start says so and exits with 6."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        failed = attempt(DATABASE_URL=database, API_KEYS="key-1", PORT=port)
    assert failed.returncode == 6
    assert port in failed.stderr


def test_without_any_setting_it_makes_what_it_needs(data_dir: Path) -> None:
    """Given no DATABASE_URL and no API_KEYS, then a Postgres and a key of its own, both kept."""
    sessions: list[str] = []
    for _ in range(2):
        server = Server(None, data_dir, API_KEYS="")
        del server._environ["API_KEYS"]
        with server:
            shown = re.search(r"^API key  (\S+)$", server.log(), re.MULTILINE)
            assert shown is not None
            key = (data_dir / "api_key").read_text().strip()
            assert shown[1] == key
            assert (data_dir / "api_key").stat().st_mode & 0o777 == 0o600
            with Api(server.url, key, "default") as api:
                assert [s["session_id"] for s in ok(api.get("/api/sessions"))["sessions"]] == (
                    sessions[::-1]
                )
                sessions.append(api.session()["session_id"])
        assert not _postgres_of(data_dir)


def _postgres_of(directory: Path) -> list[int]:
    """The processes of a Postgres that keeps its data there."""
    found = []
    for process in psutil.process_iter(["pid", "cmdline"]):
        if str(directory) in " ".join(process.info["cmdline"] or []):
            found.append(process.info["pid"])
    return found


def test_several_processes_may_serve_one_database(database: str, start: Start) -> None:
    """Given two servers on one database, then each sees at once what the other has done."""
    with start(database) as one, start(database) as two, one.default() as a, two.default() as b:
        session = a.session()
        path = f"/api/sessions/{session['session_id']}"
        for number in range(10):
            writer, reader = (a, b) if number % 2 else (b, a)
            writer.beat(session["session_id"], metadata={"n": number})
            assert ok(reader.get(path))["metadata"] == {"n": number}
        place = {key: session[key] for key in ("project_id", "machine_id")}
        refused(b.post("/api/sessions", json=place), 409, "session_exists")
        gone(a.delete(path))
        refused(b.post(f"{path}/heartbeat"), 404, "session_not_found")
        b.session(**place)


def test_several_workers_serve_as_one(database: str, start: Start) -> None:
    """Given WORKERS=2, then what one worker has written the other answers with."""
    with start(database, WORKERS="2") as server, server.default() as api:
        session = api.session()
        for number in range(20):
            # A connection each: any worker may get it.
            with Api(server.url, PLAIN_KEY, "default") as client:
                client.beat(session["session_id"], metadata={"n": number})
                assert client.get_session(session["session_id"])["metadata"] == {"n": number}


# Stopping


def test_a_command_in_flight_is_finished(database: str, start: Start) -> None:
    """Given SIGTERM while a request is half sent, then it is answered, and what it did is kept."""
    body = orjson.dumps({"project_id": name("project"), "machine_id": name("machine")})
    with start(database) as server:
        address = urlsplit(server.url)
        with socket.create_connection((str(address.hostname), int(address.port or 0))) as wire:
            wire.settimeout(60)
            head = (
                f"POST /api/sessions HTTP/1.1\r\nHost: x\r\nX-API-Key: {PLAIN_KEY}\r\n"
                f"Content-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n"
            )
            wire.sendall(head.encode())
            # The server waits for the body: it has the request in hand.
            assert wire.recv(1000).startswith(b"HTTP/1.1 100")
            server.process.send_signal(signal.SIGTERM)
            eventually("the door to be shut", lambda: not _accepts(server))
            wire.sendall(body)
            reply = wire.makefile("rb").read()
        status, _, rest = reply.partition(b"\r\n")
        assert status == b"HTTP/1.1 201 Created"
        session_id = orjson.loads(rest.partition(b"\r\n\r\n")[2])["session_id"]
        assert server.process.wait(timeout=60) == 0
    assert session_id in _sessions_in(database)


def _sessions_in(database: str) -> set[str]:
    """The sessions whose first event is stored."""
    query = "SELECT substr(stream_id, 9) FROM event_store WHERE event_type = 'session_created'"
    with psycopg.connect(database) as connection:
        return {row[0] for row in connection.execute(query)}


def _accepts(server: Server) -> bool:
    try:
        return httpx.get(f"{server.url}/health", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def test_what_was_acknowledged_before_a_stop_is_there_after_it(database: str, start: Start) -> None:
    """Given SIGTERM under load, then every session that was answered 201 is found again."""
    acknowledged: list[str] = []
    enough = threading.Event()

    def work(url: str) -> None:
        with Api(url, PLAIN_KEY, "default") as client:
            while True:
                body = {"project_id": name("project"), "machine_id": name("machine")}
                try:
                    reply = client.post("/api/sessions", json=body)
                except httpx.TransportError:
                    return  # the server has gone
                if reply.status_code == 201:
                    acknowledged.append(reply.json()["session_id"])
                else:
                    refused(reply, 503, "database_unavailable")
                if len(acknowledged) > 200:
                    enough.set()

    with start(database) as server:
        with ThreadPoolExecutor(8) as pool:
            workers: list[Future[None]] = [pool.submit(work, server.url) for _ in range(8)]
            assert enough.wait(60)
            server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(timeout=60) == 0
            for worker in workers:
                worker.result()
        assert "Traceback" not in server.log()
    assert set(acknowledged) <= _sessions_in(database)


# The database goes away


def test_without_its_database_it_says_so_and_comes_back_by_itself(
    private_cluster: KillablePostgres, start: Start
) -> None:
    """Given a killed Postgres, then 503 and /health 200; once it is back all is as it was."""
    url = private_cluster.url_of("postgres")
    migrate(url)
    schema.install(url)
    with start(url, SWEEP_SECONDS="0.3", LOG_LEVEL="debug") as server, server.default() as api:
        kept = [api.session(metadata={"n": n}) for n in range(20)]
        task = api.task(kept[0], "in_progress")
        path = f"/api/sessions/{kept[0]['session_id']}"
        private_cluster.kill()
        requests: list[tuple[str, str, Json | None]] = [
            ("GET", "/api/sessions", None),
            ("GET", path, None),
            ("GET", "/api/sessions/health", None),
            ("POST", "/api/sessions", {"project_id": "p", "machine_id": "m"}),
            ("POST", f"{path}/heartbeat", {}),
            ("PATCH", f"/api/tasks/{task['task_id']}", {"status": "completed"}),
            ("DELETE", path, None),
            ("POST", "/api/sessions/detect-failures", {}),
            ("POST", "/api/sessions/cleanup", {}),
            ("POST", "/api/heartbeats", {"heartbeats": [{"session_id": kept[1]["session_id"]}]}),
        ]

        def send(request: tuple[str, str, Json | None]) -> httpx.Response:
            verb, where, body = request
            return api.request(verb, where, json=body)

        with ThreadPoolExecutor(len(requests)) as pool:
            replies = list(pool.map(send, requests))
        for reply in replies:
            message = refused(reply, 503, "database_unavailable")["message"]
            assert "retry-after" in reply.headers
            for internal in ("psycopg", "socket", "connection", "/tmp", "postgres"):
                assert internal not in message.lower()
        assert ok(api.get("/health"))["status"] == "ok"
        with server.nobody() as nobody:
            refused(nobody.get("/api/sessions"), 401, "unauthorized")
        private_cluster.start()
        eventually(
            "a write",
            lambda: api.post(f"{path}/heartbeat").status_code == 200,
            seconds=60,
        )
        eventually("a read", lambda: api.get(path).status_code == 200, seconds=60)
        for session in kept[1:]:
            # On a slow machine that took long enough to be an absence.
            found = api.get_session(session["session_id"]) | {"unknown_since": None}
            assert found == session
        assert api.get_task(task["task_id"]) == task
        # What follows is read back at once again, and the sweep goes on.
        done = api.patch_task(task["task_id"], status="completed")
        assert api.get_task(task["task_id"]) == done
        rounds = len(sweeps(server))
        eventually("the sweep", lambda: len(sweeps(server)) > rounds + 1)


def sweeps(server: Server) -> list[Json]:
    """The sweeps that went well."""
    return [line for line in server.lines("job_done") if line["context"]["job_name"] == "sweep"]


def test_no_event_is_lost_or_doubled_when_the_database_is_killed_under_load(
    private_cluster: KillablePostgres, start: Start
) -> None:
    """Given heartbeats with keys, repeated until acknowledged, then each is stored once."""
    url = private_cluster.url_of("postgres")
    migrate(url)
    schema.install(url)
    with start(url) as server, server.default() as api:
        session_id = api.session()["session_id"]
        half_way = threading.Event()

        def beat(number: int) -> int:
            if number == 60:
                half_way.set()
            with Api(server.url, PLAIN_KEY, "default") as client:

                def send() -> int | None:
                    reply = client.post(
                        f"/api/sessions/{session_id}/heartbeat",
                        json={"metadata": {f"n{number}": number}},
                        headers={"Idempotency-Key": f"beat-{number}"},
                    )
                    if reply.status_code == 200:
                        return position(reply)
                    refused(reply, 503, "database_unavailable")
                    return None

                return eventually("an acknowledgement", send, seconds=60)

        with ThreadPoolExecutor(6) as pool:
            sent = pool.map(beat, range(150))
            assert half_way.wait(60)
            private_cluster.kill()
            private_cluster.start()
            positions = list(sent)
        assert len(set(positions)) == 150
        assert len(api.get_session(session_id)["metadata"]) == 150

        # Its connections are others than the heartbeats', and have been broken until now.
        looked = api.post("/api/sessions/detect-failures")
        assert ok(looked)["stalled"] == 0
        assert position(looked) == max(positions)


# Logs


def test_every_log_line_is_json_and_holds_no_payload(server: Server, api: Api) -> None:
    """Given requests with secrets in their bodies, then the log has lines of JSON without them."""
    secret = name("secret")
    session = api.session(metadata={"token": secret}, hostname=secret)
    api.beat(session["session_id"], metadata={"token": secret})
    api.task(session, metadata={"token": secret})
    api.post("/api/sessions", content=f'{{"{secret}": '.encode())
    lines = [line for line in server.log().splitlines() if line]
    assert secret not in server.log()
    for line in lines[1:]:
        parsed = orjson.loads(line)
        assert {"timestamp", "level", "message", "context"} <= set(parsed)
    assert lines[0].startswith("holdfast serves on")
