"""Field cases 5: an agent's question over MCP ends with the connection that it came over."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

import orjson
import psycopg
import pytest

from interfaces.host.embedded_postgres import EmbeddedPostgres
from tests.acceptance.conftest import Start
from tests.acceptance.serving import Api, cloned, eventually, name, ok
from tests.support.postgres import as_owner

WAITING = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    " AND wait_event_type = 'Lock'"
)


def tool_call(api: Api, tool: str, **arguments: object) -> bytes:
    """A call of a tool, as it goes over the wire."""
    params = {"name": tool, "arguments": arguments}
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    content = orjson.dumps(call)
    head = (
        f"POST /mcp HTTP/1.1\r\nHost: {urlsplit(str(api.base_url)).netloc}\r\n"
        f"X-API-Key: {api.key}\r\nAccept: application/json, text/event-stream\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


@pytest.mark.parametrize(
    ("tool", "given", "table"),
    [
        ("mcp_meta_query_events", {"keyword": "needle"}, "event_store"),
        ("mcp_meta_replay_events", {}, "event_store"),
        ("mcp_meta_list_instances", None, "instances"),
    ],
)
def test_a_tool_s_query_ends_with_the_client_that_wanted_it(
    cluster: EmbeddedPostgres,
    template: str,
    start: Start,
    tool: str,
    given: dict[str, object] | None,
    table: str,
) -> None:
    """Given a query that waits in the database, when its client goes, then it is cancelled."""
    with (
        cloned(cluster, template) as url,
        start(url) as server,
        server.default() as api,
        as_owner(url) as owner,
        psycopg.connect(url, autocommit=True) as looking,
    ):
        body = {"project": name("project"), "instance_type": "PS"}
        instance_id = ok(api.post("/api/instances", json=body), 201)["instance_id"]
        arguments = {} if given is None else {"instance_id": instance_id, **given}
        where = urlsplit(str(api.base_url))
        address = where.hostname or "", where.port or 0

        def waiting() -> int:
            row = looking.execute(WAITING).fetchone()
            assert row is not None
            return int(row[0])

        with socket.create_connection(address) as connection:
            connection.sendall(tool_call(api, tool, **arguments))
            assert b"200 OK" in connection.recv(65_536)
        with owner.transaction():
            owner.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
            before = waiting()
            with socket.create_connection(address) as connection:
                connection.sendall(tool_call(api, tool, **arguments))
                eventually("the query to wait", lambda: waiting() > before)
            # Sooner than the statement's time-out would end it.
            eventually("the query's end", lambda: waiting() <= before, 8)
        ok(api.get(f"/api/instances/{instance_id}"))
        assert server.lines("tool_failed") == server.lines("request_failed") == []
