"""Field cases 5: a client that has gone is no longer worked for."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import psycopg
import pytest

from interfaces.host.embedded_postgres import EmbeddedPostgres
from tests.acceptance.conftest import Start
from tests.acceptance.serving import Api, Server, cloned, eventually, name, ok
from tests.support.postgres import as_owner

WAITING = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    " AND wait_event_type = 'Lock'"
)


@pytest.fixture
def alone(cluster: EmbeddedPostgres, template: str, start: Start) -> Iterator[Server]:
    """A server whose tables may be locked."""
    with cloned(cluster, template) as url, start(url) as server:
        yield server


@contextmanager
def asked(api: Api, path: str) -> Iterator[socket.socket]:
    """A connection on which a question was asked, and nothing read."""
    where = urlsplit(str(api.base_url))
    with socket.create_connection((where.hostname or "", where.port or 0)) as connection:
        head = f"GET {path} HTTP/1.1\r\nHost: {where.netloc}\r\nX-API-Key: {api.key}\r\n\r\n"
        connection.sendall(head.encode())
        yield connection


@pytest.mark.parametrize(
    ("path", "table"),
    [
        ("/api/instances/{i}/events?keyword=needle", "event_store"),
        ("/api/instances/{i}/replay", "event_store"),
        ("/api/events?wait=20", "event_store"),
        ("/api/sessions", "sessions"),
    ],
)
def test_a_query_ends_with_the_client_that_wanted_it(alone: Server, path: str, table: str) -> None:
    """Given a query that waits in the database, when its client goes, then it is cancelled."""
    url = alone.database_url or ""
    with (
        alone.default() as api,
        as_owner(url) as owner,
        psycopg.connect(url, autocommit=True) as looking,
    ):
        body = {"project": name("project"), "instance_type": "PS"}
        instance_id = ok(api.post("/api/instances", json=body), 201)["instance_id"]
        ok(api.get("/api/instances"))
        owner.execute("BEGIN")
        owner.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE".encode())

        def waiting() -> int:
            row = looking.execute(WAITING).fetchone()
            assert row is not None
            return int(row[0])

        before = waiting()
        with asked(api, path.format(i=instance_id)):
            eventually("the query to wait", lambda: waiting() > before)
        # Sooner than the statement's time-out would end it.
        eventually("the query's end", lambda: waiting() <= before, 8)
        owner.execute("ROLLBACK")
        ok(api.get(f"/api/instances/{instance_id}"))
        assert alone.lines("request_failed") == []


def test_clients_that_go_take_no_connection_with_them(alone: Server) -> None:
    """Given hundreds that ask and go at once, then whoever comes next is answered as ever."""
    with alone.default() as api:
        instance_id = ok(
            api.post("/api/instances", json={"project": name("p"), "instance_type": "PS"}), 201
        )["instance_id"]
        paths = (
            "/api/events?after=1000000&wait=20",
            "/api/sessions",
            "/api/work-items",
            f"/api/instances/{instance_id}",
            f"/api/instances/{instance_id}/events",
        )
        for _ in range(60):
            for path in paths:
                with asked(api, path):
                    pass
        for _ in range(20):
            ok(api.get("/api/sessions"))
            ok(api.get(f"/api/instances/{instance_id}"))
            ok(api.get(f"/api/instances/{instance_id}/events"))
        assert alone.lines("request_failed") == []
