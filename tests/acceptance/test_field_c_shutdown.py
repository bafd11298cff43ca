"""A database that stands still does not hold up a shutdown (field case 11)."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import orjson
import psutil
import pytest

from application.eventstore.migrate import migrate
from projections import schema
from tests.acceptance.conftest import Start
from tests.acceptance.serving import PLAIN_KEY, Api, Json, Server, eventually, ok
from tests.support.killable import KillablePostgres, frozen

# The grace for requests that are being answered, and a few seconds.
LONG = 45.0


def last_line(server: Server) -> Json:
    line: Json = orjson.loads(server.log().splitlines()[-1])
    return line


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_frozen_postgres_of_its_own_is_woken_and_ends(
    data_dir: Path, start: Start, workers: str
) -> None:
    """Given that all its processes are stopped, then both end, and nothing is lost."""
    with start(None, DATA_DIR=str(data_dir), WORKERS=workers) as server, server.default() as api:
        session = api.session()
        postgres = KillablePostgres(data_dir)
        with frozen(postgres):
            server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(timeout=LONG) == 0
        assert postgres.pid is None
        assert last_line(server)["message"] == "service_stopped"
    with start(None, DATA_DIR=str(data_dir)) as server, server.default() as api:
        assert api.get_session(session["session_id"])["session_id"] == session["session_id"]


def test_whoever_waits_for_a_frozen_database_is_refused_before_the_end(
    private_cluster: KillablePostgres, start: Start
) -> None:
    """Given requests on their way as the shutdown begins, then each is answered, with 503 or 504.

    What was acknowledged before is there, and what was refused is there once or not at all.
    """
    url = private_cluster.url_of("postgres")
    migrate(url)
    schema.install(url)
    with start(url) as server, server.default() as api:
        session_id = api.session()["session_id"]
        for number in range(20):
            api.beat(session_id, metadata={f"known{number}": 1})
        with frozen(private_cluster):
            with ThreadPoolExecutor(12) as pool:
                waiting = [pool.submit(ask, server, session_id, n) for n in range(12)]
                eventually("requests on their way", lambda: connections(server) >= 12)
                server.process.send_signal(signal.SIGTERM)
                replies = [one.result() for one in waiting]
            assert server.process.wait(timeout=LONG) == 0
        for reply in replies:
            assert reply.status_code in (503, 504), reply.text
            assert reply.json()["code"] in ("database_unavailable", "timeout")
        assert last_line(server)["message"] == "service_stopped"
    with start(url) as server, server.default() as api:
        for number in range(12):
            again = beat(api, session_id, number)
            assert again.status_code == 200
        metadata = api.get_session(session_id)["metadata"]
        assert {f"known{number}" for number in range(20)} <= set(metadata)
        events = ok(api.get(f"/api/streams/session-{session_id}/events?limit=1000"))["events"]
        names = [name for e in events for name in e["event_data"].get("metadata") or ()]
        late = sorted(name for name in names if name.startswith("late"))
        assert late == sorted(f"late{number}" for number in range(12))


def ask(server: Server, session_id: str, number: int) -> httpx.Response:
    with Api(server.url, PLAIN_KEY, "default") as api:
        api.timeout = LONG
        return beat(api, session_id, number)


def beat(api: Api, session_id: str, number: int) -> httpx.Response:
    return api.post(
        f"/api/sessions/{session_id}/heartbeat",
        json={"metadata": {f"late{number}": number}},
        headers={"Idempotency-Key": f"late-{number}"},
    )


def connections(server: Server) -> int:
    port = int(server.url.rsplit(":", 1)[1])
    return sum(
        1
        for c in psutil.Process(server.process.pid).net_connections("tcp")
        if c.status == psutil.CONN_ESTABLISHED and c.laddr.port == port
    )
